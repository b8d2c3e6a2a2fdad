package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/proxy/setting"
)

const (
	maxKeys    = 100  // of a key set
	minRSABits = 2048 // RFC 7518, section 3.3
	maxRSABits = 8192 // a larger key would make verifying too slow: denial of service
)

// key is one public key of an issuer.
type key struct {
	id         string // its kid, "" if it has none
	thumbprint [32]byte
	public     crypto.PublicKey // *rsaKey, *ecdsa.PublicKey or ed25519.PublicKey
	algorithms []string         // that the key may be used with
	issuer     string           // whose tokens it signs, if the set says so; see keepOwn

	// withdrawn is set once the issuer no longer publishes the key, and never cleared.
	withdrawn atomic.Bool
}

// name returns the key's name for the audit record: its kid, or its thumbprint.
func (k *key) name() string {
	if k.id != "" {
		return k.id
	}
	return base64.RawURLEncoding.EncodeToString(k.thumbprint[:])
}

// same reports whether keys of two fetches are the same key with the same algorithms.
func (k *key) same(o *key) bool {
	return k.id == o.id && k.thumbprint == o.thumbprint && k.issuer == o.issuer && slices.Equal(k.algorithms, o.algorithms)
}

// keys is the key set that an issuer published at one time.
type keys struct {
	list    []*key
	skipped []string  // the keys that cannot be used, each with the reason
	fetched time.Time // when their fetch began
}

// maxTries is how many keys are tried for a token that names none. An issuer that changes its
// key publishes two for a while.
const maxTries = 4

// tries are the keys of which one may have signed a token.
type tries struct {
	keys [maxTries]*key
	n    int
}

// signer returns the key that has signed a token, nil if none has.
func (t *tries) signer(token *token) *key {
	for _, k := range t.keys[:t.n] {
		if k.verify(token.alg, token.signed, token.signature, &token.digest) {
			return k
		}
	}
	return nil
}

// inWords names the keys.
func (t *tries) inWords() string {
	var names []string
	for _, k := range t.keys[:t.n] {
		names = append(names, setting.Quoted(k.name(), shownID))
	}
	if t.n == 1 {
		return "key " + names[0]
	}
	return "any of the keys " + strings.Join(names, ", ")
}

// find returns the only key that has the kid and allows the algorithm of a token. For a token
// without kid it returns all keys that allow the algorithm, up to maxTries. named reports
// whether some key has the kid. If more keys match, find fails rather than guess.
func (s *keys) find(kid, alg string) (found tries, named bool, err error) {
	most := 1
	if kid == "" {
		most = maxTries
	}
	for _, c := range s.list {
		if kid != "" && c.id != kid {
			continue
		}
		named = true
		if !slices.Contains(c.algorithms, alg) {
			continue
		}
		if found.n == most {
			return tries{}, true, errAmbiguousKey
		}
		found.keys[found.n] = c
		found.n++
	}
	if found.n == 0 {
		return found, named, errUnknownKey
	}
	return found, true, nil
}

var (
	errUnknownKey   = errors.New("the issuer has no key with this kid and algorithm")
	errAmbiguousKey = errors.New("too many keys of the issuer match: it must publish them with different kid or alg")
)

// jwkSet is a JSON Web Key Set (RFC 7517, section 5).
type jwkSet struct {
	Keys []jsontext.Value `json:"keys"`
}

// jwk holds the used members of a JSON Web Key.
type jwk struct {
	Kty    string         `json:"kty"`
	Kid    string         `json:"kid"`
	Use    *string        `json:"use"`
	KeyOps []string       `json:"key_ops"`
	Alg    string         `json:"alg"`
	Crv    string         `json:"crv"`
	N      string         `json:"n"`
	E      string         `json:"e"`
	X      string         `json:"x"`
	Y      string         `json:"y"`
	D      jsontext.Value `json:"d"`
	Issuer jsontext.Value `json:"issuer"` // of Entra; a string
}

// readKeys reads the keys that can verify signatures and skips the others (RFC 7517,
// section 5). It refuses a set without a usable key: that is more likely a fault of the
// server than a withdrawal of all keys. The error is a fixed text or a [noKeyError].
func readKeys(set *jwkSet, fetched time.Time) (*keys, error) {
	if len(set.Keys) > maxKeys {
		return nil, errors.New("too many keys")
	}
	out := &keys{fetched: fetched}
	for i, text := range set.Keys {
		k, kid, err := readKey(text)
		if err != nil {
			out.skip(i, kid, err)
			continue
		}
		if !slices.ContainsFunc(out.list, k.same) {
			out.list = append(out.list, k)
		}
	}
	if len(out.list) == 0 {
		return nil, noKeyError(out.skipped)
	}
	return out, nil
}

// noKeyError means that none of the keys of a set can be used. It says why, key by key.
type noKeyError []string

func (e noKeyError) Error() string { return strings.Join(e, "; ") }

// mostSkipped is how many skipped keys of a set are named.
const mostSkipped = 8

