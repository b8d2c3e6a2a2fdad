package httpsig

// Code says which case a refused signature or digest is. The zero Code is none.
type Code string

// The codes. The other side may see all of them, by their Text, but [UnknownKey].
const (
	Missing        Code = "signature_missing"
	Malformed      Code = "malformed"
	Stale          Code = "stale"
	Future         Code = "future"
	Coverage       Code = "coverage"
	WrongAuthority Code = "authority"
	UnknownKey     Code = "unknown_key" // for logs alone, see Code.Public
	BadSignature   Code = "bad_signature"
	Unbound        Code = "unbound"
	Replayed       Code = "replayed"
	DigestMissing  Code = "digest_missing"
	DigestMismatch Code = "digest_mismatch"
)

// Public is the code that the other side may learn: that of an unknown key is
// that of a bad signature, so that no answer tells which keys exist.
func (c Code) Public() Code {
	if c == UnknownKey {
		return BadSignature
	}
	return c
}

// Text is the one fixed text of a code, fit for the other side once the code is
// Public. It is empty for the zero Code.
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

// Error is a refused signature or digest. Detail is for logs: it may quote the
// message, never a secret or a computed signature.
type Error struct {
	Code   Code
	Detail string
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code.Text()
	}
	return e.Code.Text() + ": " + e.Detail
}

func fault(c Code, detail string) *Error { return &Error{Code: c, Detail: detail} }
