package auth

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"sallyport/proxy/setting"
)

// TestDiscovery: where the keys are, and who must say so.
func TestDiscovery(t *testing.T) {
	one := ecPair("one")
	cases := map[string]struct {
		change func(p *provider, c *IssuerConfig)
		iss    func(p *provider) string
		want   string
		status string
	}{
		"of the issuer": {},
		"another issuer": {
			change: func(p *provider, _ *IssuerConfig) { p.issuer = p.URL + "/" },
			want:   IssuerUnavailable, status: "discovery: the document names another issuer",
		},
		"inside, the issuer's name outside": {
			change: func(p *provider, c *IssuerConfig) {
				p.issuer = "https://login.example.com/realms/ml"
				c.URL, c.Discovery = p.issuer, mustURL(p.URL)
			},
			iss: func(p *provider) string { return p.issuer },
		},
		"inside, and another issuer": {
			change: func(p *provider, c *IssuerConfig) {
				p.issuer = "https://evil.example.com"
				c.URL, c.Discovery = "https://login.example.com/realms/ml", mustURL(p.URL)
			},
			iss:  func(*provider) string { return "https://login.example.com/realms/ml" },
			want: IssuerUnavailable, status: "discovery: the document names another issuer",
		},
		"keys by their own URL, no discovery": {
			change: func(p *provider, c *IssuerConfig) {
				c.URL, c.JWKS = "https://login.example.com", mustURL(p.URL+"/keys")
			},
			iss: func(*provider) string { return "https://login.example.com" },
		},
		"discovery inside, keys by their own URL": {
			change: func(p *provider, c *IssuerConfig) {
				p.issuer = "https://login.example.com"
				c.URL, c.Discovery, c.JWKS = p.issuer, mustURL(p.URL), mustURL(p.URL+"/keys")
			},
			iss: func(*provider) string { return "https://login.example.com" },
		},
		"keys over http on another machine": {
			change: func(p *provider, _ *IssuerConfig) {
				p.answers(`{"issuer":"` + p.URL + `","jwks_uri":"http://192.0.2.1/keys"}`)
			},
			want: IssuerUnavailable, status: "discovery: the document has no acceptable jwks_uri",
		},
		"keys at a metadata service": {
			change: func(p *provider, _ *IssuerConfig) {
				p.answers(`{"issuer":"` + p.URL + `","jwks_uri":"https://169.254.169.254/latest/meta-data"}`)
			},
			want: IssuerUnavailable, status: "discovery: the document has no acceptable jwks_uri",
		},
		"keys in a file": {
			change: func(p *provider, _ *IssuerConfig) {
				p.answers(`{"issuer":"` + p.URL + `","jwks_uri":"file:///etc/passwd"}`)
			},
			want: IssuerUnavailable, status: "discovery: the document has no acceptable jwks_uri",
		},
		"names in other letter cases": {
			change: func(p *provider, _ *IssuerConfig) {
				p.answers(`{"Issuer":"` + p.URL + `","JWKS_URI":"` + p.URL + `/keys"}`)
			},
			want: IssuerUnavailable, status: "discovery: the document names another issuer",
		},
		"a name twice": {
			change: func(p *provider, _ *IssuerConfig) {
				p.answers(`{"issuer":"https://evil.example","issuer":"` + p.URL + `","jwks_uri":"` + p.URL + `/keys"}`)
			},
			want: IssuerUnavailable, status: "discovery: garbage",
		},
		"not found": {
			change: func(p *provider, _ *IssuerConfig) {
				h := http.HandlerFunc(http.NotFound)
				p.answer.Store(&h)
			},
			want: IssuerUnavailable, status: "discovery: bad status 404",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p, clock := newProvider(t, one.jwkOf()), newClock()
			ic := p.config()
			if c.change != nil {
				c.change(p, &ic)
			}
			iss := p.URL
			if c.iss != nil {
				iss = c.iss(p)
			}
			a, chain := newAuth(t, clock, ic)
			if p.asked() != 0 {
				t.Fatal("the issuer was asked before there was a token")
			}
			want(t, chain, one.token(claimsOf(iss, clock.now(), nil)), c.want)
			if got := a.Status()[0]; got.LastError != c.status {
				t.Errorf("status %q, want %q", got.LastError, c.status)
			}
		})
	}
}

func (p *provider) answers(text string) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) })
	p.answer.Store(&h)
}

func mustURL(s string) setting.URL {
	u, err := setting.ParseURL(s)
	if err != nil {
		panic(err)
	}
	return u
}

// TestIssuerOverTLS: an issuer of a private CA is believed with that CA, and
// with no other.
func TestIssuerOverTLS(t *testing.T) {
	one, clock := ecPair("one"), newClock()
	p := &provider{}
	p.publish(one.jwkOf())
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.StartTLS()
	t.Cleanup(p.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	ic := p.config()
	a, chain := newAuth(t, clock, ic)
	want(t, chain, one.token(p.claims(clock.now(), nil)), IssuerUnavailable)
	if got := a.Status()[0].LastError; got != "discovery: untrusted server" {
		t.Errorf("status %q", got)
	}
	ic.CA = setting.Path(ca)
	_, chain = newAuth(t, clock, ic)
	want(t, chain, one.token(p.claims(clock.now(), nil)), "")
	ic.CA = setting.Path(ca + ".absent")
	if a, err := New(Config{Issuers: map[string]IssuerConfig{"corp": ic}}); err == nil || a != nil {
		t.Error("a missing CA file must refuse to start")
	}
}

// TestDiscoveryDoesNotLeaveTLS: a document that came over TLS names no keys
// without it, on this machine neither.
func TestDiscoveryDoesNotLeaveTLS(t *testing.T) {
	for address, want := range map[string]bool{"http://127.0.0.1/keys": true, "https://127.0.0.1/keys": false} {
		u := mustURL(address).URL
		if got := (&keySet{discovery: "https://login.example.com/x"}).downgrade(u); got != want {
			t.Errorf("%s after TLS: got %v, want %v", address, got, want)
		}
		if (&keySet{discovery: "https://login.example.com/x", insecure: true}).downgrade(u) || (&keySet{discovery: "http://127.0.0.1/x"}).downgrade(u) {
			t.Errorf("%s: refused though http was allowed", address)
		}
	}
}
