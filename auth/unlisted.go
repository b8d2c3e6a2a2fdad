package auth

import (
	"errors"
	"slices"
	"strings"

	"sallyport/auth/clientcert"
	"sallyport/auth/httpsig"
)

// unlisted finds credentials of the kinds that a route does not list. Beside one of a listed kind
// they do not count. A request that has no other is told so: it does not lack a credential.
type unlisted struct {
	forms      SubprotocolForms  // that the route takes
	keys       bool              // the route takes no API keys
	signatures bool              // nor signatures
	certs      *clientcert.Hosts // nil if the route takes certificates, or tokens that are bound to one
}

// newUnlisted returns what a route does not take. callers are those that it lists, by kind.
func (a *Auth) newUnlisted(callers map[string][]string, signed bool, forms SubprotocolForms) unlisted {
	u := unlisted{keys: callers["apikey"] == nil, signatures: callers["key"] == nil && !signed, forms: forms}
	binds := slices.ContainsFunc(callers["issuer"], func(caller string) bool {
		iss := a.issuer(caller)
		return iss != nil && (iss.rules.bound == BoundAccept || iss.rules.bound == BoundRequire)
	})
	if callers["cert"] == nil && !binds {
		u.certs = a.clientCerts
	}
	return u
}

// find says in words which such credential a request has; "" for none. used reports that a listed
// credential was in Authorization, or in a subprotocol.
func (u *unlisted) find(r *Request, used bool) string {
	m := Message(r.Head)
	switch {
	case !used && r.Head.Fields.Has("authorization"):
		return inAuthorization(r.Head.Fields.Get("authorization"))
	case !used && r.subprotocol != nil && r.subprotocol.isAPIKey():
		return "Sec-WebSocket-Protocol has an API key"
	case !used && r.subprotocol != nil:
		return "Sec-WebSocket-Protocol has a bearer token"
	case u.keys && r.Head.Fields.Has("x-api-key"):
		return "X-Api-Key has a key"
	case u.keys && r.Head.Fields.Has("api-key"):
		return "Api-Key has a key"
	case u.signatures && isSigned(&m):
		return "the request is signed"
	case hasCertificate(u.certs, r):
		return "the client has a certificate"
	}
	if r.subprotocol == nil {
		return u.forms.unread(r.Head)
	}
	return ""
}

// isSigned reports whether a request has a signature for this gateway, well formed or not.
func isSigned(m *httpsig.Message) bool {
	if _, present := m.Fields.Line("signature-input", 0); !present {
		return false
	}
	_, err := httpsig.Explain(m, httpsig.TagRequest)
	return codeOf(err) != httpsig.Missing
}

// hasCertificate reports whether [certificateOf] would find a certificate. It does not parse any.
func hasCertificate(hosts *clientcert.Hosts, r *Request) bool {
	t := hosts.For(r.Head.Host)
	switch {
	case t == nil:
		return false
	case t.HeaderFrom(r.Via) != "":
		return r.Head.Fields.Has(t.HeaderFrom(r.Via))
	}
	return r.Conn != nil && len(r.Conn.PeerCertificates) > 0
}

// inAuthorization says what Authorization has that the route does not take.
func inAuthorization(value string) string {
	if key, _ := keyInAuthorization(value); key != "" {
		return "Authorization has an API key"
	}
	// Only known schemes are repeated: the first word may be the secret itself.
	for _, scheme := range [...]string{"Basic", "Bearer", "Digest", "DPoP", "Negotiate", "NTLM", "AWS4-HMAC-SHA256"} {
		if word, _, more := strings.Cut(value, " "); more && strings.EqualFold(word, scheme) {
			return "Authorization has the scheme " + scheme
		}
	}
	return "Authorization has another scheme than Bearer"
}

// lacks returns the refusal of a request that lacks a credential, for this reason. all are those that
// it has. stray says where one is that does not count; nil for nowhere.
func (c *Chain) lacks(reason string, r *Request, all []proven, stray error) *Error {
	what := ""
	if reason == NoCredential {
		used := slices.ContainsFunc(all, func(p proven) bool { return p.field == "authorization" || p.field == SubprotocolField })
		if what = c.unlisted.find(r, used); what != "" {
			reason = UnlistedCredential
		}
	}
	switch {
	case stray != nil && reason != SignatureMissing:
		what = stray.Error()
	case what != "":
	case reason == CertificateMissing:
		what = "the client has sent no certificate"
	case reason == SignatureMissing:
		what = "there is no signature for this gateway"
	case r.Head.Fields.Get("authorization") != "":
		what = "another credential than that of Authorization is missing"
	case c.forms != 0 && r.Head.Upgrade == "websocket":
		what = "there is no field " + c.fields + ", and no token in Sec-WebSocket-Protocol"
	default:
		what = "there is no field " + c.fields
	}
	return &Error{Reason: reason, Err: errors.New(what + "; the route takes " + c.takes)}
}
