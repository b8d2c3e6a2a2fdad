// Package authtest is an OpenID issuer for tests. It serves discovery and a key set,
// makes tokens with any claims and signatures, answers about opaque tokens, and can fail in
// various ways.
package authtest

import (
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// IssuerConfig configures an [Issuer].
type IssuerConfig struct {
	URL      string           // the issuer's identifier, at which it is served
	Audience string           // aud of [Issuer.Claims]
	Lifetime time.Duration    // of [Issuer.Claims]; five minutes if zero
	Now      func() time.Time // time.Now if nil
}

// Issuer is an issuer that counts its requests and fails on demand. It is an
// [http.Handler], safe for concurrent use.
type Issuer struct {
	URL string // as in its configuration

	config   IssuerConfig
	key      Key // used by [Issuer.Sign]
	document atomic.Pointer[string]
	keySet   atomic.Pointer[string]
	instead  atomic.Pointer[http.Handler]

	discoveries, fetches atomic.Int64
	introspection        introspection
	provider             atomic.Pointer[Provider] // nil: nobody signs in here
}

// NewIssuer returns an issuer that publishes one ES256 key of its own. It opens no
// listener.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	if _, err := url.Parse(c.URL); err != nil {
		return nil, fmt.Errorf("reading the issuer's URL: %w", err)
	}
	if c.Lifetime == 0 {
		c.Lifetime = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	i := &Issuer{URL: c.URL, config: c, key: NewKey(rand.Text(), "ES256", EC(elliptic.P256()))}
	i.Identify(c.URL)
	i.Publish(i.key.JWK(`"use":"sig"`, `"alg":"ES256"`))
	return i, nil
}

// Start serves an issuer on loopback until the test ends. Its audience is "models". It
// publishes the given keys, as [Key.JWK] writes them, instead of its own.
func Start(t testing.TB, keys ...string) *Issuer {
	t.Helper()
	return StartAt(t, nil, keys...)
}

// StartAt is as Start, for an issuer with this clock.
func StartAt(t testing.TB, now func() time.Time, keys ...string) *Issuer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewIssuer(IssuerConfig{URL: "http://" + l.Addr().String(), Audience: "models", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	i.Publish(keys...)
	s := &http.Server{Handler: i}
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return i
}

// Publish replaces the key set by these keys, as [Key.JWK] writes them.
func (i *Issuer) Publish(keys ...string) { s := KeySet(keys...); i.keySet.Store(&s) }

// Identify sets the issuer that the discovery document names.
func (i *Issuer) Identify(issuer string) {
	s := string(must(json.Marshal(map[string]string{"issuer": issuer, "jwks_uri": i.URL + "/jwks", "introspection_endpoint": i.URL + "/introspect"})))
	i.document.Store(&s)
}

// Answer makes h answer all requests instead of the issuer, such as [Hang], [Text] or
// [Status]. Nil undoes that.
func (i *Issuer) Answer(h http.Handler) {
	if h == nil {
		i.instead.Store(nil)
		return
	}
	i.instead.Store(&h)
}

// Hang returns a handler that does not answer until the client gives up.
func Hang() http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// Text returns a handler that answers with a text instead of the document.
func Text(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

// Status returns a handler that answers with a status and no document.
func Status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

// Discoveries returns the number of requests for the discovery document.
func (i *Issuer) Discoveries() int64 { return i.discoveries.Load() }

// Fetches returns the number of other requests; normally those for the key set.
func (i *Issuer) Fetches() int64 { return i.fetches.Load() }

// Requests returns the number of all requests.
func (i *Issuer) Requests() int64 { return i.Discoveries() + i.Fetches() }

// ServeHTTP implements [http.Handler].
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/introspect") {
		i.introspect(w, r)
		return
	}
	if p := i.provider.Load(); p != nil && i.instead.Load() == nil && p.serve(w, r) {
		return
	}
	text := &i.keySet
	if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
		i.discoveries.Add(1)
		text = &i.document
	} else {
		i.fetches.Add(1)
	}
	switch instead := i.instead.Load(); {
	case instead != nil:
		(*instead).ServeHTTP(w, r)
	case text == &i.keySet && !strings.HasSuffix(r.URL.Path, "/jwks"):
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, *text.Load())
	}
}

// Claims returns the claims of a token for a client, issued now. The caller owns the map.
func (i *Issuer) Claims(client string, scopes ...string) map[string]any {
	now := i.config.Now()
	return map[string]any{
		"iss": i.URL, "sub": client, "aud": i.config.Audience, "client_id": client, "scope": strings.Join(scopes, " "),
		"iat": now.Unix(), "exp": now.Add(i.config.Lifetime).Unix(), "jti": rand.Text(),
	}
}

// Sign returns an access token (RFC 9068) with these claims, signed by the issuer's own
// key.
func (i *Issuer) Sign(claims map[string]any) (string, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	return i.key.Sign(fmt.Sprintf(`{"typ":"at+jwt","alg":"ES256","kid":"%s"}`, i.key.ID), string(text)), nil
}
