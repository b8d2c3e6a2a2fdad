package exchange

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// Serve is the handler of every request on the listeners for requests.
func (s *Server) Serve(stream wire.Stream) { s.handle(stream, (*exchange).way) }

// handle serves one request by the steps of way. Once the process has ended it does not answer, so
// the engine aborts the stream.
func (s *Server) handle(stream wire.Stream, way func(*exchange) error) {
	x := s.begin(stream)
	if x == nil {
		return
	}
	defer x.finish()
	if err := way(x); err != nil {
		x.refuse(err)
	}
}

// way lists all steps of a request in order: the decision, then forwarding or a fixed answer.
// Answers are signed as they are sent.
func (x *exchange) way() error {
	v, err := x.decide()
	if err != nil {
		return err
	}
	if x.wantsTunnel() && v.kind >= publicDocument {
		// A 2xx would say that a tunnel is open.
		return fmt.Errorf("%w: CONNECT for %s, and the gateway itself answers this path", message.ErrBadMethod, setting.Quoted(x.head.Upgrade, 24))
	}
	switch v.kind {
	case publicDocument:
		return x.sendPublicDocument()
	case resourceMetadata:
		return x.sendMetadata(v.resource)
	case ownPage:
		return x.serveDoor()
	case preflight:
		return x.answerPreflight()
	case fixedAnswer:
		return x.respond(v.grant)
	}
	return x.forward(v)
}

// verdict is the decision on a request. The zero verdict permits nothing.
type verdict struct {
	kind        verdictKind
	grant       policy.Grant       // set for granted and fixedAnswer
	provisional policy.Provisional // set instead of grant while the content is unverified
	resource    *route.Resource    // set for resourceMetadata
}

type verdictKind uint8

const (
	nothing          verdictKind = iota
	granted                      // may be forwarded
	fixedAnswer                  // may have the route's fixed answer
	preflight                    // a CORS preflight, answered without a caller
	publicDocument               // a public document of the gateway; this and the next are its own
	resourceMetadata             // the public metadata of a route
	ownPage                      // a page for sign-in or sign-out
)

// decide makes the one decision on a request, whoever will forward it. The package comment of proxy
// gives the reason for the order of steps.
func (x *exchange) decide() (verdict, error) {
	if err := x.read(); err != nil {
		return verdict{}, err
	}
	if isPublic(x.head.Path) {
		return verdict{kind: publicDocument}, nil
	}
	if r := x.findResource(); r != nil {
		return verdict{kind: resourceMetadata, resource: r}, nil
	}
	if x.door = x.findDoor(); x.door != nil {
		return verdict{kind: ownPage}, nil
	}
	if err := x.match(); err != nil {
		return verdict{}, err
	}
	if err := x.checkAddress(); err != nil {
		return verdict{}, err
	}
	if x.isPreflight() {
		return verdict{kind: preflight}, nil
	}
	if err := x.authenticate(); err != nil {
		return verdict{}, err
	}
	if err := x.checkPage(); err != nil {
		return verdict{}, err
	}
	if err := x.interpret(); err != nil {
		return verdict{}, err
	}
	if err := x.screen(); err != nil {
		return verdict{}, err
	}
	if err := x.admit(); err != nil {
		return verdict{}, err
	}
	if err := x.claim(); err != nil {
		return verdict{}, err
	}
	if err := x.takeBody(); err != nil {
		return verdict{}, err
	}
	v, err := x.authorize()
	if err != nil {
		return verdict{}, err
	}
	return v, x.countDecided()
}

// read parses the head into the form that every later step uses. It refuses a head that two parsers
// could take for different requests.
func (x *exchange) read() error {
	if x.head.Version == message.HTTP10 && x.head.Authority == "" && strings.HasPrefix(x.head.Target, "/") {
		x.head.Authority = x.snapshot.Routes.OnlyHost() // HTTP/1.0 may leave Host out
	}
	err := x.head.Settle()
	call := message.IsGRPC(x.head.Fields.Get("content-type")) && x.asker == ""
	x.grpc = call && x.head.Version == message.HTTP2
	if err != nil {
		x.record.Host, x.record.Path = withoutSecrets(x.head.Authority), withoutAnswer(withoutSecrets(x.head.Target))
		return err
	}
	x.record.Host, x.record.Path = x.head.Host, withoutAnswer(x.head.Path)
	if x.head.Forms != 0 {
		x.record.Path = withoutSecrets(x.record.Path) // "//user:secret@host" is among them
	}
	if call {
		if err := x.checkCallForm(); err != nil {
			return err
		}
	}
	if err := x.snapshot.Guard.Check(x.head.Fields); err != nil {
		return err
	}
	x.client, x.trusted = x.snapshot.clientOf(x.client, x.head.Fields)
	x.record.Client = x.client
	return nil
}

// match finds the route, and refuses connections that must not carry requests for the host.
func (x *exchange) match() error {
	r, err := MatchRoute(&x.snapshot.Routes, x.head)
	if bad := x.checkConnection(); bad != nil {
		// This comes first: who may not use the host does not learn which paths it has.
		if x.route = r; r != nil {
			x.record.Route = r.Name
		}
		return bad
	}
	if errors.Is(err, route.ErrNoHost) && x.trusted && x.asker == "" {
		return fmt.Errorf("%w; unless clients call this host, the proxy %s must pass on their Host", err, x.stream.Conn().Address)
	}
	if err != nil {
		return err
	}
	x.route, x.backend = r, &r.Backend
	x.record.Route = r.Name
	x.timeouts = r.Timeouts
	if x.grpc {
		x.timeouts = r.Calls.Timeouts(r.Timeouts, x.head.Fields.Get("grpc-timeout"))
	}
	if x.wantsTunnel() && !r.WebSocket {
		x.warnUpgrade()
		// Over HTTP/1.1 the upgrade is ignored, but an extended CONNECT asks for nothing else.
		return fmt.Errorf("%w: CONNECT for %s, and %w", message.ErrBadMethod, setting.Quoted(x.head.Upgrade, 24), errNoTunnels)
	}
	if r.WebSocket && x.head.Upgrade == "websocket" {
		return checkHandshake(x.head, r.Subprotocols)
	}
	return nil
}

