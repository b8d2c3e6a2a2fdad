package auth

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// signedBy makes the issuer sign its answers about a token; change alters the claims of the
// answer.
func (o *opaque) signedBy(k authtest.Key, header string, change func(map[string]any)) {
	o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims := map[string]any{"iss": o.URL, "aud": clientID, "iat": o.clock.Now().Unix(), "token_introspection": json.RawMessage(o.About(r.PostForm.Get("token")))}
		if change != nil {
			change(claims)
		}
		for name, v := range claims {
			if v == nil {
				delete(claims, name)
			}
		}
		w.Header().Set("Content-Type", signedAnswer)
		text, _ := json.Marshal(claims)
		fmt.Fprint(w, k.Sign(header, string(text)))
	}))
}

func signedHeader(k authtest.Key) string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"token-introspection+jwt"}`, k.Algorithm, k.ID)
}

func TestSignedAnswerIsVerified(t *testing.T) {
	for _, signed := range []bool{false, true} {
		o := newOpaque(t, func(c *IssuerConfig) { c.Introspection.Signed = signed })
		o.signedBy(o.key, signedHeader(o.key), nil)
		want(t, o.chain, o.know("0paque", nil), "")
		want(t, o.chain, "unkn0wn", TokenInactive)
		accept := "application/json"
		if signed {
			accept = signedAnswer
		}
		if got := o.LastLookUp().Header.Get("Accept"); got != accept {
			t.Errorf("asked for %s, want %s", got, accept)
		}
	}
}

// TestSignedAnswerOfAnotherIsRefused: neither a plain answer, if signed ones are wanted, nor a
// JWT of another kind, issuer, client or time, nor one with a bad signature.
func TestSignedAnswerOfAnotherIsRefused(t *testing.T) {
	evil := authtest.NewKey("one", "EdDSA", authtest.Ed25519())
	set := func(name string, v any) func(map[string]any) { return func(m map[string]any) { m[name] = v } }
	for name, c := range map[string]struct {
		key    *authtest.Key // nil: the issuer's
		header string        // "": the right one
		change func(map[string]any)
		cause  string
	}{
		"another key":     {key: &evil, cause: "the signature does not match key \"one\""},
		"an unknown key":  {header: `{"alg":"EdDSA","kid":"two","typ":"token-introspection+jwt"}`, cause: `the token has kid "two" and alg "EdDSA"; none of the issuer's 1 keys matches`},
		"an access token": {header: `{"alg":"EdDSA","kid":"one","typ":"at+jwt"}`, cause: `typ is "at+jwt"`},
		"a JWT":           {header: `{"alg":"EdDSA","kid":"one","typ":"JWT"}`, cause: `typ is "JWT"`},
		"no typ":          {header: `{"alg":"EdDSA","kid":"one"}`, cause: `typ is ""`},
		"alg none":        {header: `{"alg":"none","kid":"one","typ":"token-introspection+jwt"}`, cause: `alg is "none"`},
		"another issuer":  {change: set("iss", "https://other.example"), cause: "not that of the issuer"},
		"no issuer":       {change: set("iss", nil), cause: "not that of the issuer"},
		"another client":  {change: set("aud", "somebody"), cause: `aud is "somebody", not the client_id`},
		"the models":      {change: set("aud", "models"), cause: "not the client_id"},
		"no client":       {change: set("aud", nil), cause: "aud is absent, not the client_id"},
		"old":             {change: set("iat", 1_799_990_000), cause: "iat is absent, or not of now"},
		"of the future":   {change: set("iat", 1_800_000_100), cause: "iat is absent, or not of now"},
		"no time":         {change: set("iat", nil), cause: "iat is absent, or not of now"},
		"expired":         {change: set("exp", 1_799_999_000), cause: "it has expired"},
		"nothing in it":   {change: set("token_introspection", nil), cause: "it has no token_introspection"},
		"a string in it":  {change: set("token_introspection", "{}"), cause: "not a JSON object"},
		"active at the side": {change: func(m map[string]any) {
			m["token_introspection"], m["active"] = json.RawMessage(`{"sub":"alice"}`), true
		}, cause: "active is absent"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOpaque(t, nil)
			key, header := o.key, c.header
			if c.key != nil {
				key = *c.key
			}
			if header == "" {
				header = signedHeader(o.key)
			}
			o.signedBy(key, header, c.change)
			_, err := ask(o.chain, o.know("0paque", nil))
			if reason(t, err) != IssuerUnavailable || !strings.Contains(err.Error(), c.cause) {
				t.Errorf("got %v, want %q", err, c.cause)
			}
		})
	}
	o := newOpaque(t, func(c *IssuerConfig) { c.Introspection.Signed = true })
	_, err := ask(o.chain, o.know("0paque", nil))
	if reason(t, err) != IssuerUnavailable || !strings.Contains(err.Error(), `its type is "application/json", not `+signedAnswer) {
		t.Errorf("a plain answer: got %v", err)
	}
}

