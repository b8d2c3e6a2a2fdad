package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"sallyport/auth/fetch"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

var b64 = base64.RawURLEncoding.EncodeToString

// client is where test requests come from.
var client = netip.MustParseAddr("192.0.2.7")

// pair is a key pair of a test issuer.
type pair struct {
	kid, alg string
	private  crypto.Signer
}

// Generating RSA keys is slow, so all tests share these.
var (
	rsaOne   = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
	rsaTwo   = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
	rsaSmall = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(1024) })
)

func newRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func newEd() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

// jwkOf is the public half as a JWK, with more members after it (`"use":"sig"`).
func (p pair) jwkOf(more ...string) string {
	m := []string{}
	switch k := p.private.Public().(type) {
	case *rsa.PublicKey:
		m = append(m, `"kty":"RSA"`, fmt.Sprintf(`"n":"%s","e":"%s"`, b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())))
	case *ecdsa.PublicKey:
		raw, err := k.Bytes()
		if err != nil {
			panic(err)
		}
		n := (len(raw) - 1) / 2
		m = append(m, `"kty":"EC"`, fmt.Sprintf(`"crv":"%s","x":"%s","y":"%s"`, k.Curve.Params().Name, b64(raw[1:1+n]), b64(raw[1+n:])))
	case ed25519.PublicKey:
		m = append(m, `"kty":"OKP","crv":"Ed25519"`, fmt.Sprintf(`"x":"%s"`, b64(k)))
	}
	if p.kid != "" {
		m = append(m, fmt.Sprintf(`"kid":%q`, p.kid))
	}
	return "{" + strings.Join(append(m, more...), ",") + "}"
}

func jwks(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// sign makes the signature that alg wants over text.
func sign(alg string, key crypto.Signer, text string) []byte {
	h := hashes[alg[2:]]
	var sum []byte
	if h != 0 {
		d := h.New()
		d.Write([]byte(text))
		sum = d.Sum(nil)
	}
	var sig []byte
	var err error
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			sig, err = rsa.SignPSS(rand.Reader, k, h, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(rand.Reader, k, h, sum)
		}
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, k, sum)
		n := (k.Params().BitSize + 7) / 8
		sig, err = append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...), e
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(text))
	}
	if err != nil {
		panic(err)
	}
	return sig
}

// raw signs header and claims as they are written, whatever they say.
func (p pair) raw(header, claims string) string {
	text := b64([]byte(header)) + "." + b64([]byte(claims))
	return text + "." + b64(sign(p.alg, p.private, text))
}

func (p pair) header() string {
	return fmt.Sprintf(`{"alg":"%s","kid":"%s","typ":"JWT"}`, p.alg, p.kid)
}

// token signs claims with the usual header.
func (p pair) token(claims string) string { return p.raw(p.header(), claims) }

// hs256 is a token with a MAC under the given secret.
func hs256(header, claims string, secret []byte) string {
	text := b64([]byte(header)) + "." + b64([]byte(claims))
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(text))
	return text + "." + b64(m.Sum(nil))
}

// provider is an OpenID issuer on loopback that counts what it is asked.
type provider struct {
	*httptest.Server
	keys       atomic.Pointer[string] // the JWKS
	issuer     string                 // what discovery says, the server's URL if ""
	discovered atomic.Int64
	fetched    atomic.Int64
	answer     atomic.Pointer[http.HandlerFunc] // in place of both documents
}

func newProvider(t testing.TB, keys ...string) *provider {
	t.Helper()
	p := &provider{}
	p.publish(keys...)
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) publish(keys ...string) { s := jwks(keys...); p.keys.Store(&s) }

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	discovery := strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration")
	if discovery {
		p.discovered.Add(1)
	} else {
		p.fetched.Add(1)
	}
	if h := p.answer.Load(); h != nil {
		(*h)(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if discovery {
		issuer := p.issuer
		if issuer == "" {
			issuer = p.URL
		}
		json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": p.URL + "/keys"})
		return
	}
	fmt.Fprint(w, *p.keys.Load())
}

func (p *provider) asked() int64 { return p.discovered.Load() + p.fetched.Load() }

// config is the issuer's configuration, with the audience "models".
func (p *provider) config() IssuerConfig {
	return IssuerConfig{URL: p.URL, Audience: setting.List[string]{"models"}}
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1_800_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// claims are those of a good token of the provider, with the given ones in the
// place of or beside the usual; a value of nil leaves one out.
func (p *provider) claims(now time.Time, changes map[string]any) string {
	return claimsOf(p.URL, now, changes)
}

func claimsOf(iss string, now time.Time, changes map[string]any) string {
	all := map[string]any{
		"iss": iss, "sub": "alice", "aud": "models", "scope": "models.predict models.read",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for k, v := range changes {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// newAuth makes an Auth of one issuer, corp, and the chain of a route that lists it.
func newAuth(t testing.TB, c *clock, ic IssuerConfig) (*Auth, *Chain) {
	t.Helper()
	a, err := New(Config{Issuers: map[string]IssuerConfig{"corp": ic}, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	return a, chain
}

// head is a request with these Authorization lines.
func head(lines ...string) *message.Head {
	h := &message.Head{Method: "POST", Path: "/predict"}
	for _, l := range lines {
		h.Fields.Add("authorization", l)
	}
	return h
}

// ask presents a token.
func ask(c *Chain, token string) (identity.Principal, error) {
	proof, err := c.Authenticate(context.Background(), head("Bearer "+token), client)
	return proof.Caller, err
}

// reason is that of an error, "" for none.
func reason(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T, want *Error: %v", err, err)
	}
	return e.Reason
}

// want checks the outcome of one token: a principal and no error, or the reason and nobody.
func want(t testing.TB, c *Chain, token, why string) {
	t.Helper()
	p, err := ask(c, token)
	if got := reason(t, err); got != why {
		t.Errorf("got reason %q, want %q (%v)", got, why, err)
	}
	if p.IsZero() != (err != nil) {
		t.Errorf("principal %q beside error %v", p.String(), err)
	}
	if err != nil && strings.Contains(err.Error(), token) {
		t.Error("the error repeats the token")
	}
}

// decodeSet reads a JWKS as [fetch.Client.JSON] would.
func decodeSet(text string, into *jwkSet) error {
	if err := jsonv2.Unmarshal([]byte(text), into); err != nil {
		return &fetch.Error{Kind: fetch.Garbage, Err: err}
	}
	return nil
}
