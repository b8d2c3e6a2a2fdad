package exchange

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// ForwardAuthConfig is the section `listen.forward_auth`: another proxy asks whether it may forward
// a request, and the gateway answers with its decision.
type ForwardAuthConfig struct {
	// Addr is the address HOST:PORT.
	Addr string `yaml:"addr"`
	// From are the addresses of the proxies that may ask; other connections are closed.
	From setting.List[setting.CIDR] `yaml:"from"`
	// Dialect says how the proxies describe requests: nginx (auth_request, with X-Original-URL and
	// X-Original-Method), traefik (ForwardAuth) or caddy (forward_auth), both with
	// X-Forwarded-Method, -Proto, -Host and -Uri. They must set all of these themselves; otherwise
	// the gateway would trust fields sent by the client.
	Dialect string `yaml:"dialect"`
	// ReplacesCookie says that the proxies replace their client's Cookie, which holds a person's session,
	// with the Cookie of the gateway's 200 answer. Then sessions count (callers: login/NAME); they must be
	// kept in memory (session.kind). The proxies must forward /.sallyport/ of each host to
	// listen.insecure_plain or listen.https. Default: false; a request with a session's cookie gets 403
	// not_for_another_proxy.
	ReplacesCookie bool `yaml:"replaces_cookie"`
}

// Check records the faults that are visible within the section.
func (c *ForwardAuthConfig) Check(at string, f *setting.Faults) {
	switch c.Dialect {
	case DialectNginx, DialectTraefik, DialectCaddy:
	case "":
		f.Add(at+".dialect", "", "which product asks is not said", "write nginx, traefik or caddy")
	default:
		f.Add(at+".dialect", c.Dialect, "not a product that is known", "write nginx, traefik or caddy")
	}
}

// These are the dialects of asking proxies.
const (
	DialectNginx   = "nginx"
	DialectTraefik = "traefik"
	DialectCaddy   = "caddy"
)

// Decide handles the forward-auth listener. It takes the same steps as a request up to the grant,
// and answers with the decision.
func (s *Server) Decide(stream wire.Stream) { s.handle(stream, (*exchange).wayForProxy) }

// wayForProxy decides on the described request, and answers with the decision instead of
// forwarding.
func (x *exchange) wayForProxy() error {
	x.asker = x.snapshot.ForwardAuth
	if err := x.rebuild(); err != nil {
		return err
	}
	v, err := x.decide()
	if err != nil {
		return err
	}
	return x.permit(v)
}

// rebuild makes the head to decide on from the other proxy's fields. The head must already be
// canonical: the other proxy forwards the original, and two forms of one path would let requests
// bypass the rules.
func (x *exchange) rebuild() error {
	ask := x.stream.Head()
	x.record.Upstream = "forward_auth"
	if ask.Fault != nil {
		return ask.Fault
	}
	h := &message.Head{Version: ask.Version, Fields: slices.Clone(ask.Fields), ContentLength: ask.ContentLength}
	lost := ""
	take := func(name string) string {
		if h.Fields.Count(name) != 1 {
			lost = name
			return ""
		}
		value := h.Fields.Get(name)
		h.Fields.Del(name)
		return value
	}
	switch x.asker {
	case DialectNginx:
		h.Method = take("x-original-method")
		h.Scheme, h.Authority, h.Target = splitURL(take("x-original-url"))
	default:
		h.Method, h.Scheme, h.Authority, h.Target = take("x-forwarded-method"), take("x-forwarded-proto"), take("x-forwarded-host"), take("x-forwarded-uri")
	}
	x.head = h
	x.record.Method, x.record.Host, x.record.Path = h.Method, withoutSecrets(h.Authority), ""
	if lost != "" {
		return because(reasonUntold, "a field that describes the request is missing or repeated: "+lost)
	}
	if h.Scheme != "https" && h.Scheme != "http" {
		return fmt.Errorf("%w: the scheme is neither https nor http", message.ErrBadTarget)
	}
	path, _, _ := strings.Cut(h.Target, "?")
	x.record.Path = path
	canonical, forms, err := message.CanonicalPath(path)
	switch {
	case err != nil:
		return err
	case forms != 0: // whatever the route says: the other proxy may decode or merge before it forwards
		return h.Refuse(forms, "the proxy in front could forward another form of it", "")
	case canonical != path:
		return fmt.Errorf("%w: the proxy in front would forward another form than the canonical one", message.ErrAmbiguousPath)
	}
	return nil
}

