package policy

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// Bounds of an expression. The unit of cost is about one comparison of short values.
const (
	maxExpression = 2048    // bytes
	maxCost       = 100_000 // of one evaluation; about a millisecond
	// The static estimate takes these for the largest values. The limit at run time holds whatever
	// the sizes are.
	supposedText  = 1024 // bytes of a string
	supposedItems = 64   // of a list or map

	maxRead = 8 // scopes, groups and claims whose values a cause tells
)

// condition is a compiled expression. It is safe for concurrent use.
type condition struct {
	program cel.Program
	models  bool   // it asks for what the body of a request may name
	reads   []lack // what it asks about the caller, without values
}

// holds evaluates the expression. An error says that it could not be evaluated.
func (c *condition) holds(q *question) (bool, error) {
	out, _, err := c.program.Eval(q)
	if err != nil {
		return false, err
	}
	held, ok := out.Value().(bool)
	if !ok {
		return false, errors.New("the result is neither true nor false")
	}
	return held, nil
}

// expressions compiles the keys when of rules. The zero value is ready for use.
type expressions struct{ env *cel.Env }

// badExpression is the error for an expression that cannot be compiled.
type badExpression struct{ problem, cure string }

func (e *badExpression) Error() string { return e.problem }

// compile checks the types and the cost of an expression.
func (x *expressions) compile(text string) (*condition, error) {
	if x.env == nil {
		env, err := newEnvironment()
		if err != nil {
			return nil, fmt.Errorf("the language of when: %w", err)
		}
		x.env = env
	}
	if len(text) > maxExpression {
		return nil, &badExpression{"the expression is longer than " + strconv.Itoa(maxExpression) + " bytes", "write several rules"}
	}
	checked, issues := x.env.Compile(text)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		problem, _, _ := strings.Cut(first.Message, "\n")
		if line := first.Location.Line(); line > 1 {
			problem += " in its line " + strconv.Itoa(line)
		}
		return nil, &badExpression{problem + " at column " + strconv.Itoa(first.Location.Column()+1), cureExpression(nameIn(problem, text, first.Location.Line(), first.Location.Column()))}
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		return nil, &badExpression{"the expression is a " + checked.OutputType().String() + ", not true or false", "compare it with something, as in principal.name == \"alice\""}
	}
	estimate, err := x.env.EstimateCost(checked, supposed{})
	if err != nil {
		return nil, fmt.Errorf("the cost of when: %w", err)
	}
	if estimate.Max > maxCost {
		return nil, &badExpression{"the expression may take " + steps(estimate.Max) + ", more than the " + strconv.Itoa(maxCost) + " that are allowed", "write fewer loops (exists, all, filter, map) within one another, and compare parts such as principal.name"}
	}
	program, err := x.env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, &badExpression{setting.PlainError(err).Error(), "write another constant"} // such as a bad regular expression
	}
	c := &condition{program: program}
	for _, reference := range checked.NativeRep().ReferenceMap() {
		switch reference.Name {
		case "call.model", "call.version", "call.signature":
			c.models = true
		case "principal.scopes":
			c.reads = append(c.reads, lack{kind: "scope"})
		case "principal.groups":
			c.reads = append(c.reads, lack{kind: "group"})
		}
	}
	for _, call := range ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), ast.FunctionMatcher("claims")) {
		for _, path := range call.AsCall().Args() {
			if path.Kind() == ast.LiteralKind {
				c.reads = append(c.reads, lack{kind: "claim", claim: fmt.Sprint(path.AsLiteral().Value())})
			}
		}
	}
	slices.SortFunc(c.reads, func(a, b lack) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.claim, b.claim)) })
	c.reads = slices.CompactFunc(c.reads, func(a, b lack) bool { return a.kind == b.kind && a.claim == b.claim })
	c.reads = c.reads[:min(len(c.reads), maxRead)]
	return c, nil
}

