package auth

import (
	"errors"
	"slices"
	"strings"

	"sallyport/auth/clientcert"
	"sallyport/auth/httpsig"
	"sallyport/auth/login"
)

// The reasons of an [Error] are a closed set. A JWT without a valid signature is always
// refused with bad_credential, so that a forger learns nothing about its other faults.
const (
	NoCredential       = "no_credential"       // 401: the request has no credential
	UnlistedCredential = "unlisted_credential" // 401: the route does not list this kind of credential
	BadCredential      = "bad_credential"      // 401: malformed, forged, or of an unknown issuer or key
	TokenExpired       = "token_expired"       // 401
	TokenNotYetValid   = "token_not_yet_valid" // 401
	WrongAudience      = "wrong_audience"      // 401
	MissingClaim       = "missing_claim"       // 401: a required claim is absent or has another value
	TokenTooLong       = "token_lifetime"      // 401: the lifetime of the token exceeds max_lifetime
	TokenInactive      = "token_inactive"      // 401: the issuer says that the token is not active
	TokenBound         = "token_bound"         // 401: the token is bound to a key, which the request does not prove
	StepUpNeeded       = "step_up"             // 401: the caller proved themselves by other means than demanded, or too long ago
	IssuerUnavailable  = "issuer_unavailable"  // 503: the issuer's keys, or its answer about the token, are unavailable
	TooManyFailures    = "too_many_failures"   // 429: too many failed checks from this client address
	ProofsDiffer       = "proofs_differ"       // 401: two credentials of different callers must be of one
	APIKeyUnknown      = "api_key_unknown"     // 401: no key of a caller that the route lists
	APIKeyExpired      = "api_key_expired"     // 401
	BasicUnknown       = "basic_unknown"       // 401: no user has this name and password
	BasicEnded         = "basic_ended"         // 401: passwords count no longer
	BasicBusy          = "basic_busy"          // 503: too many passwords are being checked
	CredentialRevoked  = "revoked"             // 401: listed in the file of revocations
	BadSession         = login.BadSession      // 401: the cookie is not a session of this host and login
	SessionExpired     = login.SessionExpired  // 401
	SessionEnded       = login.SessionEnded    // 401: by sign-out, or by the issuer
	SignatureMissing   = string(httpsig.Missing)

	CertificateMissing           = clientcert.Missing           // 401
	CertificateUnknownCA         = clientcert.UnknownCA         // 401
	CertificateExpired           = clientcert.Expired           // 401
	CertificateNotYetValid       = clientcert.NotYetValid       // 401
	CertificateWrongUsage        = clientcert.WrongUsage        // 401
	CertificateRevoked           = clientcert.Revoked           // 401
	CertificateRevocationUnknown = clientcert.RevocationUnknown // 401
	CertificateName              = clientcert.Name              // 401
	CertificateChain             = clientcert.Chain             // 401
)

// signatureCodes are the codes of package httpsig that may be reasons. UnknownKey is
// not among them: the client sees BadSignature.
func signatureCodes() []httpsig.Code {
	return []httpsig.Code{
		httpsig.Missing, httpsig.Malformed, httpsig.Stale, httpsig.Future, httpsig.Coverage, httpsig.WrongAuthority, httpsig.BadSignature,
		httpsig.KeyExpired, httpsig.KeyNotYetValid,
	}
}

// Reasons returns all reasons of an [Error].
func Reasons() []string {
	all := []string{
		NoCredential, UnlistedCredential, BadCredential, TokenExpired, TokenNotYetValid, WrongAudience,
		MissingClaim, TokenTooLong, TokenInactive, TokenBound, StepUpNeeded, IssuerUnavailable, TooManyFailures, ProofsDiffer,
		APIKeyUnknown, APIKeyExpired, BasicUnknown, BasicEnded, BasicBusy, CredentialRevoked,
	}
	all = append(all, certificateReasons()...)
	all = append(all, login.SessionReasons()...)
	for _, c := range signatureCodes() {
		all = append(all, string(c))
	}
	return all
}

