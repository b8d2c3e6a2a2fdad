package auth

import (
	"bytes"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/auth/fetch"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// TestInspection compares what is said about issuers in every state with the golden file.
func TestInspection(t *testing.T) {
	one := authtest.NewKey("k1", "ES256", authtest.EC(elliptic.P256()))
	small := authtest.NewKey("small", "RS256", authtest.SmallRSA())
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	expired := httptest.NewUnstartedServer(http.NotFoundHandler())
	expired.Config.ErrorLog = log.New(io.Discard, "", 0)
	expired.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	expired.StartTLS()
	t.Cleanup(expired.Close)
	var b strings.Builder
	for _, c := range []struct {
		name   string
		change func(p *provider, c *IssuerConfig)
	}{
		{"good", nil},
		{"no discovery", func(p *provider, c *IssuerConfig) {
			c.URL, c.JWKS = "https://login.example.com", mustURL(p.URL+"/jwks")
		}},
		{"some keys skipped", func(p *provider, _ *IssuerConfig) { p.Publish(one.JWK(), small.JWK(), `{"kty":"oct","kid":"s"}`) }},
		{"no usable key", func(p *provider, _ *IssuerConfig) { p.Publish(small.JWK()) }},
		{"another issuer", func(p *provider, _ *IssuerConfig) { p.Identify("https://login.example.com") }},
		{"a slash", func(p *provider, _ *IssuerConfig) { p.Identify(p.URL + "/") }},
		{"not found", func(p *provider, _ *IssuerConfig) { p.Answer(authtest.Status(404)) }},
		{"login page", func(p *provider, _ *IssuerConfig) { p.Answer(authtest.Text("<html>")) }},
		{"redirect", func(p *provider, _ *IssuerConfig) { p.Answer(http.RedirectHandler("/login", http.StatusFound)) }},
		{"keys over http elsewhere", func(p *provider, _ *IssuerConfig) {
			p.Answer(authtest.Text(`{"issuer":"` + p.URL + `","jwks_uri":"http://192.0.2.1/jwks"}`))
		}},
		{"down", func(_ *provider, c *IssuerConfig) { c.URL = "http://127.0.0.1:1" }},
		{"unknown authority", func(_ *provider, c *IssuerConfig) { c.URL = secure.URL }},
		{"TLS asked without", func(_ *provider, c *IssuerConfig) { c.URL = strings.Replace(secure.URL, "https:", "http:", 1) }},
		{"old TLS", func(_ *provider, c *IssuerConfig) { c.URL = expired.URL }},
		{"no TLS", func(p *provider, c *IssuerConfig) { c.URL = strings.Replace(p.URL, "http:", "https:", 1) }},
	} {
		p := newProvider(t, one.JWK())
		ic := p.config()
		if c.change != nil {
			c.change(p, &ic)
		}
		a := activeAuth(t, NewMemory(MemoryOptions{}), Config{Issuers: map[string]IssuerConfig{"corp": ic}})
		r := a.Inspect(t.Context())[0]
		fmt.Fprintf(&b, "== %s: %s, %s: %v %q\n", c.name, r.Document, r.JWKS, r.Keys, r.Skipped)
		if r.Problem != "" {
			fmt.Fprintf(&b, "%s\n    %s\n", r.Problem, r.Cure)
		}
		if (r.Problem == "") != (len(r.Keys) > 0) {
			t.Errorf("%s: neither keys nor a problem: %+v", c.name, r)
		}
	}
	text := regexp.MustCompile(`127\.0\.0\.1:\d\d+`).ReplaceAllString(b.String(), "127.0.0.1:PORT")
	golden(t, "testdata/inspect.txt", text)
}

func TestCuresOfAnIssuerBehindAProxyNameTheProxy(t *testing.T) {
	iss := &issuer{name: "corp", proxied: true}
	for _, what := range []fetch.Kind{fetch.Unreachable, fetch.TimedOut, fetch.ProxyRefused} {
		if got := iss.cureFetch(&keysError{what: string(what), err: errors.New("x")}); !strings.Contains(got, "issuers.corp.proxy") {
			t.Errorf("%s: got %q", what, got)
		}
	}
	if got := iss.cureFetch(&keysError{what: string(fetch.BadStatus) + " 500"}); strings.Contains(got, "issuers.corp.proxy") {
		t.Errorf("an answer of the issuer: got %q", got)
	}
}

// These errors need a certificate or a resolver of their own; here they are made by hand.
func TestCuresOfNamesAndCertificates(t *testing.T) {
	iss := &issuer{name: "corp"}
	for err, want := range map[error]string{
		x509.HostnameError{Certificate: &x509.Certificate{}, Host: "a"}: "write the name that is in the issuer's certificate",
		&net.DNSError{Err: "no such host", Name: "a", IsNotFound: true}: "DNS does not know this name here",
		x509.CertificateInvalidError{Reason: x509.Expired}:              "renew the issuer's certificate, or correct the clock",
		io.EOF: "if the server speaks TLS at this port, write https:// in issuers.corp.url", // as some servers with TLS answer
	} {
		if got := iss.cureFetch(&keysError{url: "http://127.0.0.1/", what: string(fetch.Unreachable), err: err}); !strings.HasPrefix(got, want) {
			t.Errorf("%v: got %q", err, got)
		}
	}
}

// The log, and the record of somebody who could not sign in, say how to mend an issuer's configuration.
func TestLogAndRecordNameTheCureOfAnIssuer(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for address, want := range map[string]struct{ record, log string }{
		secure.URL: {": untrusted server (name the file with the root certificate of the issuer's authority in issuers.corp.ca): tls: ", `cure="name the file with the root`},
		strings.Replace(secure.URL, "https:", "http:", 1): {": bad status 400 (if the server speaks TLS at this port, write https:// in issuers.corp.url)", `cure="if the server speaks TLS`},
		plain.URL:            {": bad status 404: no discovery document there: write as url", `cause="no discovery document there: write as url`},
		"http://127.0.0.1:1": {": unreachable (start the issuer, or let this machine reach it: routes, firewall, and the port in the URL): connection refused", `cure="start the issuer`},
	} {
		var logged bytes.Buffer
		m := NewMemory(MemoryOptions{Log: textLog(&logged)})
		c := IssuerConfig{URL: address, Audience: setting.List[string]{"models"}}
		refresh(t, activeAuth(t, m, Config{Issuers: map[string]IssuerConfig{"corp": c}}))
		iss, err := newIssuer("corp", c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = newLoginIssuer(iss, m).Endpoints(t.Context())
		if !errors.Is(err, login.ErrUnavailable) || !strings.Contains(err.Error(), "discovery of issuer corp"+want.record) {
			t.Errorf("the record of %s says: %v", address, err)
		}
		if !strings.Contains(logged.String(), want.log) {
			t.Errorf("the log of %s says: %s", address, logged.String())
		}
	}
}
