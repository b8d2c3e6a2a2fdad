package httpsig

import (
	"crypto/sha256"
)

// Explanation is a verifier's view of one signature, not verified. It is for tools that
// explain why a signature does not match.
type Explanation struct {
	Label      string
	KeyID      string
	Parameters string // of Signature-Input, in their canonical form
	Base       string // signature base as the verifier computes it
	Signature  []byte // as sent
}

// Explain finds the one signature with a tag and computes its base. The error is
// nil or of type *[Error].
func Explain(m *Message, tag string) (Explanation, error) {
	var s selection
	if err := s.find(m.Fields, tag); err != nil {
		return Explanation{}, err
	}
	in := &s.inputs[s.ours]
	base, err := appendBase(nil, m, in)
	if err != nil {
		return Explanation{}, err
	}
	return Explanation{Label: in.label, KeyID: in.keyID, Parameters: string(in.text), Base: string(base), Signature: s.mac}, nil
}

// Signed reports whether a signature of a base by this key is valid. It is for tools; a
// [Verifier] checks more.
func (k *Key) Signed(base string, signature []byte) bool {
	if len(signature) != k.algorithm.size() || len(signature) == 0 {
		return false
	}
	return k.verify([]byte(base), signature, make([]byte, sha256.Size))
}
