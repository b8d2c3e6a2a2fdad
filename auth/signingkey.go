package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// SigningKeyConfig is one entry of `signing_keys`, by its keyid.
type SigningKeyConfig struct {
	// Principal is the caller that signatures by the key prove. Routes list it as
	// key/NAME; rules and audit records write key:NAME. Several keys may share one.
	Principal string `yaml:"principal"`
	// Alg is the key's algorithm: hmac-sha256 for a secret, ed25519 for the others.
	// Default: the one that fits the key.
	Alg string `yaml:"alg"`
	// Secret is shared by both sides: standard base64 of at least 32 bytes.
	Secret setting.Secret `yaml:"secret"`
	// PublicKey is a PEM file with the other side's Ed25519 public key. It can verify
	// and cannot sign.
	PublicKey setting.Path `yaml:"public_key"`
	// PrivateKey is the gateway's own Ed25519 key, PKCS #8 in PEM; for sign_assertion also a P-256 key.
	PrivateKey setting.Secret `yaml:"private_key"`
	// Use lists the uses of the key: verify_request and sign_response with clients,
	// sign_request and verify_response with upstreams; or sign_assertion alone, for the
	// tokens that tell upstreams who calls. Default for a key with a
	// principal: verify_request, and sign_response unless it is a public key.
	Use setting.List[string] `yaml:"use"`
	// NotBefore is when the key becomes valid. Default: at once.
	NotBefore setting.Time `yaml:"not_before"`
	// NotAfter is when the key stops being valid. Default: never.
	NotAfter setting.Time `yaml:"not_after"`
	// RequireNonce refuses signatures without a nonce. Without nonces, the gateway
	// refuses identical requests of one second as replays. Default: true.
	RequireNonce *bool `yaml:"require_nonce"`
}

// Uses of a signing key.
const (
	VerifyRequest  = "verify_request"
	SignResponse   = "sign_response"
	SignRequest    = "sign_request"
	VerifyResponse = "verify_response"
	SignAssertion  = "sign_assertion"
)

func keyUses() []string {
	return []string{VerifyRequest, SignResponse, SignRequest, VerifyResponse, SignAssertion}
}

// Uses returns Use, or its default.
func (c *SigningKeyConfig) Uses() []string {
	switch {
	case len(c.Use) > 0:
		return c.Use
	case c.Principal == "":
		return nil
	case c.PublicKey != "":
		return []string{VerifyRequest}
	}
	return []string{VerifyRequest, SignResponse}
}

// Check records every fault of the key with this id, whose place in the configuration is
// path.
func (c *SigningKeyConfig) Check(path, id string, f *setting.Faults) {
	at := func(field string) string { return setting.Join(path, field) }
	if !validKeyID(id) {
		f.Add(path, "", "not a keyid", "use letters, digits and . _ ~ @ : -, up to 128 of them")
	}
	kinds, fits := 0, ""
	for _, k := range []struct {
		given bool
		alg   httpsig.Algorithm
	}{{!c.Secret.IsZero(), httpsig.HMACSHA256}, {c.PublicKey != "", httpsig.Ed25519}, {!c.PrivateKey.IsZero(), httpsig.Ed25519}} {
		if k.given {
			kinds, fits = kinds+1, string(k.alg)
		}
	}
	switch {
	case kinds == 0:
		f.Add(path, "", "the key has no secret, public_key or private_key", "write secret: {file: ...}; sallyport keygen makes one")
	case kinds > 1:
		f.Add(path, "", "secret, public_key and private_key exclude each other", "keep one of them")
	case c.Alg != "" && c.Alg != fits:
		f.Add(at("alg"), c.Alg, "not the algorithm of this kind of key", "remove the line: it is "+fits)
	}
	c.checkUse(at, f)
	if !c.NotBefore.IsZero() && !c.NotAfter.IsZero() && !c.NotBefore.Before(c.NotAfter.Time) {
		f.Add(at("not_after"), c.NotAfter.Format(time.RFC3339), "not after not_before: the key would never be valid", "write a later time")
	}
	if c.RequireNonce != nil && !slices.Contains(c.Uses(), VerifyRequest) {
		f.Add(at("require_nonce"), fmt.Sprint(*c.RequireNonce), "the key verifies no requests", "remove the line")
	}
}