// newEnvironment returns the language of expressions: standard CEL over [variables], and the claims
// of the caller by principal.claims(PATH).
func newEnvironment() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.Variable("principal", claimantType()),
		cel.Function("claims", cel.MemberOverload("principal_claims", []*cel.Type{claimantType(), cel.StringType}, cel.ListType(cel.StringType),
			cel.BinaryBinding(claimsOf))),
		cel.ParserExpressionSizeLimit(maxExpression),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.of))
	}
	return cel.NewEnv(options...)
}

// steps describes an estimated cost.
func steps(n uint64) string {
	if n > 1e12 {
		return "any number of steps"
	}
	return strconv.FormatUint(n, 10) + " steps"
}

// nameIn returns the name that a problem at a place of the expression is about; "" for none.
func nameIn(problem, text string, line, column int) string {
	if _, name, found := strings.Cut(problem, "undeclared reference to '"); found {
		name, _, _ = strings.Cut(name, "'")
		return name
	}
	if !strings.Contains(problem, "type 'principal' does not support field selection") || line != 1 || column >= len(text) {
		return ""
	}
	part := strings.TrimPrefix(text[column:], ".")
	end := strings.IndexFunc(part, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if end >= 0 {
		part = part[:end]
	}
	return "principal." + part
}

// cureExpression returns what helps against a problem with a name in an expression.
func cureExpression(name string) string {
	if name == "" {
		return "see https://cel.dev for the language; strings are in double quotes"
	}
	var known, parts []string
	for _, v := range variables {
		known = append(known, v.name)
		if strings.HasPrefix(v.name, name+".") {
			parts = append(parts, v.name)
		}
	}
	if len(parts) > 0 {
		return "write one of " + strings.Join(parts, ", ")
	}
	if near := setting.Nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "there are " + strings.Join(known, ", ") + " and principal.claims(PATH)"
}

// supposed supposes the sizes of values that only a request tells.
type supposed struct{}

// EstimateCallCost leaves the cost of functions to package cel.
func (supposed) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if function == "claims" {
		size := cost.SizeEstimate{Max: supposedItems}
		return cost.NewCallEstimate(cost.FixedCostEstimate(supposedItems), &size)
	}
	return nil
}

// EstimateSize supposes a size by type.
func (supposed) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	switch node.Type().Kind() {
	case types.StringKind, types.BytesKind:
		return &cost.SizeEstimate{Max: supposedText}
	case types.ListKind, types.MapKind:
		return &cost.SizeEstimate{Max: supposedItems}
	}
	return nil
}

// claimant is the value of the variable principal. Its claims are read one by one, because a proof
// finds them by their paths alone.
type claimant struct {
	caller  *identity.Principal
	unknown bool // its claims are
}

func claimantType() *cel.Type { return cel.OpaqueType("principal") }

// claimsOf returns the values of the claim at a path; none if the caller has no such claim.
func claimsOf(of, path ref.Val) ref.Val {
	c, ok := of.(*claimant)
	text, isText := path.Value().(string)
	if !ok || !isText {
		return types.NewErr("principal.claims wants the path of a claim")
	}
	if c.unknown {
		return types.NewErr("the claims of the caller are not known")
	}
	if c.caller.LeftOut(text) {
		return types.NewErr("the issuer left the claim %s out (_claim_names or hasgroups)", text)
	}
	if c.caller.Claim == nil {
		return types.NewStringList(types.DefaultTypeAdapter, nil)
	}
	return types.NewStringList(types.DefaultTypeAdapter, c.caller.Claim(text))
}

// ConvertToNative refuses: no expression yields a principal.
func (*claimant) ConvertToNative(reflect.Type) (any, error) { return nil, errNoValue }

// ConvertToType refuses.
func (*claimant) ConvertToType(ref.Type) ref.Val { return types.WrapErr(errNoValue) }

// Equal refuses.
func (*claimant) Equal(ref.Val) ref.Val { return types.WrapErr(errNoValue) }

// Type returns the type of the variable principal.
func (*claimant) Type() ref.Type { return claimantType() }

// Value returns nothing that an expression could use.
func (*claimant) Value() any { return nil }

var errNoValue = errors.New("principal is no value: write principal.name or another part of it")
