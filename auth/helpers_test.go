package auth

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"sallyport/auth/authtest"
	"sallyport/auth/fetch"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// client is the address of test requests.
var client = netip.MustParseAddr("192.0.2.7")

// provider is an issuer on loopback.
type provider struct{ *authtest.Issuer }

func newProvider(t testing.TB, keys ...string) *provider {
	t.Helper()
	return &provider{authtest.Start(t, keys...)}
}

// config is the issuer's configuration, with the audience "models".
func (p *provider) config() IssuerConfig {
	return IssuerConfig{URL: p.URL, Audience: setting.List[string]{"models"}}
}

// claims returns those of a valid token of the provider, see [authtest.Claims].
func (p *provider) claims(now time.Time, changes map[string]any) string {
	return authtest.Claims(p.URL, now, changes)
}

// newAuth makes an Auth of one issuer, corp, and the chain of a route that lists it.
func newAuth(t testing.TB, c *authtest.Clock, ic IssuerConfig) (*Auth, *Chain) {
	t.Helper()
	a := activeAuth(t, NewMemory(MemoryOptions{Now: c.Now}), Config{Issuers: map[string]IssuerConfig{"corp": ic}})
	chain, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	return a, chain
}

// activeAuth makes an Auth that is active until the test ends.
func activeAuth(t testing.TB, m *Memory, c Config) *Auth {
	t.Helper()
	a, err := New(c, m)
	if err != nil {
		t.Fatal(err)
	}
	a.Activate()
	t.Cleanup(a.Close)
	return a
}

// head is a request with these Authorization lines.
func head(lines ...string) *message.Head {
	h := &message.Head{Method: "POST", Path: "/predict"}
	for _, l := range lines {
		h.Fields.Add("authorization", l)
	}
	return h
}

// from is a request with this head from an address.
func from(peer netip.Addr, h *message.Head) *Request { return &Request{Head: h, Peer: peer} }

// ask presents a token.
func ask(c *Chain, token string) (identity.Principal, error) {
	proof, err := c.Authenticate(context.Background(), from(client, head("Bearer "+token)))
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

// textLog returns a logger that writes text to w, for tests of one goroutine.
func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// challenge returns the challenges of a chain for an error, as clients join them.
func challenge(c *Chain, realm string, err error) string {
	return strings.Join(c.Challenges(realm, err), ", ")
}