func (c *SigningKeyConfig) checkUse(at func(string) string, f *setting.Faults) {
	uses := c.Uses()
	if len(uses) == 0 {
		f.Add(at("use"), "", "the key has no use", "name its principal, or write use: sign_request for a key between gateway and upstream")
	}
	client, upstream := false, false
	for i, use := range c.Use {
		at := setting.Index(at("use"), i)
		switch {
		case !slices.Contains(keyUses(), use):
			f.Add(at, use, "no such use", "write some of "+strings.Join(keyUses(), ", "))
		case slices.Index(c.Use, use) < i:
			f.Add(at, use, "is listed twice", "remove one of the two")
		case c.PublicKey != "" && strings.HasPrefix(use, "sign_"):
			f.Add(at, use, "a public key cannot sign", "remove it")
		}
	}
	if slices.Contains(uses, SignAssertion) {
		c.checkAssertionKey(at, f)
	}
	for _, use := range uses {
		client = client || use == VerifyRequest || use == SignResponse
		upstream = upstream || use == SignRequest || use == VerifyResponse
	}
	switch {
	case client && upstream:
		// Whoever holds the key could play one side to the other (RFC 9421, section 7.3.3).
		f.Add(at("use"), strings.Join(c.Use, ", "), "a key must not serve both clients and upstreams", "make a key for each")
	case slices.Contains(uses, VerifyRequest) && c.Principal == "":
		f.Add(at("principal"), "", "a key that verifies requests needs a principal", "name the caller that its signatures prove")
	case upstream && c.Principal != "":
		f.Add(at("principal"), c.Principal, "a key between gateway and upstream proves no caller", "remove the line")
	}
	if c.Principal != "" && !validPrincipal(c.Principal) {
		f.Add(at("principal"), c.Principal, "not a name", "use letters, digits and . _ ~ @ -, up to 64 of them")
	}
}

// checkAssertionKey records the faults of a key that signs assertions.
func (c *SigningKeyConfig) checkAssertionKey(at func(string) string, f *setting.Faults) {
	switch {
	case len(c.Use) > 1:
		f.Add(at("use"), strings.Join(c.Use, ", "), "a key for assertions signs nothing else", "make a key for each")
	case c.PrivateKey.IsZero():
		f.Add(at("use"), SignAssertion, "assertions are signed by a private key", "write private_key: {file: ...}; openssl genpkey -algorithm ed25519 makes one")
	case c.Principal != "":
		f.Add(at("principal"), c.Principal, "a key of the gateway's own proves no caller", "remove the line")
	case c.Alg != "":
		f.Add(at("alg"), c.Alg, "the key itself says which it is", "remove the line")
	}
}

func validKeyID(id string) bool { return len(id) <= 128 && plainName(id, ":") && id != "" }

func validPrincipal(name string) bool {
	return len(name) <= 64 && plainName(name, "") && name != ""
}

func plainName(s, more string) bool {
	for _, r := range s {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !plain && !strings.ContainsRune("._~@-"+more, r) {
			return false
		}
	}
	return true
}

// SigningKey is a key with its uses and its validity. It is immutable.
type SigningKey struct {
	id                  string
	key                 *httpsig.Key       // nil if it signs assertions
	assertion           crypto.Signer      // Ed25519 or P-256; nil if it does not
	principal           identity.Principal // zero for keys of upstreams
	uses                []string
	notBefore, notAfter time.Time // zero: no bound
	requireNonce        bool
	public              ed25519.PublicKey // of a key with a private half; else nil
}

// For returns the key if it is valid now and has this use, and nil otherwise. A nil
// SigningKey has no use.
func (k *SigningKey) For(use string, now time.Time) *httpsig.Key {
	if k.Usable(now) != nil {
		return nil
	}
	return k.Whenever(use)
}

// Whenever returns the key if it has this use, whether or not it is valid now, and nil
// otherwise. Callers that verify with it must also check [SigningKey.Usable].
func (k *SigningKey) Whenever(use string) *httpsig.Key {
	if k == nil || !slices.Contains(k.uses, use) {
		return nil
	}
	return k.key
}

// Usable returns nil if the key is valid now, and otherwise the error for a request that was
// signed by it. It returns nil for a nil SigningKey, which has no use.
func (k *SigningKey) Usable(now time.Time) *httpsig.Error {
	switch {
	case k == nil:
	case !k.notBefore.IsZero() && now.Before(k.notBefore):
		return &httpsig.Error{Code: httpsig.KeyNotYetValid, KeyID: k.id, Detail: fmt.Sprintf("%s begins in %s, at %s (not_before)", k.id, k.notBefore.Sub(now).Round(time.Second), k.notBefore.UTC().Format(time.RFC3339))}
	case !k.notAfter.IsZero() && !now.Before(k.notAfter):
		return &httpsig.Error{Code: httpsig.KeyExpired, KeyID: k.id, Detail: fmt.Sprintf("%s ended %s ago, at %s (not_after)", k.id, now.Sub(k.notAfter).Round(time.Second), k.notAfter.UTC().Format(time.RFC3339))}
	}
	return nil
}

// Assertion returns the key, an ed25519.PrivateKey or an [*ecdsa.PrivateKey] on P-256, and its id if
// it signs assertions. It returns nil for other keys and for a nil SigningKey. Callers that sign with
// it must also check [SigningKey.Usable].
func (k *SigningKey) Assertion() (key crypto.Signer, id string) {
	if k == nil {
		return nil, ""
	}
	return k.assertion, k.id
}

// Ended reports whether the validity of the key is over.
func (k *SigningKey) Ended(now time.Time) bool {
	return !k.notAfter.IsZero() && !now.Before(k.notAfter)
}

