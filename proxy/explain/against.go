package explain

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/exchange"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
)

// Comparison is what a configuration would decide on the requests of an audit log, beside what was
// decided then.
type Comparison struct {
	Requests int `json:"requests"` // lines of the log that the rules had decided on
	Same     int `json:"same"`
	// Refused and Allowed list the requests that were allowed and would now be refused, and the reverse.
	Refused []Difference `json:"refused"`
	Allowed []Difference `json:"allowed"`
	// Untold lists the requests about which the log does not tell enough. Their Why says what is missing.
	Untold []Difference `json:"untold"`
	// Earlier counts requests that had been refused before the rules, such as those without a credential,
	// and those to the gateway's own pages.
	Earlier int `json:"earlier"`
	// Unread counts lines that are no records.
	Unread int `json:"unread"`
	// More counts differences beyond the first [maxDifferences] kinds.
	More int `json:"more,omitempty"`
}

// Difference is a kind of requests of which the decision differs.
type Difference struct {
	Count     int    `json:"count"`
	Principal string `json:"principal"`
	Route     string `json:"route"` // that takes them now; "" for none
	Model     string `json:"model,omitempty"`
	Version   string `json:"version,omitempty"`
	Verb      string `json:"verb"`
	Rule      string `json:"rule,omitempty"` // that decides now; "" for none
	Why       string `json:"why,omitempty"`
}

// maxDifferences bounds the kinds of requests in a [Comparison], because callers choose names.
const maxDifferences = 10_000

// maxLogLine is longer than any record.
const maxLogLine = 64 << 10

// logged is what a record of the audit log tells about a decision; see [audit.Record].
type logged struct {
	ID, Client, Host, Method, Path, Protocol, Upstream string
	Principal, Credential                              string
	Dialect, Verb, Model, Version                      string
	AskedVersion                                       string `json:"asked_version"`
	Signature, Reason                                  string
	Scopes, Groups                                     []string
	GroupsElsewhere                                    bool `json:"groups_elsewhere"`
	ACR                                                string
	ACRClaim                                           string `json:"acr_claim"`
	AuthTime                                           int64  `json:"auth_time"`
	Time                                               time.Time
}

// Compare decides on the requests of an audit log, as their records tell them. It stops at an error of r.
func (x *Explainer) Compare(r io.Reader) (*Comparison, error) {
	c := &Comparison{Refused: []Difference{}, Allowed: []Difference{}, Untold: []Difference{}}
	kinds := [3]map[Difference]int{{}, {}, {}}
	note := func(kind int, d Difference) {
		if _, known := kinds[kind][d]; !known && len(kinds[0])+len(kinds[1])+len(kinds[2]) >= maxDifferences {
			c.More++
			return
		}
		kinds[kind][d]++
	}
	lines := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			line = nil // too long for a record
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		if len(strings.TrimSpace(string(line))) > 0 {
			x.compare(line, c, note)
		}
		if err == io.EOF {
			break
		}
	}
	for i, list := range []*[]Difference{&c.Refused, &c.Allowed, &c.Untold} {
		for _, d := range slices.SortedFunc(maps.Keys(kinds[i]), func(a, b Difference) int {
			return cmp.Or(cmp.Compare(kinds[i][b], kinds[i][a]), strings.Compare(fmt.Sprint(a), fmt.Sprint(b)))
		}) {
			d.Count = kinds[i][d]
			*list = append(*list, d)
		}
	}
	return c, nil
}

// compare compares one line.
func (x *Explainer) compare(line []byte, c *Comparison, note func(kind int, d Difference)) {
	var l logged
	if json.Unmarshal(line, &l) != nil || l.ID == "" {
		c.Unread++
		return
	}
	refused := l.Reason == policy.ReasonForbidden || l.Reason == policy.ReasonInsufficientScope
	if !refused && l.Reason != "" && l.Upstream == "" || l.Principal == "" || x.routes.Door(l.Host) != nil && exchange.IsOwnPage(l.Path) {
		c.Earlier++
		return
	}
	c.Requests++
	d := Difference{Principal: l.Principal, Model: l.Model, Version: l.Version, Verb: l.Verb}
	outcome, err := x.guess(&l, &d)
	if err != nil {
		outcome, d.Why = policy.Refused, exchange.OutcomeOf(err).Reason
	}
	switch {
	case outcome == policy.Untold:
		note(2, d)
	case outcome == policy.Refused && !refused:
		note(0, d)
	case outcome == policy.Allowed && refused:
		note(1, d)
	default:
		c.Same++
	}
}

