package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// issuerHouse is a house whose issuer is the server at the URL. A second route requires no token.
func issuerHouse(t *testing.T, at, more string) (*house, *judge) {
	t.Helper()
	j := newJudge(t, nil)
	return lodge(t, fmt.Sprintf(`
listen: {https: "127.0.0.1:0", http: off, health: "127.0.0.1:0"}
tls: {local: {dir: "%%s/ca"}}
issuers: {corp: {url: %q, audience: models%s}}
routes:%s
  - {host: models.test, path: /open, upstream: %q, callers: anonymous, rules: [{allow: "*"}]}
`, at, more, j.before(""), j.URL), proxy.Options{}), j
}

// inquire sends one request with a token; "" for none.
func (h *house) inquire(path, token string) string {
	h.t.Helper()
	if token != "" {
		token = "Authorization: Bearer " + token + "\r\n"
	}
	return h.tell("GET " + path + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n" + token + "\r\n")
}

// An issuer is down, hangs or sends garbage when the gateway starts. Requests that need it get 503;
// others are served.
func TestAttackIssuerAtTheStart(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	var canary atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { canary.Add(1) }))
	t.Cleanup(elsewhere.Close)
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	said := func(text string) string {
		return serve(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.ReplaceAll(text, "SELF", "http://"+r.Host))
		})
	}
	discovery := func(keys string) string {
		return serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/jwks" {
				fmt.Fprintf(w, `{"issuer": "http://%s", "jwks_uri": "http://%s/jwks"}`, r.Host, r.Host)
				return
			}
			_, _ = io.WriteString(w, keys)
		})
	}
	var all sync.WaitGroup
	for name, at := range map[string]string{
		"down":                 "http://" + closed.Addr().String(),
		"hanging":              serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"silent":               rawUpstream(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }),
		"a page":               said("<html>It works!</html>"),
		"empty":                said(""),
		"null":                 said("null"),
		"another issuer":       said(`{"issuer": "http://evil.test", "jwks_uri": "SELF/jwks"}`),
		"keys elsewhere":       said(`{"issuer": "SELF", "jwks_uri": "file:///etc/passwd"}`),
		"keys of the cloud":    said(`{"issuer": "SELF", "jwks_uri": "http://169.254.169.254/latest/meta-data"}`),
		"a redirect":           serve(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }),
		"an error":             serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }),
		"without end":          rawUpstream(t, forever("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{", `"a":1,`)),
		"a head without end":   rawUpstream(t, forever("HTTP/1.1 200 OK\r\n", "X: y\r\n")),
		"no keys":              discovery(`{"keys": []}`),
		"keys that are none":   discovery(`{"keys": [{"kty": "oct", "k": "AAAA"}]}`),
		"keys as a page":       discovery("<html>"),
		"keys as a list":       discovery("[]"),
		"more keys than is ok": discovery(`{"keys": [` + strings.Repeat(`{"kty":"RSA","n":"AQAB","e":"AQAB"},`, 50_000) + `{}]}`),
	} {
		h, j := issuerHouse(t, at, "")
		iss, err := authtest.NewIssuer(authtest.IssuerConfig{URL: at, Audience: "models"})
		if err != nil {
			t.Fatal(err)
		}
		h.issuer = iss
		token := h.token()
		all.Go(func() {
			got := h.inquire("/", token)
			if statuses(got) != "503" || !strings.Contains(got, "issuer_unavailable") || !strings.Contains(got, "\r\nRetry-After: ") {
				t.Errorf("%s: got %s; want 503 issuer_unavailable with Retry-After", name, got)
			}
			for what, want := range map[string]string{"": "401", "x.y.z": "401", "eyJhbGciOiJub25lIn0.e30.": "401"} {
				if got := statuses(h.inquire("/", what)); got != want {
					t.Errorf("%s, token %q: %s; want %s", name, what, got, want)
				}
			}
			if got := statuses(h.inquire("/open", token)); got != "200" {
				t.Errorf("%s: a route without tokens answers %s", name, got)
			}
			if up := targets(j.taken()); up != "GET /open" {
				t.Errorf("%s: the upstream saw %s", name, up)
			}
			if !strings.Contains(h.get("/readyz"), `"ready": true`) {
				t.Errorf("%s: not ready", name)
			}
		})
	}
	all.Wait()
	if n := canary.Load(); n > 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// An issuer that starts late is found. When it stops, its known keys remain in use.
