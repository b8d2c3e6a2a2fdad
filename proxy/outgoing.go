package proxy

import (
	"slices"
	"strings"

	"sallyport/proxy/message"
)

// outgoing are the fields for the upstream: the client's own, less those that
// speak of identity, address or the connection, then ours. Ours come last, so
// nothing that the client wrote can remove or precede them.
func (x *exchange) outgoing() message.Fields {
	in := x.head.Fields
	out := slices.Grow(x.out[:0], len(in)+16)
	for _, f := range in {
		if replaced(f.Name) || f.Name == websocketKey && x.tunnels() || f.Name == "authorization" && !x.route.authorization ||
			x.route.toUpstream.drops(f.Name) || x.endsHere(f.Name) {
			continue
		}
		out = append(out, f)
	}
	out = append(out, x.route.toUpstream.put...)
	peer := x.stream.Conn().Address
	proto, host, chain := x.head.Scheme, x.head.Authority, peer
	if x.trusted {
		if p := in.Get("x-forwarded-proto"); p == "https" || p == "http" {
			proto = p
		}
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
	out.Add("forwarded", x.told.forwarded(client, proto, host))
	if p := x.route.rewriting.told; p != "" {
		out.Add("x-forwarded-prefix", p)
	}
	if x.tunnels() {
		out.Add(websocketKey, newWebsocketKey())
	}
	x.addIdentity(&out)
	x.out = out
	return out
}

// addIdentity writes who calls, under the names of the route.
func (x *exchange) addIdentity(f *message.Fields) {
	names := &x.route.identity
	if names.principal != "" {
		f.Add(names.principal, printable(x.record.Principal))
	}
	if names.scopes != "" {
		f.Add(names.scopes, printable(strings.Join(x.caller.Scopes, " ")))
	}
	if names.requestID != "" {
		f.Add(names.requestID, x.record.RequestID)
	}
}

// told is an element of Forwarded (RFC 7239) and what it was made of. One caller's
// requests have the same for long.
type told struct{ client, proto, host, element string }

// forwarded writes one element.
func (t *told) forwarded(client, proto, host string) string {
	if t.element == "" || t.client != client || t.proto != proto || t.host != host {
		*t = told{client, proto, host, forwarded(client, proto, host)}
	}
	return t.element
}

func forwarded(client, proto, host string) string {
	if strings.Contains(client, ":") {
		client = `"[` + client + `]"`
	}
	if strings.ContainsAny(host, ":[]") {
		host = `"` + host + `"`
	}
	return "for=" + client + ";proto=" + proto + ";host=" + host
}

// printable makes a field value of a name that an issuer chose: what no field may
// hold, and "%", is percent-encoded, so that distinct names stay distinct.
func printable(s string) string {
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) && s == strings.TrimSpace(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain(c) && (c != ' ' || i > 0 && i < len(s)-1) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