// Error is a refusal to authenticate a request.
type Error struct {
	Reason string // one of the constants above
	// Issuer is the configured name of the issuer of a token whose signature was
	// verified; "" if none was.
	Issuer string
	// KeyID names the key of the verified signature; "" if none was verified.
	KeyID string
	Err   error // the cause, for the audit record only; may be nil
}

// Error returns the reason and its cause, for logs only. It never contains a token.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Status returns the HTTP status for the reason.
func (e *Error) Status() int {
	switch e.Reason {
	case IssuerUnavailable, BasicBusy:
		return 503
	case TooManyFailures:
		return 429
	case string(httpsig.WrongAuthority):
		return 421
	}
	return 401
}

// Text returns the fixed text of the reason, for the client.
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
	case TokenInactive:
		return "the token has ended, was revoked, or is unknown"
	case TokenBound:
		return "the token is bound to a key that the request does not prove"
	case StepUpNeeded:
		return "a stronger or more recent authentication is required"
	case IssuerUnavailable:
		return "the token could not be checked; try again"
	case TooManyFailures:
		return "too many failed attempts from this address; try again later"
	case ProofsDiffer:
		return "the credentials are not of the same caller"
	case APIKeyUnknown:
		return "the API key is not valid"
	case APIKeyExpired:
		return "the API key has expired"
	case CertificateMissing:
		return "a client certificate is required"
	case CertificateUnknownCA:
		return "no accepted authority has issued the client certificate"
	case CertificateExpired:
		return "the client certificate has expired"
	case CertificateNotYetValid:
		return "the client certificate is not valid yet"
	case CertificateWrongUsage:
		return "the certificate is not for clients"
	case CertificateRevoked:
		return "the client certificate has been revoked"
	case CertificateRevocationUnknown:
		return "the gateway cannot tell whether the client certificate has been revoked"
	case CertificateName:
		return "the client certificate names no accepted caller"
	case CertificateChain:
		return "the chain of the client certificate is not acceptable"
	case BasicUnknown:
		return "the user name or password is not valid"
	case BasicEnded:
		return "passwords are no longer accepted here; use a token or a key"
	case BasicBusy:
		return "the password could not be checked; try again"
	case CredentialRevoked:
		return "the credential has been revoked"
	}
	if e.aboutSession() {
		return (&login.Error{Reason: e.Reason}).Text()
	}
	if text := httpsig.Code(e.Reason).Text(); text != "" {
		return text
	}
	return "the token is not valid"
}

// asError returns the [*Error] in err, or wraps err in one with [BadCredential].
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Reason: BadCredential, Err: err}
}

// aboutPassword reports whether the error concerns a password rather than a token.
func (e *Error) aboutPassword() bool {
	return e.Reason == BasicUnknown || e.Reason == BasicEnded || e.Reason == BasicBusy
}

// aboutSession reports whether the error concerns the session of a login rather than a token.
func (e *Error) aboutSession() bool { return slices.Contains(login.SessionReasons(), e.Reason) }

// aboutSignature reports whether the error concerns a signature rather than a token.
func (e *Error) aboutSignature() bool {
	return e.Reason == ProofsDiffer || slices.Contains(signatureCodes(), httpsig.Code(e.Reason))
}

// InsufficientScope returns the value of WWW-Authenticate for an authenticated caller
// who lacks a scope (RFC 6750, section 3.1). scopes are sufficient ones, if known.
func InsufficientScope(realm string, scopes []string) string {
	v := "Bearer realm=" + quoted(realm) + `, error="insufficient_scope"`
	if len(scopes) > 0 {
		v += ", scope=" + quoted(strings.Join(scopes, " "))
	}
	return v
}

// quoted returns s as a quoted string and drops all bytes but printable ASCII.
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
