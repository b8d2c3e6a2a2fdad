package explain

import (
	"fmt"
	"strings"

	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/exchange"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
)

// inquiry is one question on its way to a decision. Each step fills in what the next ones need.
type inquiry struct {
	*Explainer
	q *Question // a copy, which knows after checkCallers whether the caller may have a session
	h *message.Head
	d *Decision

	route   *route.Route
	written *route.Config // the route as the configuration has it
	at      string        // the place of the route in the configuration

	knownAs  string // see [exchange.KnownAs]
	reading  model.Reading
	calls    []model.Call
	known    bool   // whether calls are all that there is to know
	chosenBy string // the place, below the route, of what chooses the version; "" if nothing does
	noPlace  error  // why the chosen version cannot be written into the request
}

// decide takes the steps of a request on its way, but for those that concern credentials, room and
// bodies. It adds to d what it finds, and returns the error of the step that refuses.
func (x *Explainer) decide(q *Question, h *message.Head, d *Decision) error {
	asked := *q
	i := &inquiry{Explainer: x, q: &asked, h: h, d: d}
	if err := i.checkForm(); err != nil {
		return err
	}
	if own, err := i.ownPage(); own {
		return err
	}
	for _, step := range []func() error{i.findRoute, i.checkAddress, i.checkCallers, i.checkStepUp, i.readHead, i.readBody} {
		if err := step(); err != nil {
			return err
		}
	}
	i.noteChoices()
	facts := exchange.FactsOf(h, q.From, nil, "")
	facts.TLS, facts.Peer = "1.3", q.From
	err := i.applyRules(facts)
	i.applyCandidate(facts)
	return err
}

// note adds a check to the decision: why it passes, or err, which it returns. path is its place in the
// configuration; "" for none.
func (i *inquiry) note(of string, err error, why, path string) error {
	c := Check{Of: of, Result: "pass", Why: why}
	if err != nil {
		c.Result, c.Why = "refuse", exchange.OutcomeOf(err).Cause
	}
	if path != "" {
		c.File, c.Line = i.config.PlaceOf(path)
	}
	i.d.Checks = append(i.d.Checks, c)
	return err
}

// checkForm settles the head. A pass is not noted.
func (i *inquiry) checkForm() error {
	err := i.h.Settle()
	if err == nil && i.q.GRPC != "" {
		err = exchange.CheckCallForm(i.h)
	}
	if err == nil {
		err = i.guard.Check(i.h.Fields)
	}
	if err != nil {
		return i.note("request", err, "", "")
	}
	return nil
}

// ownPage reports whether the gateway itself answers, and how it refuses if it does.
func (i *inquiry) ownPage() (own bool, err error) {
	h, q := i.h, i.q
	door := i.routes.Door(h.Host)
	switch {
	case exchange.IsPublic(h.Path) && i.routes.Serves(h.Host):
		i.d.Page, err = exchange.PublicPage(h.Method, h.Path)
	case h.Forms == 0 && i.routes.Resource(h.Host, h.Path, q.From) != nil:
		i.d.Page, err = exchange.MetadataPage(h.Method)
	case door == nil || !exchange.IsOwnPage(h.Path):
		return false, nil
	case q.From.IsValid() && !door.Admits(q.From):
		return true, i.note("address", exchange.DoorRefusal(q.From), "", "")
	default:
		i.d.Page, err = exchange.OwnPage(h.Method, h.Path, door.Logins, i.signInHost(door, h.Host))
	}
	return true, i.note("page", err, "the gateway itself answers: this "+i.d.Page, "")
}

func (i *inquiry) findRoute() error {
	r, err := exchange.MatchRoute(&i.routes, i.h)
	if err != nil {
		return i.note("route", err, "", "")
	}
	n := i.index[r]
	i.route, i.written, i.at = r, &i.config.Routes[n], fmt.Sprintf("routes[%d]", n)
	i.d.Route, i.d.Dialect = r.Name, r.Dialect.Name()
	return i.note("route", nil, r.Name, i.at)
}

func (i *inquiry) checkAddress() (err error) {
	from := i.q.From
	if !from.IsValid() {
		return nil
	}
	if !i.route.Access.Admits(from) {
		err = exchange.AddressRefusal(i.route, from)
	}
	return i.note("address", err, from.String()+" may call", i.at)
}

