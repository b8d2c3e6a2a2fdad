package authtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512 for hashes
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// Key is a key pair of an issuer. The algorithm need not fit the key: [Key.Sign] writes
// it into the header unchecked.
type Key struct {
	ID        string // kid; "" for none
	Algorithm string // alg, such as RS256
	Private   crypto.Signer
}

// NewKey returns a Key.
func NewKey(id, algorithm string, private crypto.Signer) Key { return Key{id, algorithm, private} }

// RSA, OtherRSA and SmallRSA return keys that all tests of a process share, since
// generating one is slow. The small one has 1024 bits, the others 2048.
var (
	RSA      = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	OtherRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	SmallRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
)

// EC generates a key on a curve.
func EC(curve elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(curve, rand.Reader)) }

// Ed25519 generates an Ed25519 key.
func Ed25519() ed25519.PrivateKey {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return must(private, err)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Base64 returns b in unpadded base64url, the encoding of tokens.
func Base64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// JWK returns the public half as a JSON Web Key. more are further members, such as
// `"use":"sig"`.
func (k Key) JWK(more ...string) string {
	var m []string
	switch public := k.Private.Public().(type) {
	case *rsa.PublicKey:
		m = append(m, fmt.Sprintf(`"kty":"RSA","n":"%s","e":"%s"`, Base64(public.N.Bytes()), Base64(big.NewInt(int64(public.E)).Bytes())))
	case *ecdsa.PublicKey:
		point := must(public.Bytes()) // 4, x, y
		n := (len(point) - 1) / 2
		m = append(m, fmt.Sprintf(`"kty":"EC","crv":"%s","x":"%s","y":"%s"`, public.Curve.Params().Name, Base64(point[1:1+n]), Base64(point[1+n:])))
	case ed25519.PublicKey:
		m = append(m, fmt.Sprintf(`"kty":"OKP","crv":"Ed25519","x":"%s"`, Base64(public)))
	}
	if k.ID != "" {
		m = append(m, fmt.Sprintf(`"kid":%q`, k.ID))
	}
	return "{" + strings.Join(append(m, more...), ",") + "}"
}

// KeySet returns a JSON Web Key Set of keys, as [Key.JWK] writes them.
func KeySet(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// Header returns the usual header of the key's tokens.
func (k Key) Header() string {
	return fmt.Sprintf(`{"alg":"%s","kid":"%s","typ":"JWT"}`, k.Algorithm, k.ID)
}

// Token signs claims, in JSON, with the usual header.
func (k Key) Token(claims string) string { return k.Sign(k.Header(), claims) }

// Sign signs header and claims as given, without checking them.
func (k Key) Sign(header, claims string) string {
	text := Base64([]byte(header)) + "." + Base64([]byte(claims))
	return text + "." + Base64(Signature(k.Algorithm, k.Private, text))
}

// HS256 returns a token with a MAC under the given secret.
func HS256(header, claims string, secret []byte) string {
	text := Base64([]byte(header)) + "." + Base64([]byte(claims))
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(text))
	return text + "." + Base64(m.Sum(nil))
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// Signature returns the signature of a text. The key must fit the algorithm.
func Signature(algorithm string, key crypto.Signer, text string) []byte {
	h := hashes[algorithm[2:]]
	var sum []byte
	if h != 0 {
		d := h.New()
		d.Write([]byte(text))
		sum = d.Sum(nil)
	}
	switch private := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(algorithm, "PS") {
			return must(rsa.SignPSS(rand.Reader, private, h, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(rand.Reader, private, h, sum))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, sum)
		must(r, err)
		n := (private.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
	case ed25519.PrivateKey:
		return ed25519.Sign(private, []byte(text))
	}
	panic("unsupported type of key")
}

// Claims returns the claims of a valid token of an issuer, for alice and the audience
// "models", that expires in an hour. changes replace or add claims; nil removes one.
func Claims(issuer string, now time.Time, changes map[string]any) string {
	all := map[string]any{
		"iss": issuer, "sub": "alice", "aud": "models", "scope": "models.predict models.read",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for name, value := range changes {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return string(must(json.Marshal(all)))
}
