package exchange

import (
	"slices"
	"strings"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
)

// outgoing returns the fields for the upstream. It drops the client's fields about identity,
// address and connection, and appends the gateway's. Those come last, so that no client field can
// remove or precede them.
func (x *exchange) outgoing() message.Fields {
	in := x.head.Fields
	out := slices.Grow(x.out[:0], len(in)+16)
	lists := x.reading.Lists()
	for _, f := range in {
		if f.Name == "cookie" && f.Value != "" {
			if f.Value = login.Strip(f.Value); f.Value == "" {
				continue
			}
		}
		if f.Name == auth.SubprotocolField && x.stripsToken(f.Value) {
			if !x.proof.Subprotocol {
				x.dropped |= droppedToken
			}
			if f.Value = auth.WithoutSubprotocolToken(f.Value); f.Value == "" {
				continue
			}
		}
		if route.Replaced(f.Name) {
			if !x.trusted {
				x.dropped |= droppedForwarded
			}
			continue
		}
		if x.route.Passed.Drops(f.Name) {
			if x.proof.Field == "" || !strings.HasPrefix(f.Name, x.proof.Field) { // else it is the caller's proof
				x.dropped |= droppedIdentity
			}
			continue
		}
		if x.route.Dialect.Dropped(f.Name) {
			x.dropped |= droppedSteering
			continue
		}
		if x.isCredential(&f) {
			if f.Name == "authorization" && x.proof.Field == "cookie" {
				x.dropped |= droppedAuthorization
			}
			continue
		}
		if f.Name == websocketKey && x.wantsTunnel() ||
			x.route.ToUpstream.Drops(f.Name) || x.isHopField(f.Name) || lists && keepFromListing(f.Name) {
			continue
		}
		out = append(out, f)
	}
	if x.route.ForwardAuthorization && x.proof.Subprotocol && !x.route.ToUpstream.Drops("authorization") {
		if token := x.route.Chain.SubprotocolToken(x.head); token != "" {
			out.Add("authorization", "Bearer "+token)
		}
	}
	out = append(out, x.route.ToUpstream.Put...)
	peer := x.stream.Conn().Address
	proto, host, chain := x.scheme(), x.head.Authority, peer
	if x.trusted {
		if h, _, err := message.CanonicalAuthority(in.Get("x-forwarded-host"), proto); err == nil {
			host = h
		}
		if x.client.String() != peer {
			chain = x.client.String() + ", " + peer
		}
	}
	out.Add("x-forwarded-for", chain)
	out.Add("x-forwarded-proto", proto)
	out.Add("x-forwarded-host", host)
	client := peer
	if x.trusted {
		client = x.client.String()
	}
	out.Add("forwarded", x.forwarded.element(client, proto, host))
	if p := x.route.Rewriting.Prefix; p != "" {
		out.Add("x-forwarded-prefix", p)
	}
	if x.wantsTunnel() {
		out.Add(websocketKey, newWebsocketKey())
	}
	x.addIdentity(&out)
	if x.grpc && x.answer.Signs() {
		// The bytes that are signed are hidden from gRPC clients if they are compressed.
		out.Set("grpc-accept-encoding", "identity")
	}
	x.out = out
	return out
}

// isCredential reports whether a field is a credential for the gateway, which no upstream may get.
// Elsewhere X-Api-Key and Api-Key belong to the upstream, unless they hold a key of the gateway's
// form: a client that sends one there has mistaken the route.
func (x *exchange) isCredential(f *message.Field) bool {
	switch {
	case f.Name == "authorization":
		return !x.route.ForwardAuthorization || x.route.TakesPasswords && auth.IsBasic(f.Value) || auth.HoldsAPIKey(f.Name, f.Value)
	case auth.IsAPIKeyField(f.Name):
		return x.route.TakesAPIKeys || auth.HoldsAPIKey(f.Name, f.Value)
	}
	return x.snapshot.Guard.IsToken(f.Name)
}

// stripsToken reports whether a value of Sec-WebSocket-Protocol has a token that no upstream may get: the
// caller's, or one that only an upstream could take for a credential. As with Authorization, the route can
// leave the latter to its upstream, but never a key of the gateway's form.
func (x *exchange) stripsToken(value string) bool {
	if !auth.HasSubprotocolToken(value) {
		return false
	}
	return !x.route.ForwardAuthorization || x.route.Subprotocols != 0 || auth.HoldsAPIKey(auth.SubprotocolField, value)
}

// scheme returns the scheme by which the client called, seen through trusted proxies. One that asks says it in
// the description of the request; X-Forwarded-Proto beside that may be its client's.
func (x *exchange) scheme() string {
	if x.trusted && x.asker == "" {
		if p := x.head.Fields.Get("x-forwarded-proto"); p == "https" || p == "http" {
			return p
		}
	}
	return x.head.Scheme
}

// forwardedCache is a cached element of Forwarded (RFC 7239) and its inputs. The
// requests of one caller have the same for long.
type forwardedCache struct{ client, proto, host, value string }

// element returns the element for these inputs.
func (c *forwardedCache) element(client, proto, host string) string {
	if c.value == "" || c.client != client || c.proto != proto || c.host != host {
		*c = forwardedCache{client, proto, host, forwardedElement(client, proto, host)}
	}
	return c.value
}

func forwardedElement(client, proto, host string) string {
	if strings.Contains(client, ":") {
		client = `"[` + client + `]"`
	}
	if strings.ContainsAny(host, ":[]") {
		host = `"` + host + `"`
	}
	return "for=" + client + ";proto=" + proto + ";host=" + host
}

// withoutAnswer returns a path for the record. A proxy in front may have turned the "?" of the gateway's own
// page into another byte or an escape: then a code that still counts is part of the path.
func withoutAnswer(path string) string {
	if !isDoorPath(path) {
		return path
	}
	if i := strings.IndexAny(path, "%;=&"); i >= 0 {
		return path[:i] + "…"
	}
	return path
}

// withoutSecrets strips query and user information from a malformed target or authority for the
// record: they may hold secrets.
func withoutSecrets(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	if i := strings.LastIndexByte(s, '@'); i >= 0 && (s[0] != '/' || strings.HasPrefix(s, "//")) {
		s = "…" + s[i:]
	}
	return s
}
