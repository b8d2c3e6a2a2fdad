package httpsig

import (
	"crypto/sha256"
)

// Explanation is what a verifier sees of one signature: for tools that say why it
// does not match. Nothing of it has been verified.
type Explanation struct {
	Label      string
	KeyID      string
	Parameters string // of Signature-Input, in their canonical form
	Base       string // what the verifier computes
	Signature  []byte // what was sent
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

// Signed reports whether a signature is that of a base under this key. It is for
// tools; a [Verifier] does more.
func (k *Key) Signed(base string, signature []byte) bool {
	if len(signature) != k.algorithm.size() || len(signature) == 0 {
		return false
	}
	return k.verify([]byte(base), signature, make([]byte, sha256.Size))
}
