package auth

import (
	"errors"
	"slices"
	"strings"

	"sallyport/auth/httpsig"
)

// The reasons of an [Error], a closed set. Until the signature of a token was verified,
// every fault in it is bad_credential: whoever sent it has proved nothing and learns
// nothing.
const (
	NoCredential       = "no_credential"       // 401: none was sent
	UnlistedCredential = "unlisted_credential" // 401: of a kind that the route does not list
	BadCredential      = "bad_credential"      // 401: malformed, forged, or of an unknown issuer or key
	TokenExpired       = "token_expired"       // 401
	TokenNotYetValid   = "token_not_yet_valid" // 401
	WrongAudience      = "wrong_audience"      // 401
	MissingClaim       = "missing_claim"       // 401: a claim that is required is absent or has another value
	TokenTooLong       = "token_lifetime"      // 401: it was issued for longer than max_lifetime
	TokenBound         = "token_bound"         // 401: bound to a key, of which a bearer proves nothing
	IssuerUnavailable  = "issuer_unavailable"  // 503: could not be checked
	TooManyFailures    = "too_many_failures"   // 429: of this client address
	ProofsDiffer       = "proofs_differ"       // 401: two proofs of different callers, where they must be of one
	SignatureMissing   = string(httpsig.Missing)
)

// signatureCodes are the reasons of package httpsig that a chain may give. An unknown
// key is not one of them: the client sees a bad signature.
func signatureCodes() []httpsig.Code {
	return []httpsig.Code{
		httpsig.Missing, httpsig.Malformed, httpsig.Stale, httpsig.Future, httpsig.Coverage, httpsig.WrongAuthority, httpsig.BadSignature,
	}
}

// Reasons lists all of them.
func Reasons() []string {
	all := []string{
		NoCredential, UnlistedCredential, BadCredential, TokenExpired, TokenNotYetValid, WrongAudience,
		MissingClaim, TokenTooLong, TokenBound, IssuerUnavailable, TooManyFailures, ProofsDiffer,
	}
	for _, c := range signatureCodes() {
		all = append(all, string(c))
	}
	return all
}

// Error says why a request proves no caller.
type Error struct {
	Reason string // one of the constants above
	// Issuer is the configured name of the issuer of a token whose signature was
	// verified; "" if none was.
	Issuer string
	// KeyID names the key of the verified signature; "" if none was verified.
	KeyID string
	Err   error // the cause, for the audit record only; may be nil
}

// Error is the reason and its cause. It never holds a token, and is not for clients.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Status is the HTTP status that fits the reason.
func (e *Error) Status() int {
	switch e.Reason {
	case IssuerUnavailable:
		return 503
	case TooManyFailures:
		return 429
	case string(httpsig.WrongAuthority):
		return 421
	}
	return 401
}

// Text is the reason in words for the client: fixed, and as specific as the
// caller's proof allows.
func (e *Error) Text() string {
	switch e.Reason {
	case NoCredential:
		return "a credential is required"
	case UnlistedCredential:
		return "this kind of credential is not accepted here"
	case TokenExpired:
		return "the token has expired"
	case TokenNotYetValid:
		return "the token is not valid yet"
	case WrongAudience:
		return "the token is meant for another audience"
	case MissingClaim:
		return "the token lacks a required claim"
	case TokenTooLong:
		return "the token was issued for too long a time"
	case TokenBound:
		return "the token is bound to a key and cannot be used as a bearer token"
	case IssuerUnavailable:
		return "the token could not be checked; try again"
	case TooManyFailures:
		return "too many failed attempts from this address; try again later"
	case ProofsDiffer:
		return "the token and the signature are not of the same caller"
	}
	if text := httpsig.Code(e.Reason).Text(); text != "" {
		return text
	}
	return "the token is not valid"
}

// asError makes an Error of whatever an authenticator returned.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Reason: BadCredential, Err: err}
}

// aboutSignature reports whether the error is about a signature, and not about a token.
func (e *Error) aboutSignature() bool {
	return e.Reason == ProofsDiffer || slices.Contains(signatureCodes(), httpsig.Code(e.Reason))
}

// InsufficientScope is the value of WWW-Authenticate for a caller who is known
// and may not do this (RFC 6750, section 3.1): with the scopes that would do,
// where the policy knows them.
func InsufficientScope(realm string, scopes []string) string {
	v := "Bearer realm=" + quoted(realm) + `, error="insufficient_scope"`
	if len(scopes) > 0 {
		v += ", scope=" + quoted(strings.Join(scopes, " "))
	}
	return v
}

// quoted writes s as a quoted string of visible ASCII; other bytes are dropped.
func quoted(s string) string {
	b := []byte{'"'}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ' && c < 0x7f:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
