package credential

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/auth"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// asserter signs tokens that tell the servers of one upstream who calls (RFC 7519). It is immutable.
type asserter struct {
	key    *auth.SigningKey
	config upstream.AssertionConfig
	head   string // the encoded JOSE header
	prefix string // "Bearer " in Authorization
	now    func() time.Time
}

// newAsserter returns the asserter of a checked configuration.
func newAsserter(c *upstream.AssertionConfig, keys func(id string) *auth.SigningKey, now func() time.Time) (*asserter, error) {
	a := &asserter{key: keys(c.Key), config: *c, now: now}
	signer, id := a.key.Assertion()
	if signer == nil {
		return nil, errors.New("the key " + c.Key + " does not sign assertions")
	}
	if c.Field() == "authorization" {
		a.prefix = "Bearer "
	}
	a.head = encoded(fmt.Appendf(nil, `{"alg":%q,"kid":%q,"typ":"JWT"}`, algorithm(signer.Public()), id))
	return a, nil
}

// algorithm returns the JOSE name of the algorithm for a key.
func algorithm(public crypto.PublicKey) string {
	if _, ok := public.(ed25519.PublicKey); ok {
		return "EdDSA"
	}
	return "ES256"
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// assertion is the claims of a token.
type assertion struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	Issued   int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	ID       string   `json:"jti"`
	Groups   []string `json:"groups,omitempty"`
	Scope    string   `json:"scope,omitempty"`
}

// value returns the value of the field for one attempt of a caller's request.
func (a *asserter) value(caller *identity.Principal) (string, error) {
	now := a.now()
	if fault := a.key.Usable(now); fault != nil {
		return "", errors.New("signing key " + fault.Detail) // the fault itself is for callers' keys
	}
	claims := assertion{
		Issuer: cmp.Or(a.config.Issuer, "sallyport"), Subject: caller.String(), Audience: a.config.Audience,
		Issued: now.Unix(), Expires: now.Add(a.config.Life()).Unix(), ID: rand.Text(),
	}
	if slices.Contains(a.config.Claims, upstream.ClaimGroups) {
		claims.Groups = caller.Groups
	}
	if slices.Contains(a.config.Claims, upstream.ClaimScopes) {
		claims.Scope = strings.Join(caller.Scopes, " ")
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding the assertion: %w", err)
	}
	signed := a.head + "." + encoded(text)
	signature, err := a.sign([]byte(signed))
	if err != nil {
		return "", err
	}
	token := signed + "." + encoded(signature)
	if !message.ValidToken(token) {
		return "", errors.New("the assertion is longer than servers take in a field: the caller has too many groups or scopes")
	}
	return a.prefix + token, nil
}

// sign signs as JWS says (RFC 7518, section 3.4; RFC 8037, section 3.1).
func (a *asserter) sign(text []byte) ([]byte, error) {
	signer, _ := a.key.Assertion()
	switch key := signer.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(key, text), nil
	case *ecdsa.PrivateKey:
		digest := sha256.Sum256(text)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			return nil, fmt.Errorf("signing the assertion: %w", err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
	}
	return nil, errors.New("the key does not sign assertions")
}

// KeySet is the public halves of all keys for assertions. It is immutable; nil is empty.
type KeySet struct {
	keys []*auth.SigningKey
	now  func() time.Time
}

// NewKeySet returns the set of those keys that sign assertions.
func NewKeySet(all map[string]*auth.SigningKey, now func() time.Time) *KeySet {
	s := &KeySet{now: now}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if signer, _ := all[id].Assertion(); signer != nil {
			s.keys = append(s.keys, all[id])
		}
	}
	return s
}

// Document returns the set as a JWK set (RFC 7517); nil if it is empty. Keys whose time has not come
// are in it, so that servers know them before they sign. Keys whose time is over are not.
func (s *KeySet) Document() []byte {
	if s == nil {
		return nil
	}
	var keys []string
	now := s.now()
	for _, k := range s.keys {
		if k.Ended(now) {
			continue
		}
		signer, id := k.Assertion()
		switch public := signer.Public().(type) {
		case ed25519.PublicKey:
			keys = append(keys, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":%q,"x":%q}`, id, encoded(public)))
		case *ecdsa.PublicKey:
			point, err := public.Bytes() // 4, x, y
			if err == nil && len(point) == 65 {
				keys = append(keys, fmt.Sprintf(`{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":%q,"x":%q,"y":%q}`, id, encoded(point[1:33]), encoded(point[33:])))
			}
		}
	}
	if keys == nil {
		return nil
	}
	return []byte(`{"keys":[` + strings.Join(keys, ",") + "]}\n")
}