// splitURL splits a URL as nginx writes it, $scheme://$host$request_uri, without decoding.
func splitURL(s string) (scheme, authority, target string) {
	scheme, rest, _ := strings.Cut(s, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return scheme, rest[:i], rest[i:]
	}
	return scheme, rest, ""
}

// writtenByProxy reports whether the other proxy itself writes a field: one from which the gateway
// takes the client's certificate, or has taken the caller's credential. ingress-nginx tells the page to return to
// in every question, which says of nobody who calls.
func (x *exchange) writtenByProxy(name string) bool {
	return x.asker == DialectNginx && name == "x-auth-request-redirect" || name == x.proof.Field || x.snapshot.CertificateField != nil && x.snapshot.CertificateField(x.head.Host, name, x.stream.Conn())
}

// isDescribed reports whether a field says only what the decision is about. Some proxies tell that in more fields than
// their dialect needs, such as X-Original-URI.
func (x *exchange) isDescribed(line *message.Field) bool {
	switch line.Name {
	case "x-original-method":
		return line.Value == x.head.Method
	case "x-original-url", "x-original-uri", "x-rewrite-url":
		if strings.HasPrefix(line.Value, "/") {
			return line.Value == x.head.Target
		}
		scheme, authority, target := splitURL(line.Value)
		return scheme == x.head.Scheme && x.isDescribedHost(authority) && target == x.head.Target
	case "x-original-host", "x-host":
		return x.isDescribedHost(line.Value)
	}
	return false
}

// isDescribedHost reports whether a text is the host that the decision is about, with its port or without one. nginx has
// $host, $http_host and $host:$server_port, and is told to describe requests by $host, which says nothing of the port.
func (x *exchange) isDescribedHost(text string) bool {
	authority, host, err := message.CanonicalAuthority(text, x.head.Scheme)
	return err == nil && host == x.head.Host && (authority == x.head.Authority || authority == host || x.asker == DialectNginx)
}

// noCookie is the Cookie of a permission whose request has no cookies but the gateway's. In versions 2.9 and 2.10
// Caddy forwards its client's cookies if the field is missing or empty.
const noCookie = "sallyport-none=1"

// cookieForServer returns the Cookie that the other proxy forwards in the place of its client's.
func (x *exchange) cookieForServer() string {
	if rest := login.Strip(x.head.Fields.Get("cookie")); rest != "" {
		return rest
	}
	return noCookie
}

// tellsPages reports whether the client of the asking proxy sees answers that are no permission. nginx
// hands on the status alone.
func (x *exchange) tellsPages() bool {
	return x.snapshot.ReplacesCookie && x.asker != DialectNginx
}

