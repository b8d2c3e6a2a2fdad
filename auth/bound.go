package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"

	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// Values of bound_tokens.
const (
	BoundOff     = "off"
	BoundAccept  = "accept"
	BoundRequire = "require"
)

// binding is the claim cnf of a token: the key that the token is bound to (RFC 7800). The zero
// binding is that of a token without the claim.
type binding struct {
	present     bool
	certificate bool     // cnf has a thumbprint of a certificate, and names no other key
	thumbprint  [32]byte // SHA-256 of that certificate (RFC 8705, section 3.1)
}

// bindingOf reads the flattened claim cnf. Members that it does not know are ignored, as RFC 7800,
// section 3.1, says.
func bindingOf(read claimSet) binding {
	const thumbprint = "cnf.x5t#S256"
	b := binding{present: true}
	other := false
	for i := range read {
		c := &read[i]
		member, _, _ := strings.Cut(strings.TrimPrefix(c.path, "cnf."), ".")
		switch {
		case c.path == thumbprint && c.kind == text && !c.array && !b.certificate:
			n := base64.RawURLEncoding.DecodedLen(len(c.values[0]))
			sum, err := base64.RawURLEncoding.Strict().DecodeString(c.values[0])
			if b.certificate = err == nil && n == len(b.thumbprint); b.certificate {
				copy(b.thumbprint[:], sum)
			}
		case member == "x5t#S256", member == "jwk", member == "jwe", member == "jku", member == "kid", member == "jkt":
			other = true
		}
	}
	b.certificate = b.certificate && !other
	return b
}

// to returns the thumbprint of the certificate that a token with an accepted binding is bound to;
// nil if it is bound to none.
func (b *binding) to() *[32]byte {
	if !b.present {
		return nil
	}
	sum := b.thumbprint
	return &sum
}

// TakesBoundTokens reports whether the issuer's tokens may be bound to client certificates.
func (c *IssuerConfig) TakesBoundTokens() bool {
	return c.BoundTokens == BoundAccept || c.BoundTokens == BoundRequire
}

// refusal returns why an issuer with this value of bound_tokens takes no token with the binding; ""
// if it may.
func (b *binding) refusal(bound string) (reason, cause string) {
	switch {
	case b.present && bound != BoundAccept && bound != BoundRequire:
		return TokenBound, "cnf binds the token to a key, and bound_tokens of its issuer is off"
	case b.present && !b.certificate:
		return TokenBound, "cnf binds the token to a key in another way than by x5t#S256"
	case !b.present && bound == BoundRequire:
		return MissingClaim, "cnf is absent, and bound_tokens of its issuer is require"
	}
	return "", ""
}

// holds checks that the sender of a request has proved the certificate that the token is bound to.
// The chain must verify, whether or not the route lists cert. It is called for each request, also
// for tokens from the cache.
func (b *bearer) holds(r *Request, e *verified) error {
	if e.bound == nil {
		return nil
	}
	trust, chain, _, err := certificateOf(b.certificates, r)
	if err == nil {
		var holder *identity.Principal
		var sum *[32]byte
		if holder, sum, err = trust.Holder(chain); err == nil && subtle.ConstantTimeCompare(sum[:], e.bound[:]) == 1 {
			if refused := b.revoked.Load().refusal(holder); refused != nil {
				return refused
			}
			return nil
		}
	}
	var cause string
	switch {
	case errors.Is(err, ErrNoCredential):
		cause = "cnf binds the token to a certificate, and the client has none"
	case err != nil:
		cause = "cnf binds the token to a certificate, and that of the client does not verify: " + setting.Shortened(err.Error(), 2*shownName)
	default:
		cause = "cnf binds the token to another certificate than that of the client"
	}
	return &Error{Reason: TokenBound, Issuer: e.principal.Source[len("issuer/"):], KeyID: e.principal.KeyID, Err: ofToken(cause, e.principal.Claim)}
}
