package auth

import (
	"cmp"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// TestDiscovery checks where the keys are fetched, and which discovery documents are
// refused.
func TestDiscovery(t *testing.T) {
	one := ecPair("one")
	cases := map[string]struct {
		change func(p *provider, c *IssuerConfig)
		iss    string // of tokens; "": the provider's URL
		want   string
		status string
	}{
		"of the issuer": {},
		"another issuer": {
			change: func(p *provider, _ *IssuerConfig) { p.Identify(p.URL + "/") },
			want:   IssuerUnavailable, status: `discovery: the document names another issuer: it says "URL/", the configuration says "URL": write url: URL/`,
		},
		"inside, the issuer's name outside": {
			change: func(p *provider, c *IssuerConfig) {
				p.Identify("https://login.example.com/realms/ml")
				c.URL, c.Discovery = "https://login.example.com/realms/ml", mustURL(p.URL)
			},
			iss: "https://login.example.com/realms/ml",
		},
		"inside, and another issuer": {
			change: func(p *provider, c *IssuerConfig) {
				p.Identify("https://evil.example.com")
				c.URL, c.Discovery = "https://login.example.com/realms/ml", mustURL(p.URL)
			},
			iss:  "https://login.example.com/realms/ml",
			want: IssuerUnavailable, status: `discovery: the document names another issuer: it says "https://evil.example.com", the configuration says "https://login.example.com/realms/ml": if the document is right, correct url, else discovery`,
		},
		"keys by their own URL, no discovery": {
			change: func(p *provider, c *IssuerConfig) {
				c.URL, c.JWKS = "https://login.example.com", mustURL(p.URL+"/jwks")
			},
			iss: "https://login.example.com",
		},
		"discovery inside, keys by their own URL": {
			change: func(p *provider, c *IssuerConfig) {
				p.Identify("https://login.example.com")
				c.URL, c.Discovery, c.JWKS = "https://login.example.com", mustURL(p.URL), mustURL(p.URL+"/jwks")
			},
			iss: "https://login.example.com",
		},
		"keys over http on another machine": {
			change: func(p *provider, _ *IssuerConfig) {
				p.Answer(authtest.Text(`{"issuer":"` + p.URL + `","jwks_uri":"http://192.0.2.1/jwks"}`))
			},
			want: IssuerUnavailable, status: "discovery: the document has no acceptable jwks_uri",
		},
		"keys at a metadata service": {
			change: func(p *provider, _ *IssuerConfig) {
				p.Answer(authtest.Text(`{"issuer":"` + p.URL + `","jwks_uri":"https://169.254.169.254/latest/meta-data"}`))
			},
			want: IssuerUnavailable, status: "discovery: the document has no acceptable jwks_uri",
		},
		"keys in a file": {
			change: func(p *provider, _ *IssuerConfig) {
				p.Answer(authtest.Text(`{"issuer":"` + p.URL + `","jwks_uri":"file:///etc/passwd"}`))
			},
			want: IssuerUnavailable, status: "discovery: the document has no acceptable jwks_uri",
		},
		"names in other letter cases": {
			change: func(p *provider, _ *IssuerConfig) {
				p.Answer(authtest.Text(`{"Issuer":"` + p.URL + `","JWKS_URI":"` + p.URL + `/jwks"}`))
			},
			want: IssuerUnavailable, status: `discovery: the document names another issuer: it says "", the configuration says "URL": if the document is right, correct url, else discovery`,
		},
		"a name twice": {
			change: func(p *provider, _ *IssuerConfig) {
				p.Answer(authtest.Text(`{"issuer":"https://evil.example","issuer":"` + p.URL + `","jwks_uri":"` + p.URL + `/jwks"}`))
			},
			want: IssuerUnavailable, status: "discovery: garbage",
		},
		"not found": {
			change: func(p *provider, _ *IssuerConfig) { p.Answer(authtest.Status(http.StatusNotFound)) },
			want:   IssuerUnavailable, status: "discovery: bad status 404",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p, clock := newProvider(t, one.JWK()), authtest.NewClock()
			ic := p.config()
			if c.change != nil {
				c.change(p, &ic)
			}
			a, chain := newAuth(t, clock, ic)
			if p.Requests() != 0 {
				t.Fatal("the issuer was asked before there was a token")
			}
			want(t, chain, one.Token(authtest.Claims(cmp.Or(c.iss, p.URL), clock.Now(), nil)), c.want)
			if got := a.Status()[0]; got.LastError != strings.ReplaceAll(c.status, "URL", p.URL) {
				t.Errorf("status %q, want %q", got.LastError, c.status)
			}
		})
	}
}

func mustURL(s string) setting.URL {
	u, err := setting.ParseURL(s)
	if err != nil {
		panic(err)
	}
	return u
}

// TestIssuerNeedsItsConfiguredCA checks that an issuer with a private CA is trusted only
// with that CA.
func TestIssuerNeedsItsConfiguredCA(t *testing.T) {
	one, clock := ecPair("one"), authtest.NewClock()
	server := httptest.NewUnstartedServer(nil)
	iss, err := authtest.NewIssuer(authtest.IssuerConfig{URL: "https://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{iss}
	p.Publish(one.JWK())
	server.Config.Handler, server.Config.ErrorLog = p, log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	ic := p.config()
	a, chain := newAuth(t, clock, ic)
	want(t, chain, one.Token(p.claims(clock.Now(), nil)), IssuerUnavailable)
	if got := a.Status()[0].LastError; got != "discovery: untrusted server" {
		t.Errorf("status %q", got)
	}
	ic.CA = setting.Path(ca)
	_, chain = newAuth(t, clock, ic)
	want(t, chain, one.Token(p.claims(clock.Now(), nil)), "")
	ic.CA += ".absent"
	if a, err := New(Config{Issuers: map[string]IssuerConfig{"corp": ic}}, NewMemory(MemoryOptions{})); err == nil || a != nil {
		t.Error("a missing CA file must refuse to start")
	}
}

// TestDiscoveryCannotDowngradeTLS checks that a document fetched over TLS cannot name keys
// over http, not even on this machine.
func TestDiscoveryCannotDowngradeTLS(t *testing.T) {
	for address, want := range map[string]bool{"http://127.0.0.1/jwks": true, "https://127.0.0.1/jwks": false} {
		u := mustURL(address).URL
		if got := (&keySet{keySource: keySource{discovery: "https://login.example.com/x"}}).downgrade(u); got != want {
			t.Errorf("%s after TLS: got %v, want %v", address, got, want)
		}
		if (&keySet{keySource: keySource{discovery: "https://login.example.com/x", insecure: true}}).downgrade(u) || (&keySet{keySource: keySource{discovery: "http://127.0.0.1/x"}}).downgrade(u) {
			t.Errorf("%s: refused though http was allowed", address)
		}
	}
}

// A wrong path in the issuer's URL is the usual cause of a 404.
func TestMissingDiscoveryDocumentSaysWhatToWrite(t *testing.T) {
	missing := &fetch.Error{Kind: fetch.BadStatus, Status: http.StatusNotFound}
	if got := fetchError("discovery", "https://login.example.com/x", missing).Error(); !strings.HasSuffix(got, "bad status 404: no discovery document there: write as url what the tokens have as iss, such as https://HOST/realms/REALM of Keycloak") {
		t.Errorf("got %s", got)
	}
	if got := fetchError("keys", "https://login.example.com/jwks", missing).Error(); !strings.HasSuffix(got, "bad status 404") {
		t.Errorf("got %s", got)
	}
}
