// Package explain says what the gateway decides on a request, and what a configuration would decide on
// the requests of an audit log, by the code that decides in the gateway.
package explain

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/config"
	"sallyport/proxy/exchange"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
)

// Question is a request about which [Explainer.Explain] says what the gateway decides.
type Question struct {
	Caller identity.Principal // see [Explainer.Caller] and [Explainer.Holder]
	Token  bool               // a token proves the Caller, and no session
	Method string             // of HTTP; POST for gRPC
	URL    string             // https://HOST/PATH; for gRPC https://HOST, or "" if the routes have one host
	GRPC   string             // /package.Service/Method; "" for HTTP
	From   netip.Addr         // the client's address; the zero Addr leaves it out of account
	At     time.Time          // when it is sent
	Fields message.Fields     // with lower-case names
	// Body is the content, or the message of a gRPC call without its frame; nil if it is not given.
	Body []byte
	// Named is what the body names, in place of Body.
	Named model.Named
}

// Check is one check on the way of a request.
type Check struct {
	Of     string `json:"of"`     // "route", "page", "address", "callers", "step_up", "call", or the place of a rule
	Result string `json:"result"` // "pass" or "refuse"; of a rule "allows", "denies" or "-"
	Why    string `json:"why"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
}

// Decision is what the gateway decides on a [Question].
type Decision struct {
	Allowed   bool   `json:"allowed"`
	Principal string `json:"principal"`
	Route     string `json:"route,omitempty"`
	// Page is what the gateway does itself, if the path is one of its own. No route takes such a request.
	Page string `json:"page,omitempty"`
	// Upstream is where the request goes if the route has splits of upstreams.
	Upstream string `json:"upstream,omitempty"`
	Dialect  string `json:"dialect,omitempty"`
	Verb     string `json:"verb,omitempty"`
	Model    string `json:"model,omitempty"`
	Version  string `json:"version,omitempty"`
	// AskedVersion is what the request asks for if the route chooses Version.
	AskedVersion string  `json:"asked_version,omitempty"`
	Signature    string  `json:"signature,omitempty"`
	Checks       []Check `json:"checks"`
	Rule         string  `json:"rule,omitempty"` // that decides
	RuleFile     string  `json:"rule_file,omitempty"`
	RuleLine     int     `json:"rule_line,omitempty"`
	Reason       string  `json:"reason,omitempty"`
	Status       int     `json:"status,omitempty"`
	Cause        string  `json:"cause,omitempty"`
	// Candidate is what candidate_rules would decide, "allow" or "deny"; "" if the route has none.
	Candidate     string `json:"candidate,omitempty"`
	CandidateRule string `json:"candidate_rule,omitempty"`
}

// Explainer says what the gateway decides on requests, with the code by which it decides. It needs
// neither secrets nor a network, and verifies no credential.
type Explainer struct {
	config  *config.Config
	routes  route.Table
	guard   route.Guard
	index   map[*route.Route]int // of config.Routes
	alias   map[string]string
	apiKeys *auth.APIKeys // nil if their file cannot be read
}

// New returns an explainer for a checked configuration.
func New(cfg *config.Config) (*Explainer, error) {
	x := &Explainer{config: cfg, index: map[*route.Route]int{}, alias: cfg.Aliases()}
	var own, covered []string
	for i := range cfg.Routes {
		c := &cfg.Routes[i]
		r, err := cfg.DecidingRoute(c)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", c.Name, err)
		}
		x.index[r] = i
		r.Resource = route.NewResource(c.Path, cfg.IssuersOf(c), nil, false) // that there is one is enough here
		names := c.Identity.Names()
		own, covered = append(own, names.Own()...), append(covered, c.Integrity.Cover...)
		for _, h := range c.Host {
			x.routes.Add(h, c.Path, r)
		}
	}
	x.guard = route.NewGuard(own, covered, cfg.TokenFields())
	// Who asks may not be allowed to read the file of keys. Then groups must be told.
	x.apiKeys, _ = auth.ReadAPIKeys(cfg.APIKeys, cfg.APIKeyFile)
	return x, nil
}

// Caller returns the caller of a qualified name, such as issuer/corp:alice, with these scopes, groups and
// claims. An API key has its groups of the configuration too. The error says what is wrong with the name.
func (x *Explainer) Caller(name string, scopes, groups []string, claims map[string][]string) (identity.Principal, error) {
	if problem, cure := x.config.CheckCaller(name); problem != "" {
		return identity.Principal{}, fmt.Errorf("%q: %s; %s", name, problem, cure)
	}
	if name == route.Anonymous {
		return identity.Anonymous(), nil
	}
	source, subject, _ := strings.Cut(name, ":")
	p := identity.Principal{Source: source, Name: subject, Alias: x.alias[name], Scopes: scopes, Groups: groups}
	if source == "apikey" && x.apiKeys != nil {
		p.Groups = append(x.apiKeys.GroupsOf(subject), groups...)
	}
	if strings.HasPrefix(source, "issuer/") {
		p.Claim = func(path string) []string { return claims[path] }
	}
	return p, nil
}

// Holder returns the caller whom a token names, without verifying it.
func (x *Explainer) Holder(token string) (identity.Principal, error) {
	p, err := auth.Claimed(x.config.Issuers, token)
	p.Alias = x.alias[p.String()]
	return p, err
}

// ErrUntold means that the decision depends on the body, which the question does not have.
var ErrUntold = errors.New("the body of this request names the model, and no body is given")

// Explain decides on a question. The error is for questions that are no request; [ErrUntold] is one.
func (x *Explainer) Explain(q *Question) (*Decision, error) {
	d := &Decision{Principal: q.Caller.String()}
	h, err := x.head(q)
	if err != nil {
		return nil, err
	}
	if err = x.decide(q, h, d); err == ErrUntold {
		return nil, err
	}
	if d.Allowed = err == nil; err != nil {
		o := exchange.OutcomeOf(err)
		d.Reason, d.Status, d.Cause = o.Reason, o.Status, o.Cause
	}
	return d, nil
}

// head returns the head of the request, as an engine reads it.
func (x *Explainer) head(q *Question) (*message.Head, error) {
	h := &message.Head{Version: message.HTTP11, Method: q.Method, Scheme: "https", Fields: q.Fields, ContentLength: int64(len(q.Body))}
	if q.Body == nil && q.Method != "GET" && q.Method != "HEAD" {
		h.ContentLength = -1
	}
	at, err := url.Parse(q.URL)
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL", q.URL)
	}
	if h.Authority = at.Host; q.URL == "" {
		h.Authority = x.routes.OnlyHost()
	}
	if h.Authority == "" {
		return nil, fmt.Errorf("%q names no host: write https://HOST/PATH", q.URL)
	}
	_, rest, _ := strings.Cut(q.URL, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		h.Target, _, _ = strings.Cut(rest[i:], "#")
	}
	h.Target = cmp.Or(h.Target, "/")
	if q.GRPC != "" {
		h.Version, h.Method, h.Target, h.Trailers = message.HTTP2, "POST", q.GRPC, true
		h.Fields = append(h.Fields, message.Field{Name: "content-type", Value: "application/grpc"}, message.Field{Name: "te", Value: "trailers"})
	}
	return h, nil
}

// signInHost returns the host that people are sent to for a login of a host; "" for none.
func (x *Explainer) signInHost(door *route.Door, host string) string {
	of := x.config.Logins[door.Logins[0]].Session
	if at := of.SignInAt(); at != host {
		return at
	}
	return ""
}

// rules lets the rules of a route decide on the calls of a request, and adds what each rule says about
// the call that decides.
func (x *Explainer) rules(q *Question, r *route.Route, at string, calls []model.Call, facts *policy.Facts, d *Decision) (err error) {
	var call model.Call
	for _, call = range calls { // the first that is refused decides
		if d.Rule, err = r.Policy.Judge(&q.Caller, call, facts); err != nil {
			break
		}
	}
	d.Verb, d.Model, d.Version, d.Signature = call.Verb, call.Model, call.Version, call.Signature
	what := call.Verb
	if class := call.Class(); class != "" {
		what += " (" + string(class) + ")"
	}
	if call.Model != "" {
		what += " of " + strings.TrimSpace(call.Model+" "+call.Version)
	}
	d.Checks = append(d.Checks, Check{Of: "call", Result: "pass", Why: r.Dialect.Name() + ": " + what})
	place := func(rule string) (string, int) {
		if rule != "" && !strings.HasPrefix(rule, "policies.") {
			rule = at + "." + rule
		}
		return x.config.PlaceOf(rule)
	}
	for _, s := range r.Policy.Trace(&q.Caller, call, facts) {
		c := Check{Of: s.Rule, Result: "-", Why: s.Why}
		switch {
		case s.Covers && s.Deny:
			c.Result = "denies"
		case s.Covers:
			c.Result = "allows"
		}
		c.File, c.Line = place(s.Rule)
		d.Checks = append(d.Checks, c)
	}
	if d.Rule != "" {
		d.RuleFile, d.RuleLine = place(d.Rule)
	}
	return err
}

// named returns the calls that the body of a question makes.
func named(q *Question, r *route.Route, h *message.Head, reading *model.Reading) ([]model.Call, error) {
	if q.Body == nil {
		n := q.Named
		if n.Model == "" {
			return nil, ErrUntold
		}
		name, err := r.Dialect.CanonicalModel(n.Model)
		if err != nil {
			return nil, errors.Join(model.ErrBody, err)
		}
		if n.Model = name; n.Version == "" && r.Dialect.HasVersions() {
			n.Version = model.Latest
		}
		return []model.Call{reading.Call.With(n)}, nil
	}
	var calls []model.Call
	encoding := "content-encoding"
	if reading.GRPC() {
		encoding = "grpc-encoding"
	}
	scanner := reading.Scanner(model.ScanOptions{
		Decide:   func(n model.Named) error { calls = append(calls, reading.Call.With(n)); return nil },
		Encoding: h.Fields.Get(encoding),
		Inflate:  r.Limits.Inflated,
	})
	defer scanner.Close()
	body := q.Body
	if reading.GRPC() {
		body = bytes.Join([][]byte{binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body}, nil)
	}
	_, err := scanner.Write(body)
	if err == nil {
		err = scanner.Check()
	}
	if err == nil && len(calls) == 0 {
		err = fmt.Errorf("%w: it names none", model.ErrBody)
	}
	return calls, err
}

// AddField adds a field to the request.
func (q *Question) AddField(name, value string) {
	q.Fields = append(q.Fields, message.Field{Name: strings.ToLower(name), Value: value})
}
