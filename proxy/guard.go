package proxy

import (
	"net/netip"
	"strings"

	"sallyport/proxy/message"
)

// guard knows the fields of a request that are the gateway's own to write or
// that change what other fields mean. It is immutable.
type guard struct {
	own    map[string]bool // bare names of the identity fields of all routes
	signed map[string]bool // bare names of the fields that signatures must cover
}

// newGuard protects the identity names of every route on every route: two
// routes may share an upstream, and only one of them may set the name. What
// signatures must cover it protects from other spellings, which would not be covered.
func newGuard(identityNames, signedNames []string) guard {
	g := guard{own: map[string]bool{}, signed: map[string]bool{}}
	for _, n := range identityNames {
		g.own[bare(n)] = true
	}
	for _, n := range signedNames {
		g.signed[bare(n)] = true
	}
	return g
}

// bare is the folded form of a name without separators at its ends and with one
// where several stand: some readers trim and join those too.
func bare(name string) string {
	folded := strings.Trim(message.Fold(name), "-")
	for strings.Contains(folded, "--") {
		folded = strings.ReplaceAll(folded, "--", "-")
	}
	return folded
}

// check refuses fields whose names fold onto the gateway's own, in any spelling,
// and fields that would override the method.
func (g *guard) check(fields message.Fields) error {
	for i := range fields {
		name := fields[i].Name
		folded := bare(name)
		switch {
		case strings.HasPrefix(folded, "x-sallyport-"), g.own[folded]:
			return &refusal{reason: reasonProtectedField, cause: errOwnField}
		case overridesMethod(folded):
			return &refusal{reason: reasonProtectedField, cause: errMethodOverride}
		case folded != name && (weighty(folded) || replaced(folded) || g.signed[folded]):
			return &refusal{reason: reasonProtectedField, cause: errFoldedField}
		}
	}
	return nil
}

// spelledOtherwise refuses fields that some server takes for one that the signature
// covers: what such a server reads, nobody signed.
func (x *exchange) spelledOtherwise() error {
	s := x.proof.Signature
	if s == nil {
		return nil
	}
	for i := range x.head.Fields {
		name := x.head.Fields[i].Name
		if folded := bare(name); folded != name && s.Covers(folded) {
			return &refusal{reason: reasonProtectedField, cause: errFoldedField}
		}
	}
	return nil
}

// trailers picks those of a client's trailers that may go on: none that would be
// refused, removed or acted on in the head.
func (g *guard) trailers(fields message.Fields) message.Fields {
	var kept message.Fields
	for i := range fields {
		folded := bare(fields[i].Name)
		if g.check(fields[i:i+1]) == nil && !replaced(folded) && !weighty(folded) {
			kept = append(kept, fields[i])
		}
	}
	return kept
}

func overridesMethod(folded string) bool {
	switch folded {
	case "x-http-method-override", "x-http-method", "x-method-override":
		return true
	}
	return false
}

// weighty says whether a field, under its own name, decides how the rest of the
// message is read: another spelling of it is an attempt to be read twice.
func weighty(folded string) bool {
	switch folded {
	case "authorization", "cookie", "content-type", "content-encoding", "content-digest", "signature", "signature-input", "dpop", "x-api-key":
		return true
	}
	return message.OfConnection(folded)
}

// replaced says whether the gateway removes a client's field of this name and,
// where upstreams need it, writes its own: what tells the client's address, what
// servers take for their own variables, and what sends a request elsewhere.
func replaced(folded string) bool {
	switch folded {
	case "forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip",
		"script-name", "remote-user", "remote-addr", "proxy",
		"x-original-url", "x-original-uri", "x-original-host", "x-original-method", "x-rewrite-url", "x-host",
		"x-envoy-original-path", "x-envoy-original-host",
		"x-vertex-ai-triton-redirect", "x-amzn-sagemaker-target-model", "x-amzn-sagemaker-custom-attributes":
		return true
	}
	return strings.HasPrefix(folded, "x-forwarded-")
}

// withoutSecrets is a target or authority that could not be read, as a record may
// show it: queries and user information hold secrets.
func withoutSecrets(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	if i := strings.LastIndexByte(s, '@'); i >= 0 && (s[0] != '/' || strings.HasPrefix(s, "//")) {
		s = "…" + s[i:]
	}
	return s
}

// clientOf tells whose address counts for limits and the record: the peer's, or,
// where the peer is a trusted proxy, the last address in its X-Forwarded-For that
// is not one too. It also tells whether the peer is such a proxy.
func (s *snapshot) clientOf(peer netip.Addr, fields message.Fields) (netip.Addr, bool) {
	if !s.isProxy(peer) {
		return peer, false
	}
	client := peer
	for i := len(fields) - 1; i >= 0; i-- {
		if fields[i].Name != "x-forwarded-for" {
			continue
		}
		for rest := fields[i].Value; rest != ""; {
			var last string
			if c := strings.LastIndexByte(rest, ','); c >= 0 {
				rest, last = rest[:c], rest[c+1:]
			} else {
				rest, last = "", rest
			}
			a, err := netip.ParseAddr(strings.Trim(last, " \t"))
			if err != nil {
				return client, true // what stands further left is not to be believed either
			}
			if client = a.Unmap(); !s.isProxy(client) {
				return client, true
			}
		}
	}
	return client, true
}

func (s *snapshot) isProxy(a netip.Addr) bool {
	for _, p := range s.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