// MatchRoute returns the route of a request that is for none of the gateway's own paths. It refuses paths
// that some servers read as one of those; then it returns the route too.
func MatchRoute(routes *route.Table, head *message.Head) (*route.Route, error) {
	forms := head.Forms
	r, err := routes.Match(head)
	if err != nil || forms == 0 {
		return r, err
	}
	owned := func(path string) bool { return isPublic(path) || isDoorPath(path) && routes.Door(head.Host) != nil }
	if all, _ := message.Readings(head.Path); slices.ContainsFunc(all, owned) {
		return r, head.Refuse(forms, "some servers read the path as one of the gateway's own", "")
	}
	return r, nil
}

// checkConnection refuses connections that must not carry requests for the host.
func (x *exchange) checkConnection() error {
	if bad := x.snapshot.checkConn(x.head.Host, x.stream.Conn()); bad != nil {
		return hangingUp(bad)
	}
	return x.snapshot.checkBalanced(x.head, x.stream.Conn())
}

// checkHandshake refuses WebSocket requests with a body or another method than GET (RFC 6455,
// section 4.2.1), and those that offer nothing but a token where the route takes tokens: browsers
// fail a connection for which the server chooses none of their subprotocols.
func checkHandshake(head *message.Head, tokens auth.SubprotocolForms) error {
	switch {
	case head.ContentLength != 0:
		length := "unknown length"
		if n := head.ContentLength; n > 0 {
			length = strconv.FormatInt(n, 10) + " bytes"
		}
		// Servers differ on where the tunnel begins.
		return because(reasonUpgradeBody, "a request for websocket has a body of "+length)
	case head.Method != "GET":
		// A server may take it for a handshake or for a plain request of that method.
		return because(reasonUpgradeMethod, "the method is "+setting.Quoted(head.Method, 24))
	case tokens != 0 && auth.OffersOnlyToken(head):
		return because(reasonTokenAlone, "Sec-WebSocket-Protocol offers no other subprotocol than the one with the token")
	}
	return nil
}

// checkAddress refuses clients by address before it looks at a credential, so that other addresses
// cannot even guess one.
func (x *exchange) checkAddress() error {
	if !x.route.Access.Admits(x.client) {
		return AddressRefusal(x.route, x.client)
	}
	return nil
}

// isPreflight reports whether the request is a CORS preflight. Browsers send no credential with it.
func (x *exchange) isPreflight() bool {
	return x.route.CORS != nil && route.PreflightMethod(x.head) != ""
}

// authenticate identifies the caller from the credentials in the head.
func (x *exchange) authenticate() error {
	var err error
	x.revocations = x.server.revocations.Load()
	x.asked = x.authRequest()
	x.proof, err = x.route.Chain.Authenticate(x.life, &x.asked)
	if x.proof.Signature != nil {
		x.chooseAnswerKey(false)
	}
	if err != nil {
		return err
	}
	x.caller = x.proof.Caller
	x.record.Principal = x.caller.String()
	x.record.Credential = x.caller.Kind()
	x.record.KeyID = x.caller.KeyID
	x.record.CredentialID = x.caller.ID
	x.recordAuthentication(x.proof.Authentication)
	x.chooseAnswerKey(true)
	if s := x.proof.Signature; s != nil {
		return route.CheckSpelling(x.head.Fields, s.Covers)
	}
	return nil
}

// authRequest returns what package auth needs to know of the request.
func (x *exchange) authRequest() auth.Request {
	c := x.stream.Conn()
	return auth.Request{Head: x.head, Peer: x.client, Via: c.Peer.Addr().Unmap(), Conn: c.TLS}
}

// chooseAnswerKey chooses the key that signs the answer: once the request's signature has been
// verified, and again once the caller is known.
func (x *exchange) chooseAnswerKey(authenticated bool) {
	x.answer.ChooseKey(x.snapshot.Signers, &x.route.Integrity, x.head, x.proof.Signature, authenticated)
}

// screen refuses a caller whom no rule of the route could allow the call, whatever the body names,
// before it reads any of the body.
func (x *exchange) screen() error {
	if !x.reading.NeedsBody() {
		return x.route.Policy.Screen(&x.caller, model.Call{})
	}
	return x.route.Policy.Screen(&x.caller, x.call)
}

// authorize decides on the call and returns the grant that forwarding requires.
func (x *exchange) authorize() (v verdict, err error) {
	v.kind = granted
	if x.route.Fixed != nil {
		v.kind = fixedAnswer
	}
	named, grant := x.scanned.granted()
	x.call = named.call(&x.reading)
	switch {
	case !x.content.unverified(), named.by != nil && !x.content.sealed:
		if v.grant = grant; !v.grant.Permits(x.call) {
			v.grant, err = x.route.Policy.Decide(&x.caller, x.call, x.about)
		}
	case x.reading.NeedsBody() && named.by == nil && x.scanned.scanner != nil:
		v.provisional, err = x.route.Policy.ProvideUnnamed(&x.caller, x.call, x.about)
	default:
		v.provisional, err = x.route.Policy.Provide(&x.caller, x.call, x.about)
	}
	x.provisional = v.provisional
	if err == nil {
		err = x.list()
	} else if fault := x.scanned.fault; fault != nil {
		err = fault
	}
	if err != nil {
		return verdict{}, err
	}
	return v, nil
}
