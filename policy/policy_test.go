package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

func alice() identity.Principal {
	return identity.Principal{
		Source: "issuer/corp", Name: "alice", Scopes: []string{"models.predict", "openid"}, Groups: []string{"ml"},
		Claim: func(path string) []string {
			if path == "realm_access.roles" {
				return []string{"user", "trainer"}
			}
			return nil
		},
	}
}

func TestDenyWinsThenAnyAllow(t *testing.T) {
	type list = setting.List[string]
	bob := identity.Principal{Source: "issuer/other", Name: "alice"}
	for _, c := range []struct {
		name   string
		rules  []policy.Rule
		caller identity.Principal
		verb   string
		want   string // "" for a grant
	}{
		{"everything to everyone", []policy.Rule{{Allow: list{"*"}}}, alice(), "post", ""},
		{"nobody gets nothing", []policy.Rule{{Allow: list{"*"}}}, identity.Principal{}, "post", policy.ReasonForbidden},
		{"no verb", []policy.Rule{{Allow: list{"*"}}}, alice(), "", policy.ReasonForbidden},
		{"verb listed", []policy.Rule{{Allow: list{"get", "post"}}}, alice(), "post", ""},
		{"verb not listed", []policy.Rule{{Allow: list{"get"}}}, alice(), "post", policy.ReasonForbidden},
		{"deny wins though it comes last", []policy.Rule{{Allow: list{"*"}}, {Deny: list{"delete"}}}, alice(), "delete", policy.ReasonForbidden},
		{"deny of get denies what runs it", []policy.Rule{{Allow: list{"*"}}, {Deny: list{"get"}}}, alice(), "head", policy.ReasonForbidden},
		{"deny of head leaves get", []policy.Rule{{Allow: list{"*"}}, {Deny: list{"head"}}}, alice(), "get", ""},
		{"get covers head", []policy.Rule{{Allow: list{"get"}}}, alice(), "head", ""},
		{"head does not cover get", []policy.Rule{{Allow: list{"head"}}}, alice(), "get", policy.ReasonForbidden},
		{"deny of another caller", []policy.Rule{{Deny: list{"*"}, Who: policy.Who{Group: list{"interns"}}}, {Allow: list{"*"}}}, alice(), "post", ""},
		{"scope", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models.predict"}}}}, alice(), "post", ""},
		{"one of several scopes", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"admin", "openid"}}}}, alice(), "post", ""},
		{"scope lacking", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models.train"}}}}, alice(), "post", policy.ReasonInsufficientScope},
		{"scope and group lacking", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models.train"}, Group: list{"x"}}}}, alice(), "post", policy.ReasonForbidden},
		{"scope is not a prefix", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models"}}}}, alice(), "post", policy.ReasonInsufficientScope},
		{"group", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Group: list{"ml"}}}}, alice(), "post", ""},
		{"group compared with case", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Group: list{"ML"}}}}, alice(), "post", policy.ReasonForbidden},
		{"claim", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Claim: map[string]list{"realm_access.roles": {"trainer"}}}}}, alice(), "post", ""},
		{"claim lacking", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Claim: map[string]list{"department": {"ml"}}}}}, alice(), "post", policy.ReasonForbidden},
		{"proof without claims", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Claim: map[string]list{"department": {"ml"}}}}}, bob, "post", policy.ReasonForbidden},
		{"principal", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Principal: list{"issuer/corp:alice"}}}}, alice(), "post", ""},
		{"same name at another source", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Principal: list{"issuer/corp:alice"}}}}, bob, "post", policy.ReasonForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := policy.New(model.Raw(), "rules", c.rules)
			if err != nil {
				t.Fatal(err)
			}
			grant, err := p.Decide(&c.caller, model.Call{Dialect: model.Raw(), Verb: c.verb}, nil)
			var refused *policy.Refusal
			switch {
			case c.want == "" && (err != nil || !grant.Valid()):
				t.Errorf("refused: %v; want a grant", err)
			case c.want != "" && (!errors.As(err, &refused) || refused.Reason != c.want || grant.Valid()):
				t.Errorf("got %v, grant %v; want %s", err, grant.Valid(), c.want)
			}
		})
	}
}