func (i *inquiry) checkCallers() (err error) {
	who, callers, credential := i.d.Principal, &i.written.Callers, ""
	if i.q.Token {
		credential = "bearer"
	}
	admits := i.config.Admits(i.written, who, credential)
	switch {
	case admits == "" && who == "anonymous":
		err = exchange.Unproven(i.route, i.h, callers.Names())
	case admits == "" && i.q.Token:
		err = exchange.Unlisted(i.q.Caller.Source, callers.Names())
	case admits == "":
		err = exchange.Unlisted(who, callers.Names())
	case len(callers.All) > 0:
		admits = "together with the others of " + strings.Join(callers.All, ", ")
	}
	i.q.Caller.Login = !i.q.Token && len(i.route.Logins) > 0 && strings.HasPrefix(i.q.Caller.Source, "issuer/")
	why := who + " is admitted by " + admits
	if i.q.Caller.Login {
		why += exchange.WithoutSession(i.route, i.h) + i.behindAnother()
	}
	return i.note("callers", err, why, i.at+".callers")
}

// behindAnother says what becomes of a session where another proxy asks about the request.
func (i *inquiry) behindAnother() string {
	switch f := i.config.Listen.ForwardAuth; {
	case f == nil:
		return ""
	case f.ReplacesCookie:
		return "; a session counts for listen.forward_auth too"
	}
	return "; for listen.forward_auth a session gets 403 not_for_another_proxy, unless replaces_cookie is true there"
}

func (i *inquiry) checkStepUp() error {
	if i.route.StepUp == nil {
		return nil
	}
	why, err := i.stepUp(i.route, &i.q.Caller, i.q.At)
	return i.note("step_up", err, why, i.at+".step_up")
}

// readHead reads what the head asks of the upstream.
func (i *inquiry) readHead() (err error) {
	i.knownAs = exchange.KnownAs(&i.q.Caller, i.q.From)
	i.reading, i.chosenBy, err = exchange.InterpretFor(i.route, i.h, i.q.GRPC != "", i.knownAs)
	if i.chosenBy == "" && err != nil {
		return i.note("call", err, "", i.at)
	}
	i.noPlace = err
	i.calls, i.known = []model.Call{i.reading.Call}, !i.reading.NeedsBody()
	return nil
}

// readBody reads what the body asks, if that makes a difference.
func (i *inquiry) readBody() (err error) {
	r, q := i.route, i.q
	if i.known || !r.Policy.AboutModels() && !r.Release.NeedsModel() && q.Body == nil && q.Named.Model == "" {
		return nil
	}
	i.known = true
	if i.calls, err = named(q, r, i.h, &i.reading); err == ErrUntold {
		return err
	}
	if err != nil {
		return i.note("call", err, "", i.at)
	}
	for n := range i.calls {
		if i.calls[n], i.chosenBy = exchange.ChooseVersion(r, i.calls[n], i.knownAs); i.chosenBy != "" {
			i.noPlace = exchange.NoPlace(&i.reading)
		}
	}
	return nil
}

// noteChoices notes the version and the upstream that the route chooses.
func (i *inquiry) noteChoices() {
	last := i.calls[len(i.calls)-1]
	if i.chosenBy != "" && i.noPlace == nil {
		i.d.AskedVersion = model.Latest
		_ = i.note("rewrite", nil, chosenVersion(i.q, last.Version, i.chosenBy), i.at+"."+i.chosenBy)
	}
	if !i.route.Release.SplitsUpstreams() {
		return
	}
	name := last.Model
	if i.reading.Streams() {
		name = "" // each message names its own
	}
	var why, path string
	i.d.Upstream, why, path = chosenUpstream(i.q, i.route, i.written, i.knownAs, name)
	_ = i.note("upstream", nil, why, i.at+"."+path)
}

// applyRules lets the rules of the route decide.
func (i *inquiry) applyRules(facts *policy.Facts) error {
	err := i.rules(i.q, i.route, i.at, i.calls, facts, i.d)
	if err == nil && i.noPlace != nil {
		err = i.note("rewrite", i.noPlace, "", i.at+"."+i.chosenBy)
		i.d.Rule, i.d.RuleFile, i.d.RuleLine = "", "", 0
	}
	return err
}

// applyCandidate adds what candidate_rules of the route would decide, if it has any.
func (i *inquiry) applyCandidate(facts *policy.Facts) {
	rules := i.route.Candidate
	if rules == nil || !i.known && rules.AboutModels() {
		return
	}
	i.d.Candidate = "allow"
	for _, call := range i.calls {
		rule, refused := rules.Judge(&i.q.Caller, call, facts)
		if i.d.CandidateRule = rule; refused != nil {
			i.d.Candidate = "deny"
			break
		}
	}
}