// guess decides on a request of a log. It adds the route and the rule to d. The error is that of a step
// before the rules.
func (x *Explainer) guess(l *logged, d *Difference) (policy.Outcome, error) {
	h := &message.Head{Version: message.HTTP11, Method: l.Method, Scheme: "https", Authority: l.Host, Target: l.Path}
	if l.Protocol == message.HTTP2.String() {
		h.Version = message.HTTP2
	}
	if err := h.Settle(); err != nil {
		d.Why = "the record does not have the whole path"
		return policy.Untold, nil
	}
	r, err := exchange.MatchRoute(&x.routes, h)
	if err != nil {
		return policy.Refused, err
	}
	d.Route = r.Name
	client, _ := netip.ParseAddr(l.Client)
	if !r.Access.Admits(client) {
		return policy.Refused, exchange.AddressRefusal(r, client)
	}
	config := &x.config.Routes[x.index[r]]
	if x.config.Admits(config, l.Principal, l.Credential) == "" {
		return policy.Refused, exchange.Unlisted(l.Principal, config.Callers.Names())
	}
	caller := x.callerOf(l)
	if d.Why = l.lacking(r); d.Why != "" {
		return policy.Untold, nil
	}
	call := model.Call{Dialect: r.Dialect, Verb: l.Verb, Model: l.Model, Version: l.Version, Signature: l.Signature}
	if l.AskedVersion != "" {
		call.Version = l.AskedVersion
	}
	call.Server = call.Model == "" && aboutServer(r, h, call.Verb)
	knownAs := exchange.KnownAs(&caller, client)
	asked := call
	call, chosenBy := exchange.ChooseVersion(r, call, knownAs)
	d.Version = call.Version
	facts := &policy.Facts{Method: l.Method, Path: h.Path, Host: h.Host, Client: client, HTTP: strings.TrimPrefix(l.Protocol, "HTTP/"), Recorded: true}
	if call.Model == "" && !call.Server && r.Policy.AboutModels() && call.Class() != "" {
		d.Why = "the record names no model, since it was not read then"
		return policy.Untold, nil
	}
	g := r.Policy.Guess(&caller, call, facts)
	d.Rule = g.Rule
	if chosenBy != "" && g.Outcome == policy.Allowed {
		if err := hasPlace(r, h, asked, knownAs); err != nil {
			d.Rule = ""
			return policy.Refused, err
		}
	}
	switch {
	case g.Outcome == policy.Untold:
		d.Why = "not in the record: " + strings.Join(g.Missing, ", ")
	case g.Outcome == policy.Refused && g.Rule == "":
		d.Why = "no rule allows it"
	}
	if g.Outcome == policy.Allowed {
		return x.recheckStepUp(r, l, d), nil
	}
	return g.Outcome, nil
}

// callerOf returns the caller of a logged request, as far as its record tells.
func (x *Explainer) callerOf(l *logged) identity.Principal {
	if l.Principal == "anonymous" {
		return identity.Anonymous()
	}
	source, name, _ := strings.Cut(l.Principal, ":")
	return identity.Principal{
		Source: source, Name: name, Alias: x.alias[l.Principal], Scopes: l.Scopes, Groups: l.Groups, GroupsElsewhere: l.GroupsElsewhere, Login: l.Credential == "login",
	}
}

// lacking says why a record does not tell what was asked of a route; "" if it does.
func (l *logged) lacking(r *route.Route) string {
	switch {
	case l.Verb == "":
		return "the record is of an older gateway, which did not record what was asked for"
	case l.Dialect != r.Dialect.Name():
		return "the server was " + l.Dialect + " and is now " + r.Dialect.Name()
	case slices.ContainsFunc(slices.Concat(l.Scopes, l.Groups, []string{l.Model, l.Version}), func(s string) bool { return strings.HasSuffix(s, "…") }):
		return "the record was cut"
	}
	return ""
}

// aboutServer reports whether a call without a model is about the server itself. The head tells that.
func aboutServer(r *route.Route, h *message.Head, verb string) bool {
	for _, grpc := range []bool{false, true} {
		if reading, err := exchange.Interpret(r, h, grpc); err == nil && reading.Call.Verb == verb {
			return reading.Call.Server
		}
	}
	return false
}
