package exchange

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// A scanner can inspect content on its way, beside the digest.
var _ seal.Inspector = model.Scanner(nil)

// scanned is what the content of a request says of the call.
type scanned struct {
	scanner model.Scanner // nil: the content is not read
	again   model.Scanner // of a message into which a version was written, as it is sent; nil: none was
	counter model.Scanner // counts what the route limits, where scanner does not; nil: nothing is counted
	watcher *watcher      // reads for the candidate rules alone; nil: they need none
	fault   *refusal      // of a call that only a rule about models could allow; nil if the model is clear

	mu      sync.Mutex // guards the fields below: an upload and a reload run beside the exchange
	named   named
	sighted named        // what a long message has named so far
	lead    bool         // a version can still be written into the message
	version string       // that was chosen for the message; "" for none
	grant   policy.Grant // for the call of named, or of the head if nothing is named, if it has been decided
	refused named        // what a message names that was refused
	watched named        // what watcher has seen
}

// named is what the content of a request names.
type named struct {
	by   *model.Dialect // that read it; another dialect could read another model. nil: nothing is named yet
	what model.Named    // of a stream: what its last message names
	// chosen says that the route has chosen the version, and what the content names has none.
	chosen bool
}

// call adds what the content names to a call that the head left open.
func (n named) call(r *model.Reading) model.Call {
	if r.NeedsBody() && n.by == r.Call.Dialect {
		return r.Call.With(n.what)
	}
	return r.Call
}

// get returns what the content has named so far.
func (s *scanned) get() named {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named
}

func (s *scanned) set(n named) { s.grantFor(n, policy.Grant{}) }

// grantFor is set for a call that was granted before authorize decides.
func (s *scanned) grantFor(n named, g policy.Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named, s.grant = n, g
}

// granted returns what the content has named, and the grant for that call, if there is one.
func (s *scanned) granted() (named, policy.Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named, s.grant
}

func (s *scanned) sight(n named) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sighted = n
}

// soFar returns what the content has named, or what a long message has named until now.
func (s *scanned) soFar() named {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named.by == nil {
		return s.sighted
	}
	return s.named
}

// choose reports whether a version is, or can be, written into the message. If so, it is noted.
func (s *scanned) choose(version string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead {
		s.version = version
	}
	return s.version == version
}

// endLead ends the time in which a version can be noted, and returns the one to write; "" for none.
func (s *scanned) endLead() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lead = false
	return s.version
}

// close ends the scan. Nothing reads the content any more.
func (s *scanned) close() {
	if s.again != nil {
		s.again.Close()
	}
	if s.scanner != nil {
		s.scanner.Close()
	}
	if s.counter != nil {
		s.counter.Close()
	}
	if s.watcher != nil {
		s.watcher.scanner.Close()
	}
}

// refuse notes what the error of a decision was about, and returns the error.
func (s *scanned) refuse(n named, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = n
	return err
}

// last returns what the content has named last, refused or not.
func (s *scanned) last() named {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.refused.by != nil:
		return s.refused
	case s.named.by == nil:
		return s.watched
	}
	return s.named
}

// known reports whether the content has named its call.
func (s *scanned) known() bool { return s.get().by != nil }

var errElsewhere = errors.New("the model cannot be read: the body stays with the proxy that asks")

// readAt reads what a request asks of the upstream of a route. target is the path and query that the
// upstream gets. A fixed answer asks nothing of an upstream, so any request may have it. ask is memory
// that readAt overwrites.
func readAt(r *route.Route, h *message.Head, target string, grpc bool, ask *model.Request) (model.Reading, error) {
	*ask = model.Request{Method: h.Method, GRPC: grpc, Fields: h.Fields}
	ask.Path, ask.Query, ask.HasQuery = strings.Cut(target, "?")
	got, err := r.Dialect.Read(ask)
	if err != nil && r.Fixed != nil {
		got, err = model.Raw().Read(ask)
		got.Call.Dialect = r.Dialect
	}
	return got, err
}

// interpret reads what the request asks for, and refuses what the upstream's servers do not know, and
// content that they would run. Who may
// do nothing here is refused for that instead, and does not learn which paths there are.
func (x *exchange) interpret() error {
	target, err := x.route.Rewriting.Target(x.head)
	if err != nil {
		return err
	}
	if x.reading, err = readAt(x.route, x.head, target, x.grpc, &x.modelAsk); err != nil {
		if denied := x.route.Policy.Screen(&x.caller, model.Call{}); denied != nil {
			return denied
		}
		return err
	}
	x.gatherFacts()
	if err := x.chooseVersion(); err != nil {
		return err
	}
	x.call, x.interpreted = x.reading.Call, x.form()
	return x.refuseCode()
}

