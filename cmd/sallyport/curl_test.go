package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/auth/httpsig"
)

// testGateway verifies requests and signs answers like a gateway. The path selects how it
// answers.
type testGateway struct {
	ts      *testscript.TestScript
	secret  *httpsig.Key // of alice
	partner *httpsig.Key // public
	own     *httpsig.Key // which it publishes
	off     time.Duration

	mu   sync.Mutex // guards seen
	seen map[[16]byte]bool
}

// startGateway implements `gateway [h2] [OFFSET]`: it starts a gateway whose clock is off
// by OFFSET. It sets GATEWAY to its URL, and writes its authority to ca.pem and its
// public key to gateway.json.
func startGateway(ts *testscript.TestScript, _ bool, args []string) {
	key := func(k *httpsig.Key, err error) *httpsig.Key { ts.Check(err); return k }
	secret := []byte("0123456789012345678901234567890123456789012345678901234567890123")
	private := func(b byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(b), ed25519.SeedSize)))
	}
	g := &testGateway{ts: ts, seen: make(map[[16]byte]bool)}
	g.secret = key(httpsig.HMACKey("alice", secret))
	g.partner = key(readKey("partner", ts.MkAbs("public.pem")))
	g.own = key(httpsig.Ed25519Key("gw-1", private('g')))
	server := httptest.NewUnstartedServer(g)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	for _, arg := range args {
		if server.EnableHTTP2 = arg == "h2"; server.EnableHTTP2 {
			continue
		}
		var err error
		g.off, err = time.ParseDuration(arg)
		ts.Check(err)
	}
	server.StartTLS()
	ts.Defer(server.Close)
	ts.Setenv("GATEWAY", server.URL)
	ts.Setenv("PORT", server.URL[strings.LastIndex(server.URL, ":")+1:])
	ts.Setenv("HOST", strings.TrimPrefix(server.URL, "https://"))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), ca, 0o600))
	jwks := fmt.Sprintf(`{"keys": [{"kty": "RSA"}, {"kty": "OKP", "crv": "Ed25519", "kid": "gw-1", "x": "%s"}]}`,
		base64.RawURLEncoding.EncodeToString(private('g').Public().(ed25519.PublicKey)))
	ts.Check(os.WriteFile(ts.MkAbs("gateway.json"), []byte(jwks), 0o600))
}

func (g *testGateway) now() time.Time { return time.Now().Add(g.off) }

func (g *testGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", g.now().UTC().Format(http.TimeFormat))
	m := &httpsig.Message{Method: r.Method, Scheme: "https", Authority: r.Host, Fields: httpsig.Header(r.Header)}
	m.Path, m.Query, m.HasQuery = strings.Cut(r.RequestURI, "?")
	policy := httpsig.RequestPolicy()
	policy.Algorithms = []httpsig.Algorithm{httpsig.HMACSHA256, httpsig.Ed25519}
	if strings.HasPrefix(m.Path, "/tenants") {
		policy.Require = append(policy.Require, "x-tenant")
	}
	verifier, err := httpsig.NewVerifier(policy, httpsig.VerifierOptions{
		Key: func(id string) *httpsig.Key {
			return map[string]*httpsig.Key{"alice": g.secret, "partner": g.partner}[id]
		},
		Authority: func(string) bool { return true },
		Now:       g.now,
	})
	g.ts.Check(err)
	s, err := verifier.Verify(m)
	if err != nil {
		g.refuse(w, 401, string(err.(*httpsig.Error).Code.Public()))
		return
	}
	content, err := io.ReadAll(r.Body)
	g.ts.Check(err)
	digests, err := httpsig.ParseContentDigest(m.Fields)
	if err == nil {
		err = digests.Match(content)
	}
	if err != nil {
		g.refuse(w, 400, string(httpsig.DigestMismatch))
		return
	}
	g.mu.Lock()
	replayed := g.seen[s.Claim]
	g.seen[s.Claim] = true
	g.mu.Unlock()
	if reason, ok := strings.CutPrefix(m.Path, "/refuse/"); ok || replayed {
		if replayed {
			reason = string(httpsig.Replayed)
		}
		g.refuse(w, 401, reason)
		return
	}
	g.answer(w, m, s, fmt.Sprintf("%s %s %s", r.Method, r.Header.Get("Content-Type"), content))
}

func (g *testGateway) refuse(w http.ResponseWriter, status int, reason string) {
	h := w.Header()
	h.Set("Accept-Signature", `sp=("@method" "@authority" "@path" "@query" "content-digest" "x-tenant");created;tag="sallyport-req"`)
	h.Set("Retry-After", "7")
	h.Set("WWW-Authenticate", `Bearer error="insufficient_user_authentication", acr_values="mfa hwk", max_age="600"`)
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"title":"Refused.","status":%d,"reason":"%s"}`+"\n", status, reason)
}

// answer signs an answer, and changes it afterwards, as the path says.
func (g *testGateway) answer(w http.ResponseWriter, request *httpsig.Message, s *httpsig.Signature, content string) {
	h, status := w.Header(), 200
	h.Set("Content-Type", "text/plain")
	if request.Path == "/missing" {
		status = 404
	}
	response := &httpsig.Message{Status: status, Request: request, Fields: httpsig.Header(h)}
	key := s.Key
	if key == g.partner || request.Path == "/other-key" {
		key = g.own
	}
	sign := func(h http.Header, p httpsig.Profile) {
		signer, err := httpsig.NewSigner(p, g.now)
		g.ts.Check(err)
		signed, err := signer.Sign(key, response, s.Nonce)
		g.ts.Check(err)
		h.Set("Signature-Input", signed.Input)
		h.Set("Signature", signed.Signature)
	}
	switch request.Path {
	case "/stream", "/stream/changed", "/stream/cut", "/stream/stripped":
		g.stream(w, response, sign, content)
		return
	case "/unsigned":
	case "/head":
		sign(h, httpsig.HeadProfile(httpsig.TagResponseHeadOnly))
	default:
		h.Set("Content-Digest", httpsig.ContentDigest([]byte(content)))
		sign(h, httpsig.ResponseProfile())
	}
	if request.Path == "/changed" {
		content = "!" + content[1:]
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, content)
}

func (g *testGateway) stream(w http.ResponseWriter, response *httpsig.Message, sign func(http.Header, httpsig.Profile), content string) {
	h, tail := w.Header(), make(http.Header)
	sign(h, httpsig.HeadProfile(httpsig.TagResponseHead))
	tail.Set("Content-Digest", httpsig.ContentDigest([]byte(content)))
	response.Trailers = httpsig.Header(tail)
	sign(tail, httpsig.TailProfile())
	if strings.HasPrefix(response.Request.Query, "events") {
		h.Set("Content-Type", "text/event-stream")
		sign(h, httpsig.HeadProfile(httpsig.TagResponseHead))
	}
	h.Set("Trailer", "Content-Digest, Signature-Input, Signature")
	w.WriteHeader(200)
	if response.Request.Path == "/stream/changed" {
		content += "!"
	}
	_, _ = io.WriteString(w, content)
	w.(http.Flusher).Flush()
	switch response.Request.Path {
	case "/stream/cut":
		panic(http.ErrAbortHandler)
	case "/stream/stripped":
		tail = nil
	}
	for name, values := range tail {
		h[name] = values
	}
}
