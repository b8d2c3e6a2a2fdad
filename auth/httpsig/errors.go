package httpsig

// Code is the reason for refusing a signature or digest. The zero Code is no reason.
type Code string

// The codes. All of them except [UnknownKey] may be shown to the other side.
const (
	Missing        Code = "signature_missing"
	Malformed      Code = "malformed"
	Stale          Code = "stale"
	Future         Code = "future"
	Coverage       Code = "coverage"
	WrongAuthority Code = "authority"
	UnknownKey     Code = "unknown_key" // for logs only, see Code.Public
	BadSignature   Code = "bad_signature"
	KeyExpired     Code = "key_expired"       // only if the signature is right
	KeyNotYetValid Code = "key_not_yet_valid" // only if the signature is right
	Unbound        Code = "unbound"
	Replayed       Code = "replayed"
	DigestMissing  Code = "digest_missing"
	DigestMismatch Code = "digest_mismatch"
)

// Public returns the code for the other side. It maps [UnknownKey] to [BadSignature], so
// that no response reveals which keys exist.
func (c Code) Public() Code {
	if c == UnknownKey {
		return BadSignature
	}
	return c
}

// Text returns the fixed text of a code. The text of a Public code may be shown to the
// other side. It is empty for the zero Code.
func (c Code) Text() string {
	switch c {
	case Missing:
		return "no signature for this service was found"
	case Malformed:
		return "the signature cannot be read"
	case Stale:
		return "the signature is too old; compare the clocks"
	case Future:
		return "the signature is from the future; compare the clocks"
	case Coverage:
		return "the signature does not cover all that it must"
	case WrongAuthority:
		return "the signature is for another host"
	case UnknownKey:
		return "the key is unknown"
	case BadSignature:
		return "the signature does not match"
	case KeyExpired:
		return "the signing key has expired; use the new one"
	case KeyNotYetValid:
		return "the signing key is not valid yet"
	case Unbound:
		return "the signature does not belong to this request"
	case Replayed:
		return "the signature was used before; sign each attempt anew"
	case DigestMissing:
		return "the digest of the content is missing"
	case DigestMismatch:
		return "the content does not match its digest"
	}
	return ""
}

// Error reports a refused signature or digest. Detail is for logs: it may quote the
// message, but never a secret or a computed signature.
type Error struct {
	Code   Code
	Detail string
	KeyID  string // the key of a verified signature, if it may not be used now; otherwise ""
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code.Text()
	}
	return e.Code.Text() + ": " + e.Detail
}

func fault(c Code, detail string) *Error { return &Error{Code: c, Detail: detail} }