// Public returns the public half of an Ed25519 private key, nil for other keys.
func (k *SigningKey) Public() ed25519.PublicKey { return k.public }

// ReadSigningKeys reads the keys of a configuration that passed Check. It returns one
// [KeyError] for each key that fails, joined.
func ReadSigningKeys(all map[string]SigningKeyConfig) (map[string]*SigningKey, error) {
	keys := make(map[string]*SigningKey, len(all))
	owners := map[[sha256.Size]byte]string{} // keyids by the digest of their key material
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(all)) {
		c := all[id]
		k, material, err := c.read(id)
		if err == nil {
			sum := sha256.Sum256(material)
			other, found := owners[sum]
			if !found {
				owners[sum] = id
			} else if all[other].Principal != c.Principal || !slices.Equal(keys[other].uses, k.uses) {
				err = fmt.Errorf("is the same key as %s, with another principal or use: its owner could sign for both", other)
			}
		}
		if err != nil {
			errs = append(errs, &KeyError{ID: id, Err: err})
			continue
		}
		keys[id] = k
	}
	return keys, errors.Join(errs...)
}

// KeyError reports a signing key that cannot be used. It never contains key material.
type KeyError struct {
	ID  string
	Err error
}

func (e *KeyError) Error() string { return "signing key " + e.ID + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// read reads the key. material is the secret or the public key, for comparing keys.
func (c *SigningKeyConfig) read(id string) (k *SigningKey, material []byte, err error) {
	k = &SigningKey{
		id: id, uses: slices.Clone(c.Uses()), notBefore: c.NotBefore.Time, notAfter: c.NotAfter.Time,
		requireNonce: c.RequireNonce == nil || *c.RequireNonce,
	}
	if c.Principal != "" {
		k.principal = identity.Principal{Source: "key", Name: c.Principal, KeyID: id, Expires: c.NotAfter.Time}
		k.principal.Qualify()
	}
	switch {
	case c.PublicKey != "":
		var public ed25519.PublicKey
		if public, err = readPublicKey(string(c.PublicKey)); err == nil {
			k.key, err = httpsig.Ed25519PublicKey(id, public)
		}
		material = public
	case slices.Contains(k.uses, SignAssertion):
		if k.assertion, err = readAssertionKey(c.PrivateKey); err != nil {
			break
		}
		if public, ok := k.assertion.Public().(ed25519.PublicKey); ok {
			material = public // as that of other uses, of which it must have none
		} else {
			material, err = x509.MarshalPKIXPublicKey(k.assertion.Public())
		}
	case !c.PrivateKey.IsZero():
		var private ed25519.PrivateKey
		if private, err = readPrivateKey(c.PrivateKey); err == nil {
			k.public = private.Public().(ed25519.PublicKey)
			k.key, err = httpsig.Ed25519Key(id, private)
		}
		material = k.public
	default:
		if material, err = readSecret(c.Secret); err == nil {
			k.key, err = httpsig.HMACKey(id, material)
		}
	}
	return k, material, err
}

func readSecret(s setting.Secret) ([]byte, error) {
	text, err := s.Read()
	if err != nil {
		return nil, err
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not standard base64", s.Where())
	}
	if len(secret) < httpsig.MinSecret {
		return nil, fmt.Errorf("%s holds %d bytes, want at least %d; sallyport keygen makes 64", s.Where(), len(secret), httpsig.MinSecret)
	}
	return secret, nil
}

var errNotEd25519 = errors.New("it contains no Ed25519 key in PEM form")

func readPublicKey(file string) (ed25519.PublicKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("reading public_key: %w", err)
	}
	if err := setting.WrittenByOwner(file, info); err != nil {
		return nil, fmt.Errorf("reading public_key: %w", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading public_key: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "PUBLIC KEY" {
		if key, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if public, ok := key.(ed25519.PublicKey); ok {
				return public, nil
			}
		}
	}
	return nil, fmt.Errorf("reading public_key %s: %w", file, errNotEd25519)
}

func readPrivateKey(s setting.Secret) (ed25519.PrivateKey, error) {
	text, err := s.Read()
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "PRIVATE KEY" {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if private, ok := key.(ed25519.PrivateKey); ok {
				return private, nil
			}
		}
	}
	return nil, fmt.Errorf("reading private_key from %s: %w", s.Where(), errNotEd25519)
}

var errNoAssertionKey = errors.New("it contains no Ed25519 or P-256 key in PEM form")

func readAssertionKey(s setting.Secret) (crypto.Signer, error) {
	text, err := s.Read()
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "PRIVATE KEY" {
		key, _ := x509.ParsePKCS8PrivateKey(block.Bytes)
		switch key := key.(type) {
		case ed25519.PrivateKey:
			return key, nil
		case *ecdsa.PrivateKey:
			if key.Curve == elliptic.P256() {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("reading private_key from %s: %w", s.Where(), errNoAssertionKey)
}