func TestAttackIssuerOutage(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := "http://" + l.Addr().String()
	iss, err := authtest.NewIssuer(authtest.IssuerConfig{URL: at, Audience: "models"})
	if err != nil {
		t.Fatal(err)
	}
	var up atomic.Bool
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		iss.ServeHTTP(w, r)
	})}}
	s.Start()
	t.Cleanup(s.Close)
	h, j := issuerHouse(t, at, ", refresh: 1m")
	h.issuer = iss
	if got := h.inquire("/", h.token()); statuses(got) != "503" {
		t.Fatalf("got %s; want 503", got)
	}
	up.Store(true)
	eventually(t, "the issuer is found", func() bool { return statuses(h.inquire("/", h.token())) == "200" })
	s.Close()
	j.taken()
	for range 5 { // each token is a new one
		if got := h.inquire("/", h.token()); statuses(got) != "200" {
			t.Errorf("after the issuer went: %s", got)
		}
	}
	if n := len(j.taken()); n != 5 {
		t.Errorf("the upstream saw %d requests; want 5", n)
	}
	stranger, err := authtest.NewIssuer(authtest.IssuerConfig{URL: at, Audience: "models"}) // with another key
	if err != nil {
		t.Fatal(err)
	}
	token, _ := stranger.Sign(stranger.Claims("mallory", "models.predict"))
	if got := h.inquire("/", token); statuses(got) != "503" && statuses(got) != "401" || len(j.taken()) > 0 {
		t.Errorf("a key that nobody knows: %s", got)
	}
	h.end(j, nil)
}

// URLs and paths in a token make the gateway contact none of them.
func TestAttackTokensWithURLs(t *testing.T) {
	var canary atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	evil := "http://" + l.Addr().String()
	mallory, err := authtest.NewIssuer(authtest.IssuerConfig{URL: evil, Audience: "models"})
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		canary.Add(1)
		mallory.ServeHTTP(w, r)
	})}}
	s.Start()
	t.Cleanup(s.Close)
	iss, at := newIssuer(t)
	h, j := issuerHouse(t, at, "")
	h.issuer = iss
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := strings.Split(h.token(), ".")
	var known struct{ Kid string }
	text, _ := base64.RawURLEncoding.DecodeString(own[0])
	if err := json.Unmarshal(text, &known); err != nil {
		t.Fatal(err)
	}
	tokens := []string{}
	bySelf, _ := mallory.Sign(mallory.Claims("alice", "models.predict"))
	tokens = append(tokens, bySelf)
	claims := h.issuer.Claims("alice", "models.predict")
	for _, place := range []string{evil, evil + "/jwks", evil + "/.well-known/openid-configuration", "HTTP" + evil[4:], "//" + l.Addr().String(), at + "@" + l.Addr().String(), at + "#" + evil, at + "/../" + evil} {
		for _, more := range []map[string]any{{"jku": place}, {"x5u": place}, {"kid": place}, {"jku": place, "x5u": place, "kid": known.Kid}, {"kid": known.Kid, "jwk": map[string]any{"kty": "EC", "jku": place}}, {"iss": place}, {"crit": []string{"jku"}, "jku": place, "kid": known.Kid}, {"typ": "JWT", "x5c": []string{place}, "kid": known.Kid}} {
			tokens = append(tokens, forge(t, key, more, claims))
		}
		odd := h.issuer.Claims("alice", "models.predict")
		odd["iss"] = place
		for _, name := range []string{"jwks_uri", "jku", "aud_uri", "introspection_endpoint", "userinfo_endpoint", "_claim_sources"} {
			odd[name] = place
		}
		signed, _ := mallory.Sign(odd)
		tokens = append(tokens, signed, forge(t, key, map[string]any{"kid": known.Kid}, odd))
		// These are signed by the true issuer; claims with URLs are plain text.
		odd["iss"], odd["_claim_names"] = at, map[string]any{"groups": "src"}
		odd["_claim_sources"] = map[string]any{"src": map[string]any{"endpoint": place}}
		distributed, _ := h.issuer.Sign(odd)
		if got := statuses(h.inquire("/distributed", distributed)); got != "200" && got != "401" {
			t.Errorf("a token with distributed claims: %s", got)
		}
	}
	j.taken()
	for i, token := range tokens {
		if got := h.inquire("/", token); statuses(got) != "401" {
			t.Errorf("token %d: %s; want 401", i, got)
		}
	}
	if up := j.taken(); len(up) > 0 {
		t.Errorf("the upstream saw %s", targets(up))
	}
	time.Sleep(50 * time.Millisecond) // an unwanted fetch would have begun by now
	h.end(j, nil)
	if n := canary.Load(); n > 0 {
		t.Errorf("the gateway called a place that a token names %d times", n)
	}
}

// forge signs claims with an attacker's key under any header.
func forge(t *testing.T, key *ecdsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	h := map[string]any{"alg": "ES256"}
	for k, v := range header {
		h[k] = v
	}
	first, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString(first) + "." + base64.RawURLEncoding.EncodeToString(second)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}