// prepare gets the scanners for the content, if the decision or a limit needs them. A proxy that asks
// for a decision shows no content, or content that need not be what it forwards.
func (x *exchange) prepare() error {
	if x.route.Fixed != nil {
		return nil
	}
	counts := x.counts()
	names := x.reading.NeedsBody() && (x.route.Policy.AboutModels() || x.triesCandidate() || x.limitsNeedModel() || x.route.Release.NeedsModel() || counts && x.reading.GRPC())
	switch {
	case !names && !counts:
		x.watch()
		return nil
	case x.reading.GRPC() && x.head.Fields.Count("grpc-encoding") > 1: // servers differ in which they take
		return because(reasonBadModel, "grpc-encoding stands twice")
	case x.reading.GRPC() && !message.IsProtobufCall(x.head.Fields.Get("content-type")): // some servers decode it by that
		return because(reasonBadCall, "the format of the messages is not Protocol Buffers, so the model cannot be read")
	case x.asker == "" && x.head.ContentLength != 0:
		x.scanned.lead = x.route.Release.ChoosesVersions() && x.reading.GRPC() && !x.fixed()
		o := model.ScanOptions{
			Decide:   x.callbacks.decideNamed,
			Early:    x.callbacks.decideEarly,
			Encoding: x.encoding(),
			Inflate:  x.route.Limits.Inflated,
			Most:     x.route.Limits.Most,
			Memory:   &x.scanning,
		}
		if names {
			x.scanned.scanner = x.reading.Scanner(o)
		}
		if counts {
			x.scanned.counter = x.reading.Counter(o)
		}
	case x.asker != "" && x.head.Method != http.MethodGet && x.head.Method != http.MethodHead:
		x.scanned.fault = &refusal{reason: reasonUndecided, cause: errElsewhere}
	}
	return nil
}

// counts reports whether the route limits what the content asks a server to compute.
func (x *exchange) counts() bool {
	return x.route.Limits.Most != (model.Most{}) && x.reading.Counts()
}

// encoding returns the coding of the content, or of a gRPC call's messages. Two lines of it are none that
// a scanner reads.
func (x *exchange) encoding() string {
	name := "content-encoding"
	if x.reading.GRPC() {
		name = "grpc-encoding"
	}
	if x.head.Fields.Count(name) > 1 {
		return "several"
	}
	return x.head.Fields.Get(name)
}

// refuseCode refuses content that the upstream's servers would run as a program to read it, unless the
// route names its type.
func (x *exchange) refuseCode() error {
	if x.route.Fixed != nil {
		return nil
	}
	for _, f := range x.head.Fields {
		if f.Name == "content-type" && model.CarriesCode(f.Value) && !slices.Contains(x.route.CodeTypes, model.MediaType(f.Value)) {
			return because(reasonCodeInBody, "the Content-Type is one of serialized objects, which run code when they are read: "+setting.Shortened(f.Value, 64))
		}
	}
	return nil
}

// triesCandidate reports whether the content is read for the candidate rules alone. They must refuse
// nothing, so it is only content that is held anyway or fits what the route may hold.
func (x *exchange) triesCandidate() bool {
	n := x.head.ContentLength
	return x.route.Candidate.AboutModels() && !x.reading.GRPC() && x.asker == "" && n > 0 && n <= x.route.Integrity.Buffer
}

// decideNamed decides on a call that the content has named. It runs while the content is read, and
// its error keeps the end of the message from the upstream.
func (x *exchange) decideNamed(n model.Named) error {
	if !x.reading.GRPC() { // the content is held, and authorize decides
		x.scanned.set(named{by: x.reading.Call.Dialect, what: n})
		return nil
	}
	now, noPlace := x.chooseNamed(n)
	call := now.call(&x.reading)
	grant, err := x.route.Policy.Decide(&x.caller, call, x.about)
	if err != nil {
		return x.scanned.refuse(now, err)
	}
	if noPlace != nil {
		return x.scanned.refuse(now, noPlace)
	}
	if err := x.countCall(call); err != nil {
		return x.scanned.refuse(now, err)
	}
	if x.scanned.get() == now {
		return nil
	}
	x.scanned.grantFor(now, grant)
	// A reload that came before could not know this name. One that comes later decides on it.
	if cause := x.stillPermitted(); cause != nil {
		return cause.refusal()
	}
	return nil
}