// permit tells the other proxy that it may forward a request, and who the caller is. It always
// sends every identity field: for a missing one, the proxy would forward the client's.
func (x *exchange) permit(v verdict) error {
	if v.kind != granted {
		// A 2xx would make the other proxy forward a request that the gateway answers itself.
		return because(reasonUndecided, "the gateway answers this request itself, and a permission would make the proxy forward it")
	}
	if slices.ContainsFunc(x.head.Fields, func(line message.Field) bool {
		return line.Name == auth.SubprotocolField && auth.HasSubprotocolToken(line.Value)
	}) {
		return because(reasonUndecided, "the proxy in front would forward the token in Sec-WebSocket-Protocol")
	}
	if field := x.head.Fields.Get("cookie"); !x.snapshot.ReplacesCookie && x.snapshot.Logins != nil && login.Strip(field) != field {
		return because(reasonUndecided, "the proxy in front would forward the cookie of the session (listen.forward_auth.replaces_cookie: true says that it does not)") // one of a domain comes to hosts without a login too
	}
	f := x.stream.Head().Fields
	switch name := asksForUpgrade(f); {
	case name == "":
	case !x.route.WebSocket:
		return because(reasonUpgrade, "the request may ask for another protocol ("+setting.Shortened(name, 32)+"), and "+errNoTunnels.Error())
	case !asksForWebSocketAlone(f):
		return because(reasonUpgrade, "the request may ask for another protocol than websocket")
	}
	if i := slices.IndexFunc(x.head.Fields, func(line message.Field) bool {
		return x.route.Passed.Drops(line.Name) && !x.writtenByProxy(line.Name)
	}); i >= 0 {
		// The other proxy forwards its client's field, which only the gateway's own way could drop.
		return &message.FieldError{Err: route.ErrSpoofed, Name: x.head.Fields[i].Name, Cure: "let the proxy in front remove it, or list it under pass_identity_fields"}
	}
	if i := slices.IndexFunc(x.head.Fields, func(line message.Field) bool {
		return x.route.Dialect.Dropped(line.Name) || route.Redirects(line.Name) && !x.isDescribed(&line)
	}); i >= 0 {
		return because(reasonUndecided, "the proxy in front would forward a field that makes some servers do something else; let it remove "+setting.Shortened(x.head.Fields[i].Name, 64))
	}
	if x.keepsAuthorization() {
		return because(reasonUndecided, "the proxy in front would forward the client's Authorization, where these servers get a token of the caller (identity): send an API key in X-Api-Key, and nothing in Authorization")
	}
	if x.route.Release.SplitsUpstreams() {
		return because(reasonUndecided, "the gateway chooses the upstream of this request (rewrite.split), and the proxy in front would forward it to its own")
	}
	if target, err := x.route.Rewriting.Target(x.head); err != nil || target != x.reading.Target() {
		return because(reasonUndecided, "the proxy in front would forward another path or query than the gateway")
	}
	if _, call, ok := x.forwardable(); !ok || !v.grant.Permits(call) {
		return &refusal{reason: reasonInternal, cause: errNoGrant}
	}
	h := message.Response{Status: http.StatusOK, Fields: message.Fields{{Name: "cache-control", Value: "no-store"}}}
	x.addIdentity(&h.Fields)
	if x.snapshot.ReplacesCookie {
		h.Fields.Add("cookie", x.cookieForServer())
	}
	return x.respondHere(&h, nil)
}

// keepsAuthorization reports whether the other proxy would forward its client's Authorization to servers that get a
// token of the caller there. In versions 2.9 and 2.10 Caddy puts no empty or missing field in its place
// (GHSA-7r4p-vjf4-gxv4). Clients may not send the other fields of identity at all.
func (x *exchange) keepsAuthorization() bool {
	if x.asker != DialectCaddy || !x.route.OwnsAuthorization || !x.head.Fields.Has("authorization") {
		return false
	}
	if x.route.Identity.InAuthorization() == "" {
		return x.caller.Kind() != "bearer" || x.proof.Field != "authorization" // else it is the token that was verified
	}
	var own message.Fields
	x.addIdentity(&own)
	return own.Get("authorization") == ""
}

// asksForUpgrade returns the name of a field that may make the other proxy switch this request to
// another protocol; "" if there is none. That proxy may omit Upgrade from its question and still
// forward it. WebSocket's own fields are end-to-end, so the question contains them.
func asksForUpgrade(f message.Fields) string {
	for _, line := range f {
		if folded := message.Fold(line.Name); folded == "upgrade" || folded == "http2-settings" || strings.HasPrefix(folded, "sec-websocket-") {
			return folded
		}
	}
	return ""
}

// asksForWebSocketAlone reports whether the request asks for no protocol but WebSocket.
func asksForWebSocketAlone(f message.Fields) bool {
	return !slices.ContainsFunc(f, func(line message.Field) bool {
		folded := message.Fold(line.Name)
		return folded == "http2-settings" || folded == "upgrade" && !message.EqualFold(line.Value, "websocket")
	})
}

// tellProxy maps a refusal to a status that the asking proxy understands, and adds the reason.
// nginx takes 401 and 403 for refusals and turns the rest into 500, so other client errors become
// 403.
func (x *exchange) tellProxy(o outcome, reason string, h *message.Response) {
	if x.asker == "" {
		return
	}
	h.Fields.Add("x-sallyport-reason", reason)
	h.Fields.Add("x-sallyport-status", strconv.Itoa(o.status))
	if x.asker == DialectNginx && o.status != http.StatusUnauthorized && o.status < 500 {
		h.Status = http.StatusForbidden
	}
}