// clientCertificate returns files of a new self-signed certificate and its key.
func clientCertificate(t *testing.T) (cert, key setting.Path) {
	t.Helper()
	private := authtest.EC(elliptic.P256())
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), writeFile(t, pemOf(t, "PRIVATE KEY", private))
}

// TestCertificateProvesTheClient (RFC 8705, section 2), at the endpoint that the issuer names
// for clients with one.
func TestCertificateProvesTheClient(t *testing.T) {
	cert, key := clientCertificate(t)
	o := newOpaque(t, nil)
	pool := x509.NewCertPool()
	if text, err := os.ReadFile(string(cert)); err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := r.ParseForm(); err != nil || r.PostForm.Get("client_id") != clientID || r.Header.Get("Authorization") != "" {
			w.WriteHeader(400)
		}
		fmt.Fprint(w, o.About(r.PostForm.Get("token")))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	o.Answer(authtest.Text(fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%s/jwks","introspection_endpoint":"http://127.0.0.1:1/","mtls_endpoint_aliases":{"introspection_endpoint":"%s/mtls"}}`, o.URL, o.URL, server.URL)))
	roots := writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	with := func(pair *setting.Certificate) *Chain {
		_, chain := o.load(t, func(c *IssuerConfig) {
			c.CA = roots
			c.Introspection.ClientSecret, c.Introspection.Certificate = setting.Secret{}, pair
		})
		return chain
	}
	chain := with(&setting.Certificate{Cert: cert, Key: key})
	want(t, chain, o.know("0paque", nil), "")
	other, otherKey := clientCertificate(t)
	_, err := ask(with(&setting.Certificate{Cert: other, Key: otherKey}), "0paque")
	if reason(t, err) != IssuerUnavailable {
		t.Errorf("another certificate: got %v", err)
	}
	bad := o.config()
	bad.Introspection = &IntrospectionConfig{ClientID: clientID, Certificate: &setting.Certificate{Cert: cert, Key: otherKey}}
	if _, err := New(Config{Issuers: map[string]IssuerConfig{"corp": bad}}, o.memory); err == nil || !strings.Contains(err.Error(), "introspection.certificate") {
		t.Errorf("the key of another certificate: got %v", err)
	}
}

// TestKeptConnectionsAreUsedAgain, and a look-up on one that the issuer has closed succeeds.
func TestKeptConnectionsAreUsedAgain(t *testing.T) {
	o := newOpaque(t, nil)
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, o.About(r.PostForm.Get("token")))
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	_, chain := o.load(t, func(c *IssuerConfig) { c.Introspection.URL = mustURL(server.URL) })
	for i := range 5 {
		want(t, chain, o.know(fmt.Sprint("0paque-", i), nil), "")
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	for i := range 5 {
		server.CloseClientConnections()
		want(t, chain, o.know(fmt.Sprint("an0ther-", i), nil), "")
		o.clock.Add(time.Second)
	}
}