// decideEarly refuses a long call before more of it is read, if what it has named so far is not
// allowed.
func (x *exchange) decideEarly(n model.Named) error {
	now, noPlace := x.chooseNamed(n)
	if _, err := x.route.Policy.Decide(&x.caller, now.call(&x.reading), x.about); err != nil {
		return x.scanned.refuse(now, err)
	}
	if noPlace != nil {
		return x.scanned.refuse(now, noPlace)
	}
	x.scanned.sight(now)
	return nil
}

// awaitDecision keeps back the head of an answer to a unary call that has not named its model yet, so
// that a refusal can still be told. Some servers send a head before they have the message.
func (x *exchange) awaitDecision(answer *upstream.Response) error {
	if !x.content.unverified() || x.content.sealed || x.reading.Streams() || x.scanned.known() {
		return nil
	}
	b := &begunBody{Body: answer.Body}
	b.first.Grow(bytes.MinRead)
	n, err := answer.Body.Read(b.first.AvailableBuffer()[:bytes.MinRead])
	if err != nil && err != io.EOF {
		return err
	}
	b.first.Write(b.first.AvailableBuffer()[:n])
	b.err = err
	answer.Body = b
	return nil
}

// begunBody is content of which the first piece was read before.
type begunBody struct {
	message.Body
	first bytes.Buffer
	err   error // of that read
}

func (b *begunBody) Read(p []byte) (int, error) {
	switch {
	case b.first.Len() > 0:
		return b.first.Read(p)
	case b.err != nil:
		return 0, b.err
	}
	return b.Body.Read(p)
}

// scan reads held content: what the route limits, and the model. A fault of the latter is no refusal
// yet, because a rule that is not about models may allow the call; but a call that such a fault keeps
// from being counted is refused.
func (x *exchange) scan() error {
	s := &x.scanned
	if s.counter != nil {
		if err := x.readHeld(s.counter); err != nil {
			return err
		}
	}
	if s.watcher != nil {
		_ = x.readHeld(s.watcher) // never fails
	}
	if s.scanner == nil || s.known() { // known: it was read on its way
		return nil
	}
	err := x.readHeld(s.scanner)
	switch {
	case err == nil:
	case x.reading.GRPC() && x.counts():
		return err
	default:
		s.fault = asRefusal(err)
	}
	return nil
}

// readHeld shows held content to an inspector.
func (x *exchange) readHeld(s seal.Inspector) error {
	err := x.content.held.Each(func(piece []byte) error { _, err := s.Write(piece); return err })
	if err == nil {
		err = s.Check()
	}
	return err
}

// form is the part of a head that a dialect reads a call from, as the upstream gets it. Dialects read the
// same call from the canonical form that they return, so a head of that form needs no second reading.
type form struct {
	method, path, query string
	hasQuery            bool
}

// form returns the form of the request as it would be forwarded now.
func (x *exchange) form() form {
	return form{x.head.Method, x.reading.Path, x.reading.Query, x.reading.HasQuery}
}

// forwardable returns the call of the head, and that call with what the content names. They are what
// the request asks for if it is forwarded now; ok is false if it is not the request that was read.
func (x *exchange) forwardable() (head, whole model.Call, ok bool) {
	return x.reading.Call, x.scanned.get().call(&x.reading), x.form() == x.interpreted
}

// errUnread is the cause if a new configuration has rules about models, and an exchange in progress began
// under one that had none, or that read the content as that of other servers.
var errUnread = errors.New("the rules are about models now, and nobody has read which model the content names")

// permitsNamed decides on the call of an exchange in progress again.
func permitsNamed(r *route.Route, u *underWay, caller *identity.Principal) error {
	got, err := Interpret(r, u.head, u.grpc)
	if err != nil {
		return err
	}
	if u.chosen != "" && got.Call.Open() {
		got.Call.Version = u.chosen // which it was sent with
	}
	if got.NeedsBody() && u.named.by != got.Call.Dialect {
		switch {
		case (u.named.by != nil || !u.read) && u.head.ContentLength != 0 && r.Policy.AboutModels():
			return errUnread
		case u.named.by == nil:
			return r.Policy.Screen(caller, got.Call) // its messages are decided one by one
		}
	}
	var facts *policy.Facts
	if r.Policy.NeedsFacts() {
		facts = FactsOf(u.head, u.client, u.conn, u.proof.Field)
	}
	_, err = r.Policy.Decide(caller, u.named.call(&got), facts)
	return err
}