// skip records why a key cannot be used. It names the key by its kid or, without one, by its
// place in the set.
func (s *keys) skip(i int, kid string, why error) {
	name := "kid " + kid
	switch {
	case kid == "":
		name = fmt.Sprintf("key %d, without kid,", i+1)
	case len(kid) > shownID || strings.ContainsFunc(kid, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' }):
		name = "kid " + setting.Quoted(kid, shownID)
	}
	switch {
	case len(s.skipped) < mostSkipped:
		s.skipped = append(s.skipped, name+" skipped: "+why.Error())
	case len(s.skipped) == mostSkipped:
		s.skipped = append(s.skipped, "and more")
	}
}

// readKey reads one key. kid is its id as written, also with an error.
func readKey(text []byte) (k *key, kid string, err error) {
	var j jwk
	if json.Unmarshal(text, &j) != nil {
		return nil, j.Kid, errors.New("not a JSON Web Key: a member has the wrong type, or stands there twice")
	}
	k, err = j.key()
	return k, j.Kid, err
}

// key returns the key that can verify signatures.
func (j *jwk) key() (*key, error) {
	switch {
	case j.Use != nil && *j.Use != "sig":
		return nil, errors.New("its use is not sig")
	case j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify"):
		return nil, errors.New("key_ops does not contain verify")
	case j.D != nil:
		return nil, errors.New("a published private key: anyone can sign with it")
	case len(j.Kid) > maxKeyID:
		return nil, errors.New("kid is too long")
	}
	k := &key{id: j.Kid}
	if j.Issuer != nil && json.Unmarshal(j.Issuer, &k.issuer) != nil {
		return nil, errors.New("its issuer is not a string")
	}
	var canonical string // RFC 7638, section 3.2
	var err error
	switch j.Kty {
	case "RSA":
		canonical, err = k.readRSA(j)
	case "EC":
		canonical, err = k.readEC(j)
	case "OKP":
		canonical, err = k.readOKP(j)
	default:
		err = errors.New("its kty is unknown")
	}
	if err != nil {
		return nil, err
	}
	k.thumbprint = sha256.Sum256([]byte(canonical))
	if j.Alg != "" {
		alg := j.Alg
		if alg == "Ed25519" { // the name since RFC 9864
			alg = "EdDSA"
		}
		if !slices.Contains(k.algorithms, alg) {
			return nil, errors.New("its alg is not one of a signature, or does not fit the key")
		}
		k.algorithms = []string{alg}
	}
	return k, nil
}

func (k *key) readRSA(j *jwk) (string, error) {
	nb, err := base64.RawURLEncoding.DecodeString(j.N)
	if err != nil || len(nb) > maxRSABits/8+1 {
		return "", errors.New("n is not an RSA modulus")
	}
	eb, err := base64.RawURLEncoding.DecodeString(j.E)
	if err != nil {
		return "", errors.New("e is not an RSA exponent")
	}
	eb = bytes.TrimLeft(eb, "\x00")
	n, e := new(big.Int).SetBytes(nb), new(big.Int).SetBytes(eb)
	if n.BitLen() < minRSABits || n.BitLen() > maxRSABits || n.Bit(0) == 0 {
		return "", fmt.Errorf("n has %d bits or is even; taken are odd ones of %d to %d", n.BitLen(), minRSABits, maxRSABits)
	}
	if weakInfineon(n) {
		return "", errors.New("n can be factored: CVE-2017-15361")
	}
	if len(eb) > 4 || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
		return "", errors.New("e out of bounds")
	}
	k.public, err = newRSAKey(&rsa.PublicKey{N: n, E: int(e.Int64())})
	if err != nil {
		return "", errors.New("n is not an RSA modulus")
	}
	k.algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	enc := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, enc(eb), enc(n.Bytes())), nil
}

func (k *key) readEC(j *jwk) (string, error) {
	var curve elliptic.Curve
	var alg string
	switch j.Crv {
	case "P-256":
		curve, alg = elliptic.P256(), "ES256"
	case "P-384":
		curve, alg = elliptic.P384(), "ES384"
	case "P-521":
		curve, alg = elliptic.P521(), "ES512"
	default:
		return "", errors.New("its crv is unknown")
	}
	size := (curve.Params().BitSize + 7) / 8
	x, errX := base64.RawURLEncoding.DecodeString(j.X)
	y, errY := base64.RawURLEncoding.DecodeString(j.Y)
	if errX != nil || errY != nil || len(x) != size || len(y) != size {
		return "", errors.New("EC coordinates of the wrong length")
	}
	p, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return "", errors.New("EC point not on the curve")
	}
	k.public, k.algorithms = p, []string{alg}
	enc := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, j.Crv, enc(x), enc(y)), nil
}

func (k *key) readOKP(j *jwk) (string, error) {
	x, err := base64.RawURLEncoding.DecodeString(j.X)
	if j.Crv != "Ed25519" || err != nil || len(x) != ed25519.PublicKeySize {
		return "", errors.New("not an Ed25519 key, the only kind of OKP that is taken")
	}
	k.public, k.algorithms = ed25519.PublicKey(x), []string{"EdDSA"}
	return fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, base64.RawURLEncoding.EncodeToString(x)), nil
}
