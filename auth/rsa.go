package auth

import (
	"crypto"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/subtle"
	"math/big"

	"filippo.io/bigmod"
)

// rsaKey is an RSA public key whose Montgomery constants are computed once. crypto/rsa
// computes them for each signature, which is a third of the time to verify one.
type rsaKey struct {
	*rsa.PublicKey
	modulus *bigmod.Modulus // nil in FIPS 140 mode, where crypto/rsa must verify
}

// newRSAKey returns a key that is ready to verify. The modulus must be odd and the
// exponent from 3 to 1<<31-1.
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

// rocaPrimes are the odd primes up to 167. With these, one sound modulus in 2^27 looks weak.
var rocaPrimes = [...]uint64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
	97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

// weakInfineon reports whether a modulus has the form that Infineon's library gave to its
// keys until 2017 (ROCA, CVE-2017-15361): modulo each small prime it is a power of 65537.
// Such a modulus can be factored.
func weakInfineon(n *big.Int) bool {
	rest := new(big.Int)
	for _, p := range rocaPrimes {
		want := rest.Mod(n, new(big.Int).SetUint64(p)).Uint64()
		power := uint64(1)
		for power != want {
			if power = power * 65537 % p; power == 1 {
				return false
			}
		}
	}
	return true
}

// verifyPKCS1 reports whether signature is a valid RSASSA-PKCS1-v1_5 signature of a
// digest. It encodes the digest and compares the result with the whole decrypted
// signature (RFC 8017, section 8.2.2). It parses nothing that the signer wrote, which
// excludes Bleichenbacher's signature forgery.
func (k *rsaKey) verifyPKCS1(hash crypto.Hash, digest, signature []byte) bool {
	if k.modulus == nil {
		return rsa.VerifyPKCS1v15(k.PublicKey, hash, digest, signature) == nil
	}
	if len(signature) != k.Size() || digestInfo(hash) == "" {
		return false
	}
	s, err := bigmod.NewNat().SetBytes(signature, k.modulus) // fails if s >= n
	if err != nil {
		return false
	}
	encoded := bigmod.NewNat().ExpShortVarTime(s, uint(k.E), k.modulus).Bytes(k.modulus)
	var buf [maxRSABits / 8]byte
	want := appendPKCS1(buf[:0], k.Size(), hash, digest)
	return subtle.ConstantTimeCompare(encoded, want) == 1
}

// digestInfo returns the DER encoding of a DigestInfo up to the digest (RFC 8017, section
// 9.2, note 1), "" for an unsupported hash.
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

// appendPKCS1 appends the EMSA-PKCS1-v1_5 encoding of a digest for a key of size bytes
// (RFC 8017, section 9.2): 00 01 ff ... ff 00 DigestInfo. The smallest key, of 2048 bits,
// is long enough for every supported hash.
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
