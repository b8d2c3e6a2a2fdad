package auth

import (
	"crypto"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/subtle"

	"filippo.io/bigmod"
)

// rsaKey is an RSA public key whose modulus is prepared once. crypto/rsa prepares it
// for each signature anew, which is a third of what checking one costs.
type rsaKey struct {
	*rsa.PublicKey
	modulus *bigmod.Modulus // nil: crypto/rsa checks, since Go's FIPS 140 module is switched on
}

// newRSAKey prepares a key whose modulus is odd and whose exponent is from 3 to 1<<31-1.
func newRSAKey(public *rsa.PublicKey) (*rsaKey, error) {
	k := &rsaKey{PublicKey: public}
	if fips140.Enabled() {
		return k, nil
	}
	modulus, err := bigmod.NewModulus(public.N.Bytes())
	if err != nil {
		return nil, err
	}
	k.modulus = modulus
	return k, nil
}

// verifyPKCS1 reports whether signature is one over a digest by RSASSA-PKCS1-v1_5. As
// RFC 8017, section 8.2.2, has it, the one right encoding of the digest is made and compared
// whole with what the signature holds: nothing that the signer wrote is parsed.
func (k *rsaKey) verifyPKCS1(hash crypto.Hash, digest, signature []byte) bool {
	if k.modulus == nil {
		return rsa.VerifyPKCS1v15(k.PublicKey, hash, digest, signature) == nil
	}
	if len(signature) != k.Size() || digestInfo(hash) == "" {
		return false
	}
	s, err := bigmod.NewNat().SetBytes(signature, k.modulus) // an error for s >= n
	if err != nil {
		return false
	}
	encoded := bigmod.NewNat().ExpShortVarTime(s, uint(k.E), k.modulus).Bytes(k.modulus)
	var room [maxRSABits / 8]byte
	want := appendPKCS1(room[:0], k.Size(), hash, digest)
	return subtle.ConstantTimeCompare(encoded, want) == 1
}

// digestInfo is the DER of a DigestInfo up to the digest (RFC 8017, section 9.2, note 1),
// "" for a hash of none of our algorithms.
func digestInfo(hash crypto.Hash) string {
	switch hash {
	case crypto.SHA256:
		return "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
	case crypto.SHA384:
		return "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
	case crypto.SHA512:
		return "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
	}
	return ""
}

// appendPKCS1 appends the encoding of a digest for a key of size bytes, EMSA-PKCS1-v1_5
// of RFC 8017, section 9.2: 00 01 ff ... ff 00 DigestInfo. A key of 2048 bits has room
// for each of our hashes.
func appendPKCS1(b []byte, size int, hash crypto.Hash, digest []byte) []byte {
	info := digestInfo(hash)
	b = append(b, 0, 1)
	for range size - 3 - len(info) - len(digest) {
		b = append(b, 0xff)
	}
	b = append(b, 0)
	b = append(b, info...)
	return append(b, digest...)
}
