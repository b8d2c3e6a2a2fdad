package auth

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // the hashes of RS384 and RS512
	"math/big"
	"testing"
)

// rsaKeys are keys whose bit length is and is not a multiple of 8, and one with the
// smallest exponent.
func rsaKeys(t *testing.T) []*rsa.PrivateKey {
	t.Helper()
	var keys []*rsa.PrivateKey
	for _, bits := range []int{2048, 2050, 3072} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return append(keys, leastExponent(t))
}

// leastExponent is a key of 2048 bits with the exponent 3, which crypto/rsa does not generate.
func leastExponent(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	three, one := big.NewInt(3), big.NewInt(1)
	prime := func() *big.Int {
		for {
			p, err := rand.Prime(rand.Reader, 1024)
			if err != nil {
				t.Fatal(err)
			}
			if new(big.Int).Mod(new(big.Int).Sub(p, one), three).Sign() != 0 {
				return p
			}
		}
	}
	p, q := prime(), prime()
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	return &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 3},
		D:         new(big.Int).ModInverse(three, phi),
		Primes:    []*big.Int{p, q},
	}
}

// raw returns the signature of any encoding, valid or not: encoded^d mod n.
func raw(k *rsa.PrivateKey, encoded []byte) []byte {
	s := new(big.Int).Exp(new(big.Int).SetBytes(encoded), k.D, k.N)
	return s.FillBytes(make([]byte, k.Size()))
}

// TestPKCS1AgreesWithCryptoRSA checks valid signatures and signatures of encodings that a
// lax parser would accept. The prepared key, like crypto/rsa, accepts only the valid ones.
func TestPKCS1AgreesWithCryptoRSA(t *testing.T) {
	for _, private := range rsaKeys(t) {
		prepared, err := newRSAKey(&private.PublicKey)
		if err != nil || prepared.modulus == nil {
			t.Fatalf("not prepared: %v", err)
		}
		size := private.Size()
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			h := hash.New()
			h.Write([]byte("signed"))
			digest := h.Sum(nil)
			good := appendPKCS1(nil, size, hash, digest)
			if len(good) != size {
				t.Fatalf("an encoding of %d bytes for a key of %d", len(good), size)
			}
			info := digestInfo(hash)
			tail := string(digest)
			wrong := map[string][]byte{
				"the digest of another text":              appendPKCS1(nil, size, hash, sha256.New().Sum(nil)),
				"padding of one byte, rubbish at the end": padded(size, 1, info+tail),
				"padding of eight bytes, rubbish":         padded(size, 8, info+tail),
				"block type 2":                            replaced(good, 1, 2),
				"first byte 1":                            replaced(good, 0, 1),
				"padding with a zero":                     replaced(good, 10, 0),
				"padding with fe":                         replaced(good, 10, 0xfe),
				"no zero after the padding":               replaced(good, size-len(info)-len(digest)-1, 0xff),
				"no NULL in the algorithm":                padded(size, size-3-len(info)+2-len(digest), shorter(info)+tail),
				"no DigestInfo":                           padded(size, size-3-len(digest), tail),
				"another hash's DigestInfo":               replaced(good, size-len(digest)-5, good[size-len(digest)-5]+1),
			}
			signature := raw(private, good)
			bigger := new(big.Int).Add(new(big.Int).SetBytes(signature), private.N).Bytes()
			tries := map[string][]byte{
				"true": signature, "cut short": signature[1:], "longer": append([]byte{0}, signature...),
				"plus n": bigger, "n": private.N.Bytes(), "0": make([]byte, size), "none": nil,
				"1": append(make([]byte, size-1), 1), "n-1": new(big.Int).Sub(private.N, big.NewInt(1)).Bytes(),
				"the encoding itself": good, "ff": bytes.Repeat([]byte{0xff}, size),
			}
			for name, encoded := range wrong {
				tries[name] = raw(private, encoded)
			}
			for name, s := range tries {
				ours := prepared.verifyPKCS1(hash, digest, s)
				theirs := rsa.VerifyPKCS1v15(&private.PublicKey, hash, digest, s) == nil
				if ours != theirs || ours != (name == "true") {
					t.Errorf("%d bits, e %d, %v, %s: we say %v, crypto/rsa %v", private.N.BitLen(), private.E, hash, name, ours, theirs)
				}
			}
		}
	}
}

// padded returns 00 01, n bytes of padding, 00, the given bytes, and garbage up to size.
func padded(size, n int, said string) []byte {
	b := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, n)...)
	b = append(append(b, 0), said...)
	return append(b, bytes.Repeat([]byte{0xa5}, max(0, size-len(b)))...)[:size]
}

func replaced(b []byte, at int, by byte) []byte {
	b = bytes.Clone(b)
	b[at] = by
	return b
}

// shorter returns a DigestInfo without the NULL of the algorithm's parameters.
func shorter(info string) string {
	b := []byte(info[:len(info)-4] + info[len(info)-2:])
	b[1] -= 2
	b[3] -= 2
	return string(b)
}
