package exchange

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// ForwardAuthConfig is the section `listen.forward_auth`: another proxy asks
// whether it may forward a request, and is answered as the gateway would decide.
type ForwardAuthConfig struct {
	// Addr is the address HOST:PORT.
	Addr string `yaml:"addr"`
	// From are the addresses of the proxies that may ask; all other connections are
	// closed.
	From setting.List[setting.CIDR] `yaml:"from"`
	// Dialect says how they tell what they were asked: nginx (auth_request, with
	// X-Original-URL and X-Original-Method), traefik (ForwardAuth) or caddy
	// (forward_auth), both with X-Forwarded-Method, -Proto, -Host and -Uri. They
	// must set all of these themselves: what a client sent under these names would
	// be believed otherwise.
	Dialect string `yaml:"dialect"`
}

// Check records the faults of the section that the section itself shows.
func (c *ForwardAuthConfig) Check(at string, f *setting.Faults) {
	switch c.Dialect {
	case DialectNginx, DialectTraefik, DialectCaddy:
	case "":
		f.Add(at+".dialect", "", "which product asks is not said", "write nginx, traefik or caddy")
	default:
		f.Add(at+".dialect", c.Dialect, "not a product that is known", "write nginx, traefik or caddy")
	}
}

// Dialects of proxies that ask.
const (
	DialectNginx   = "nginx"
	DialectTraefik = "traefik"
	DialectCaddy   = "caddy"
)

// Decide is the handler of the listener for forward-auth: the same way as that of
// requests, up to the grant, of which the answer tells.
func (s *Server) Decide(stream wire.Stream) { s.handle(stream, (*exchange).wayForProxy) }

// wayForProxy is the way of a question: decided as the request would be, and answered
// in place of forwarding.
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

// rebuild makes the head that is decided on from what the other proxy tells. It
// must be in the form that the gateway itself would forward: the other proxy
// forwards what it has, and two forms of one path are how requests get past.
func (x *exchange) rebuild() error {
	ask := x.stream.Head()
	x.record.Upstream = "forward_auth"
	if ask.Fault != nil {
		return ask.Fault
	}
	h := &message.Head{Version: ask.Version, Fields: slices.Clone(ask.Fields), ContentLength: ask.ContentLength}
	var lost bool
	take := func(name string) string {
		if h.Fields.Count(name) != 1 {
			lost = true
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
	if lost {
		return &refusal{reason: reasonUntold, cause: errUntold}
	}
	if h.Scheme != "https" && h.Scheme != "http" {
		return message.ErrBadTarget
	}
	path, _, _ := strings.Cut(h.Target, "?")
	x.record.Path = path
	if canonical, err := message.CanonicalPath(path); err != nil || canonical != path {
		return message.ErrAmbiguousPath
	}
	return nil
}

// splitURL cuts a URL as nginx writes it, $scheme://$host$request_uri; nothing is
// decoded.
func splitURL(s string) (scheme, authority, target string) {
	scheme, rest, _ := strings.Cut(s, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return scheme, rest[:i], rest[i:]
	}
	return scheme, rest, ""
}

// permit tells another proxy that it may forward a request, and who calls. The
// identity fields are always there: one that was missing would leave what the
// client sent under its name.
func (x *exchange) permit(v verdict) error {
	if v.kind != granted {
		// 2xx would make the other proxy forward what the gateway answers itself.
		return &refusal{reason: reasonUndecided}
	}
	if f := x.stream.Head().Fields; asksForUpgrade(f) && !(x.route.WebSocket && asksForWebSocketAlone(f)) {
		return &refusal{reason: reasonUpgrade}
	}
	if !v.grant.Permits(x.route.Dialect.Read(x.head)) {
		return &refusal{reason: reasonInternal, cause: errNoGrant}
	}
	h := message.Response{Status: http.StatusOK, Fields: message.Fields{{Name: "cache-control", Value: "no-store"}}}
	x.addIdentity(&h.Fields)
	return x.respondHere(&h, nil)
}

// asksForUpgrade says whether a request that another proxy tells of may become another
// protocol there. That proxy may have left Upgrade out of the question and forward it all
// the same; the fields of WebSocket are not of the connection, and so it asks with them.
func asksForUpgrade(f message.Fields) bool {
	return slices.ContainsFunc(f, func(line message.Field) bool {
		folded := message.Fold(line.Name)
		return folded == "upgrade" || folded == "http2-settings" || strings.HasPrefix(folded, "sec-websocket-")
	})
}

// asksForWebSocketAlone says whether no other protocol is asked for.
func asksForWebSocketAlone(f message.Fields) bool {
	return !slices.ContainsFunc(f, func(line message.Field) bool {
		folded := message.Fold(line.Name)
		return folded == "http2-settings" || folded == "upgrade" && !message.EqualFold(line.Value, "websocket")
	})
}

// tellProxy turns the outcome of a refusal into what the proxy that asked understands,
// and says besides what it was. nginx takes 401 and 403 for refusals, and makes
// 500 of all else: of what the client did wrong it is told 403.
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