func TestScreenRefusesCallersWhomNoRuleAllows(t *testing.T) {
	type list = setting.List[string]
	p, err := policy.New(model.Raw(), "rules", []policy.Rule{
		{Allow: list{"get"}, Who: policy.Who{Scope: list{"models.read"}}},
		{Allow: list{"post"}, Who: policy.Who{Group: list{"ml"}}},
		{Deny: list{"*"}, Who: policy.Who{Claim: map[string]list{"realm_access.roles": {"banned"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	member, stranger := alice(), identity.Principal{Source: "issuer/corp", Name: "eve", Claim: func(string) []string { return nil }}
	if err := p.Screen(&member, model.Call{}); err != nil {
		t.Errorf("a member is refused: %v", err)
	}
	var refused *policy.Refusal
	if err := p.Screen(&stranger, model.Call{}); !errors.As(err, &refused) || refused.Reason != policy.ReasonInsufficientScope || refused.Scopes[0] != "models.read" {
		t.Errorf("got %v; want insufficient_scope models.read", err)
	}
	// Only a token can have scopes, so only callers with a token get insufficient_scope.
	for _, caller := range []identity.Principal{{Source: "key", Name: "acme"}, identity.Anonymous()} {
		if err := p.Screen(&caller, model.Call{}); !errors.As(err, &refused) || refused.Reason != policy.ReasonForbidden {
			t.Errorf("%s: got %v; want forbidden", caller.Name, err)
		}
	}
	banned := alice()
	banned.Claim = func(string) []string { return []string{"banned"} }
	if err := p.Screen(&banned, model.Call{}); !errors.As(err, &refused) || refused.Reason != policy.ReasonForbidden {
		t.Errorf("got %v; want forbidden", err)
	}
}

func TestZeroPolicyRefuses(t *testing.T) {
	var p policy.Policy
	caller := alice()
	if p.Screen(&caller, model.Call{}) == nil {
		t.Error("the zero Policy lets a caller pass the screen")
	}
	if g, err := p.Decide(&caller, model.Call{Dialect: model.Raw(), Verb: "get"}, nil); err == nil || g.Valid() {
		t.Error("the zero Policy grants a call")
	}
	if _, err := p.Provide(&caller, model.Call{Dialect: dialect(t, "tensorflow"), Verb: "status"}, nil); err == nil {
		t.Error("the zero Policy provides for a call")
	}
}

func TestUnsoundRulesAreNotCompiled(t *testing.T) {
	for name, rules := range map[string][]policy.Rule{
		"no rules":       nil,
		"neither":        {{}},
		"both":           {{Allow: setting.List[string]{"get"}, Deny: setting.List[string]{"post"}}},
		"upper case":     {{Allow: setting.List[string]{"GET"}}},
		"not a method":   {{Allow: setting.List[string]{"get post"}}},
		"no verb at all": {{Deny: setting.List[string]{"pedict"}}},
		"an empty verb":  {{Allow: setting.List[string]{""}}},
	} {
		if _, err := policy.New(model.Raw(), "rules", rules); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCallsWithoutADialectAreRefused(t *testing.T) {
	caller := alice()
	p := rulesOf(t, model.Raw(), policy.Rule{Allow: setting.List[string]{"*"}})
	grant, err := p.Decide(&caller, model.Call{Verb: "post"}, nil)
	forbids(t, "a call without a dialect", err)
	if grant.Valid() {
		t.Error("the grant is valid")
	}
}

func TestCompiledRulesDoNotChangeWithTheirSource(t *testing.T) {
	verbs, groups := setting.List[string]{"post"}, setting.List[string]{"ml"}
	caller, call := alice(), model.Call{Dialect: model.Raw(), Verb: "post"}
	p := rulesOf(t, model.Raw(), policy.Rule{Allow: verbs, Who: policy.Who{Group: groups}})
	verbs[0], groups[0] = "get", "interns"
	if _, err := p.Decide(&caller, call, nil); err != nil {
		t.Errorf("refused: %v", err)
	}
}

// hotPolicy has a rule of each kind, and a call that the last of them allows.
func hotPolicy(t testing.TB) (*policy.Policy, *identity.Principal, model.Call) {
	type list = setting.List[string]
	d := dialect(t, "tensorflow")
	p := rulesOf(t, d,
		policy.Rule{Deny: list{"*"}, Who: policy.Who{Group: list{"interns"}}},
		policy.Rule{Deny: list{"reload"}},
		policy.Rule{Allow: list{"status"}, Who: policy.Who{Principal: list{"issuer/corp:bob"}}},
		policy.Rule{Allow: list{"predict"}, Models: list{"half"}, Who: policy.Who{Scope: list{"models.predict"}, Group: list{"ml"}, Principal: list{"issuer/corp:alice"}}},
	)
	caller := alice()
	caller.Qualify()
	return p, &caller, model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "3"}
}

func TestGrantedCallsDoNotAllocate(t *testing.T) {
	p, caller, call := hotPolicy(t)
	for name, decide := range map[string]func() error{
		"screen": func() error { return p.Screen(caller, model.Call{}) },
		"decide": func() error {
			grant, err := p.Decide(caller, call, nil)
			if !grant.Permits(call) {
				return errors.New("no grant")
			}
			return err
		},
		"provide and complete": func() error {
			provisional, err := p.Provide(caller, call, nil)
			if err != nil {
				return err
			}
			_, err = provisional.Complete(call)
			return err
		},
	} {
		n := testing.AllocsPerRun(100, func() {
			if err := decide(); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations; want 0", name, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p, caller, call := hotPolicy(b)
	b.ReportAllocs()
	for b.Loop() {
		if grant, err := p.Decide(caller, call, nil); err != nil || !grant.Permits(call) {
			b.Fatal(err)
		}
	}
}

func ExamplePolicy_Decide() {
	raw := model.Raw()
	p, err := policy.New(raw, "rules", []policy.Rule{{Allow: setting.List[string]{"post"}, Who: policy.Who{Scope: setting.List[string]{"models.predict"}}}})
	if err != nil {
		panic(err)
	}
	caller := identity.Principal{Source: "issuer/corp", Name: "alice", Scopes: []string{"models.predict"}}
	post, remove := model.Call{Dialect: raw, Verb: "post"}, model.Call{Dialect: raw, Verb: "delete"}
	grant, err := p.Decide(&caller, post, nil)
	fmt.Println(grant.Permits(post), grant.Permits(remove), err)
	_, err = p.Decide(&caller, remove, nil)
	fmt.Println(err)
	// Output:
	// true false <nil>
	// forbidden: no rule allows delete: rules[0] allows post
}

// Entra leaves out the groups of people who have more than 200. A deny rule covers them, as they may be in
// its groups; an allow rule does not.
func TestGroupsThatWereLeftOutAllowNothing(t *testing.T) {
	caller := identity.Principal{
		Source: "issuer/corp", Name: "bob", Scopes: []string{"models.predict"}, Elsewhere: []string{"groups", "access"}, GroupsElsewhere: true,
		Claim: func(string) []string { return nil },
	}
	others := caller
	others.Elsewhere, others.GroupsElsewhere = nil, false
	all := policy.Rule{Allow: list{"*"}, Models: list{"*"}}
	for name, c := range map[string]struct {
		rules       []policy.Rule
		want, other bool // whether the caller is allowed, and one who has no groups
		cause       string
	}{
		"deny by group":     {[]policy.Rule{{Deny: list{"*"}, Models: list{"*"}, Who: policy.Who{Group: list{"guests"}}}, all}, false, true, "rules[0] denies"},
		"deny by claim":     {[]policy.Rule{{Deny: list{"*"}, Models: list{"*"}, Who: policy.Who{Claim: map[string]setting.List[string]{"groups": {"guests"}}}}, all}, false, true, "rules[0] denies"},
		"deny by groups":    {[]policy.Rule{{Deny: list{"*"}, Models: list{"*"}, When: `"guests" in principal.groups`}, all}, false, true, "rules[0] denies"},
		"deny by claims":    {[]policy.Rule{{Deny: list{"*"}, Models: list{"*"}, When: `"guests" in principal.claims("groups")`}, all}, false, true, "left the claim groups out"},
		"deny by an object": {[]policy.Rule{{Deny: list{"*"}, Models: list{"*"}, Who: policy.Who{Claim: map[string]setting.List[string]{"access.roles": {"guests"}}}}, all}, false, true, "rules[0] denies"},
		"another beginning": {[]policy.Rule{{Deny: list{"*"}, Models: list{"*"}, Who: policy.Who{Claim: map[string]setting.List[string]{"accessible": {"guests"}}}}, all}, true, true, ""},
		"another claim":     {[]policy.Rule{{Deny: list{"*"}, Models: list{"*"}, Who: policy.Who{Claim: map[string]setting.List[string]{"team": {"guests"}}}}, all}, true, true, ""},
		"allow by group":    {[]policy.Rule{{Allow: list{"*"}, Models: list{"*"}, Who: policy.Who{Group: list{"ml"}}}}, false, false, "more groups than the issuer writes there"},
		"allow by groups":   {[]policy.Rule{{Allow: list{"*"}, Models: list{"*"}, When: `!("guests" in principal.groups)`}}, false, true, "condition failed"},
		"allow everybody":   {[]policy.Rule{all}, true, true, ""},
	} {
		p := rulesOf(t, dialect(t, "tensorflow"), c.rules...)
		_, err := p.Decide(&caller, half(t), facts())
		var refused *policy.Refusal
		if errors.As(err, &refused); (err == nil) != c.want || err != nil && !strings.Contains(refused.Cause, c.cause) {
			t.Errorf("%s: %v; want %t, %s", name, refused, c.want, c.cause)
		}
		if _, err := p.Decide(&others, half(t), facts()); (err == nil) != c.other {
			t.Errorf("%s: without groups: %v", name, err)
		}
		for _, s := range p.Trace(&caller, half(t), facts()) {
			if s.Deny && s.Covers == c.want {
				t.Errorf("%s: the trace says %+v", name, s)
			}
		}
	}
}
