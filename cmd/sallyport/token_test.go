package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// tokenSecret is the client's secret at the issuer of the scripts. It has characters that both ways
// of sending it must encode.
const tokenSecret = `s3cr%t&"+: e`

// testIssuer is an issuer for scripts. The client id chooses how it answers.
type testIssuer struct {
	url, methods string
}

// startIssuer serves an issuer with TLS until the script ends: `issuer [METHOD]`. METHOD is the only
// way of client authentication that its discovery document lists.
func startIssuer(ts *testscript.TestScript, _ bool, args []string) {
	i := &testIssuer{methods: `"client_secret_basic","client_secret_post"`}
	if len(args) > 0 {
		i.methods = fmt.Sprintf("%q", args[0])
	}
	s := httptest.NewUnstartedServer(i)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	ts.Defer(s.Close)
	clientCertificate(ts)
	i.url = s.URL
	ts.Setenv("ISSUER", s.URL)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), ca, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("secret"), []byte(tokenSecret+"\n"), 0o600))
	config := "tls: {local: {}}\nissuers: {corp: {url: " + s.URL + ", audience: models, ca: ca.pem}}\n" +
		"routes: [{host: a.example, upstream: \"http://127.0.0.1:1\", callers: issuer/corp, rules: [{allow: \"*\"}]}]\n"
	ts.Check(os.WriteFile(ts.MkAbs("gateway.yaml"), []byte(config), 0o600))
}

// clientCertificate writes the certificate of client batch, and its key.
func clientCertificate(ts *testscript.TestScript) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "batch"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	text, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("batch.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("batch.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}), 0o600))
}

func (i *testIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer": %q, "token_endpoint": %q, "token_endpoint_auth_methods_supported": [%s],
			"mtls_endpoint_aliases": {"token_endpoint": %q}}`, i.url, i.url+"/token", i.methods, i.url+"/mtls")
	case "/other/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer": %q, "token_endpoint": %q}`, i.url, i.url+"/token")
	case "/plain/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer": %q, "token_endpoint": "http://issuer.example/token"}`, i.url+"/plain")
	case "/page/.well-known/openid-configuration":
		fmt.Fprint(w, "<html>")
	case "/moved/.well-known/openid-configuration":
		http.Redirect(w, r, "/", http.StatusFound)
	case "/token", "/mtls":
		i.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

// token answers with a token that says what was sent, but for the secret.
func (i *testIssuer) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	how := "basic"
	id, secret, ok := r.BasicAuth()
	if !ok {
		how, id, secret = "post", r.Form.Get("client_id"), r.Form.Get("client_secret")
	} else {
		// Both halves are encoded as in a form (RFC 6749, section 2.3.1).
		id, secret = unescape(id), unescape(secret)
	}
	refuse := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		text, _ := json.Marshal(map[string]string{"error": code, "error_description": "not " + secret + "\x1b[31m for you"})
		w.Write(text)
	}
	if r.URL.Path == "/mtls" && secret == "" {
		if how = "certificate"; len(r.TLS.PeerCertificates) == 1 && r.TLS.PeerCertificates[0].Subject.CommonName == id {
			secret = tokenSecret
		}
	}
	known := []string{"batch", "dpop", "blank", "html", "empty", "brief"}
	switch {
	case r.Method != http.MethodPost || r.Form.Get("grant_type") != "client_credentials":
		refuse("unsupported_grant_type")
	case slices.Contains([]string{"unauthorized_client", "invalid_target", "access_denied", "server_error", "odd code"}, id):
		refuse(id)
	case !slices.Contains(known, id) || secret != tokenSecret || how != "certificate" && !strings.Contains(i.methods, how):
		refuse("invalid_client")
	case r.Form.Get("scope") == "admin":
		refuse("invalid_scope")
	case id == "dpop":
		fmt.Fprint(w, `{"access_token": "a.b.c", "token_type": "DPoP", "expires_in": 300}`)
	case id == "blank":
		fmt.Fprint(w, `{"access_token": "a b\nc", "token_type": "Bearer"}`)
	case id == "html":
		fmt.Fprint(w, `<html>a.b.c`)
	case id == "empty":
		w.WriteHeader(http.StatusBadGateway)
	default:
		fmt.Fprintf(w, `{"access_token": "%s.%s.%s", "token_type": "bearer", "expires_in": 300, "scope": "read"}`,
			how, strings.ReplaceAll(r.Form.Get("scope"), " ", "+"), strings.Join(append(r.Form["audience"], r.Form["resource"]...), "+"))
	}
}

func unescape(s string) string {
	r, _ := http.NewRequest(http.MethodGet, "http://h/?x="+s, nil)
	return r.URL.Query().Get("x")
}
