package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"math/big"
)

// verify reports whether signature is a valid signature of signed by this key with this
// algorithm (RFC 7518, sections 3.3 to 3.5, and RFC 8037, section 3.1). It is false if
// the algorithm needs another type of key. buf receives the hash.
func (k *key) verify(alg string, signed, signature []byte, buf *[64]byte) bool {
	hash, curve := parts(alg)
	digest := buf[:0]
	switch hash {
	case crypto.SHA256:
		sum := sha256.Sum256(signed)
		digest = append(digest, sum[:]...)
	case crypto.SHA384:
		sum := sha512.Sum384(signed)
		digest = append(digest, sum[:]...)
	case crypto.SHA512:
		sum := sha512.Sum512(signed)
		digest = append(digest, sum[:]...)
	}
	switch public := k.public.(type) {
	case *rsaKey:
		switch alg {
		case "RS256", "RS384", "RS512":
			return public.verifyPKCS1(hash, digest, signature)
		case "PS256", "PS384", "PS512":
			return rsa.VerifyPSS(public.PublicKey, hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
	case *ecdsa.PublicKey:
		size := (public.Curve.Params().BitSize + 7) / 8
		if curve != public.Curve.Params().Name || len(signature) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
		return ecdsa.Verify(public, digest, r, s)
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(public, signed, signature)
	}
	return false
}

// parts returns the hash of an algorithm, 0 for EdDSA, and the curve of an ECDSA
// algorithm (RFC 7518, section 3.4).
func parts(alg string) (hash crypto.Hash, curve string) {
	switch alg {
	case "RS256", "PS256":
		return crypto.SHA256, ""
	case "RS384", "PS384":
		return crypto.SHA384, ""
	case "RS512", "PS512":
		return crypto.SHA512, ""
	case "ES256":
		return crypto.SHA256, "P-256"
	case "ES384":
		return crypto.SHA384, "P-384"
	case "ES512":
		return crypto.SHA512, "P-521"
	}
	return 0, ""
}
