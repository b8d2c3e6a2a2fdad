package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
)

// secretOf is the secret of a test key.
func secretOf(id string) []byte {
	sum := sha512.Sum512([]byte("secret of " + id))
	return sum[:]
}

// keyOf is the test key with that secret.
func keyOf(id string) *httpsig.Key {
	k, err := httpsig.HMACKey(id, secretOf(id))
	if err != nil {
		panic(err)
	}
	return k
}

// edPrivate is the private half of an Ed25519 test key.
func edPrivate(id string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("seed of " + id))
	return ed25519.NewKeyFromSeed(seed[:])
}

func edKey(id string) *httpsig.Key {
	k, err := httpsig.Ed25519Key(id, edPrivate(id))
	if err != nil {
		panic(err)
	}
	return k
}

func edPEM(id string, private bool) string {
	kind, der, err := "PRIVATE KEY", []byte(nil), error(nil)
	if private {
		der, err = x509.MarshalPKCS8PrivateKey(edPrivate(id))
	} else {
		kind = "PUBLIC KEY"
		der, err = x509.MarshalPKIXPublicKey(edPrivate(id).Public())
	}
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// testKeys are the signing keys of every house that accepts signatures. {id} stands for the file
// with the secret.
const testKeys = `
signing_keys:
  acme-1: {principal: acme, secret: {file: acme-1.key}}
  acme-2: {principal: acme, secret: {file: acme-2.key}}
  orbit-1: {principal: orbit, secret: {file: orbit-1.key}}
  orbit-ed: {principal: orbit, public_key: orbit-ed.pem}
  early-1: {principal: acme, secret: {file: early-1.key}, not_before: 2100-01-01}
  ended-1: {principal: acme, secret: {file: ended-1.key}, not_after: 2020-01-01}
  answers-1: {principal: acme, secret: {file: answers-1.key}, use: sign_response}
  plain-1: {principal: acme, secret: {file: plain-1.key}, require_nonce: false}
  gateway-ed: {private_key: {file: gateway-ed.pem}, use: sign_response}
  out-1: {secret: {file: out-1.key}, use: sign_request}
  back-1: {secret: {file: back-1.key}, use: verify_response}
  back-2: {secret: {file: back-2.key}, use: verify_response}
`

// noNonces is a state file that says that no nonce has been used.
const noNonces = "sallyport-nonces"

// keyFiles are the files of testKeys, and noNonces.
func keyFiles() map[string]string {
	files := map[string]string{noNonces: "", "orbit-ed.pem": edPEM("orbit-ed", false), "gateway-ed.pem": edPEM("gateway-ed", true)}
	for _, id := range []string{"acme-1", "acme-2", "orbit-1", "early-1", "ended-1", "answers-1", "plain-1", "out-1", "back-1", "back-2"} {
		files[id+".key"] = base64.StdEncoding.EncodeToString(secretOf(id))
	}
	return files
}

// signedRoute is a route for acme's signatures.
const signedRoute = `
  - {host: models.test, upstream: '%s', callers: key/acme, rules: [{allow: "*"}]}
`

// signed builds a house with testKeys; the zero plan uses signedRoute.
func signed(t *testing.T, p plan) *house {
	t.Helper()
	if p.routes == "" {
		p.routes = signedRoute
	}
	p.more = testKeys + p.more
	files := keyFiles()
	maps.Copy(files, p.files)
	p.files = files
	return build(t, p)
}

// errand is a request signed by its client. The zero errand is valid: a short POST to models.test,
// signed with acme-1.
type errand struct {
	method, authority, target string
	body                      string
	fields                    httpsig.Lines // in addition to digest and signature
	digest                    string        // Content-Digest; "-" for none

	key     *httpsig.Key
	at      time.Duration // how far the client's clock is ahead
	nonce   string        // a fresh one if empty
	cover   []string      // instead of the profile's components
	tag     string
	forever bool // without the parameter expires

	// params, if set, are handwritten parameters, from "(" on, of a signature with the secret of
	// acme-1.
	params string

	// The test may change these results of sign.
	label, input, signature string
}

const usualBody = `{"instances": [1.0]}`

// message is the signed form of the request, with all its fields.
func (e *errand) message() *httpsig.Message {
	m := &httpsig.Message{Method: e.method, Scheme: "https", Authority: e.authority, Fields: e.fields}
	m.Path, m.Query, m.HasQuery = strings.Cut(e.target, "?")
	return m
}

// signed fills in defaults and signs the request.
func (e errand) signed(t testing.TB) *errand {
	t.Helper()
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	if e.method == "" {
		e.method, e.body = "POST", usualBody
	}
	def(&e.authority, "models.test")
	def(&e.target, "/v1/models/m:predict?q=1")
	def(&e.label, "sp")
	def(&e.digest, httpsig.ContentDigest([]byte(e.body)))
	if e.fields == nil && e.body != "" {
		e.fields = httpsig.Lines{{Name: "Content-Type", Value: "application/json"}}
	}
	if e.digest != "-" {
		e.fields = append(e.fields[:len(e.fields):len(e.fields)], httpsig.Line{Name: "Content-Digest", Value: e.digest})
	}
	if e.params != "" {
		base, err := httpsig.Base(e.message(), e.params)
		if err != nil {
			base = []byte(err.Error()) // a request that cannot be signed is refused before verification
		}
		e.input, e.signature = e.label+"="+e.params, e.label+"=:"+base64.StdEncoding.EncodeToString(macOf("acme-1", base))+":"
		return &e
	}
	if e.key == nil {
		e.key = keyOf("acme-1")
	}
	p := httpsig.RequestProfile()
	p.Label = e.label
	if e.cover != nil {
		p.Cover, p.IfPresent = e.cover, nil
	}
	if e.tag != "" {
		p.Tag = e.tag
	}
	if e.forever {
		p.Lifetime = 0
	}
	s, err := httpsig.NewSigner(p, func() time.Time { return time.Now().Add(e.at) })
	if err != nil {
		t.Fatal(err)
	}
	made, err := s.Sign(e.key, e.message(), e.nonce)
	if err != nil {
		t.Fatal(err)
	}
	e.input, e.signature, e.nonce = made.Input, made.Signature, made.Nonce
	return &e
}

func macOf(id string, base []byte) []byte {
	h := hmac.New(sha256.New, secretOf(id))
	h.Write(base)
	return h.Sum(nil)
}

// lines are the field lines with the signature.
func (e *errand) lines() httpsig.Lines {
	return append(e.fields[:len(e.fields):len(e.fields)], httpsig.Line{Name: "Signature-Input", Value: e.input}, httpsig.Line{Name: "Signature", Value: e.signature})
}

// raw renders the request for HTTP/1.1, as the last on its connection.
func (e *errand) raw() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", e.method, e.target, e.authority)
	for _, l := range e.lines() {
		fmt.Fprintf(&b, "%s: %s\r\n", l.Name, l.Value)
	}
	if e.body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(e.body))
	}
	return b.String() + "Connection: close\r\n\r\n" + e.body
}

// request converts the request for net/http's client.
func (e *errand) request(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequest(e.method, "https://"+e.authority+e.target, strings.NewReader(e.body))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range e.lines() {
		r.Header.Add(l.Name, l.Value)
	}
	return r
}

// sendErrand sends an errand over HTTP/1.1.
func (h *house) sendErrand(e *errand) *reply {
	h.t.Helper()
	return h.send(h.client(false), e.request(h.t))
}

// parse reads the first final answer in raw bytes.
func (h *house) parse(raw, method string) *reply {
	h.t.Helper()
	in := bufio.NewReader(strings.NewReader(raw))
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			h.t.Fatalf("%v in %q", err, raw)
		}
		if res.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			h.t.Fatalf("%v in %q", err, raw)
		}
		return &reply{res, string(body)}
	}
}

// passed checks that the model server answered a signed request, its n-th in all.
func (h *house) passed(r *reply, n int64) {
	h.t.Helper()
	if r.StatusCode != 200 || h.model.hits.Load() != n {
		h.t.Fatalf("got %d %s, with %d requests at the upstream; want 200 and %d", r.StatusCode, r.body, h.model.hits.Load(), n)
	}
}

// stillRefused is refused for a model server that has seen n requests before.
func (h *house) stillRefused(r *reply, status int, reason string, n int64) {
	h.t.Helper()
	if r.StatusCode != status || r.reason() != reason {
		h.t.Errorf("got %d %s; want %d with reason %q", r.StatusCode, r.body, status, reason)
	}
	if got := h.model.hits.Load(); got != n {
		h.t.Errorf("the upstream saw %d requests; want %d", got, n)
	}
}

// unsigned checks that an answer has no signature.
func (h *house) unsigned(r *reply) {
	h.t.Helper()
	for _, name := range []string{"Signature", "Signature-Input", "Content-Digest"} {
		if v := r.Header.Values(name); len(v) != 0 {
			h.t.Errorf("the answer with status %d has %s: %s", r.StatusCode, name, v)
		}
	}
}

// answerOf is the signed form of an answer.
func (e *errand) answerOf(r *reply) *httpsig.Message {
	m := e.message()
	m.Fields = e.lines()
	return &httpsig.Message{Status: r.StatusCode, Fields: httpsig.Header(r.Header), Trailers: httpsig.Header(r.Trailer), Request: m}
}

// verifier returns a verifier for answers signed with these keys.
func verifier(t testing.TB, p httpsig.Policy, keys ...*httpsig.Key) *httpsig.Verifier {
	t.Helper()
	p.Algorithms = []httpsig.Algorithm{httpsig.HMACSHA256, httpsig.Ed25519}
	p.Skew = time.Hour // some tests set the gateway's clock
	v, err := httpsig.NewVerifier(p, httpsig.VerifierOptions{Key: func(id string) *httpsig.Key {
		for _, k := range keys {
			if k.ID() == id {
				return k
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// vouched checks that the whole answer is signed for its request with key.
func (h *house) vouched(e *errand, r *reply, key *httpsig.Key) *httpsig.Signature {
	h.t.Helper()
	s, err := verifier(h.t, httpsig.ResponsePolicy(), key).VerifyResponse(e.answerOf(r), e.nonce, false)
	if err != nil {
		h.t.Fatalf("the answer %d %v: %v", r.StatusCode, r.Header, err)
	}
	d, err := httpsig.ParseContentDigest(httpsig.Header(r.Header))
	if err == nil {
		err = d.Match([]byte(r.body))
	}
	if err != nil {
		h.t.Fatalf("the answer's content: %v", err)
	}
	return s
}

// signingClient is a client that signs requests and verifies answers.
func (h *house) signingClient(h2 bool, change func(*httpsig.Transport)) *http.Client {
	c := h.client(h2)
	tr := &httpsig.Transport{Base: c.Transport, Key: keyOf("acme-1")}
	if change != nil {
		change(tr)
	}
	c.Transport = tr
	return c
}

// mustNotHold fails the test if a text contains part of a secret in any encoding.
func mustNotHold(t testing.TB, what, text string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		secret := secretOf(id)
		for _, form := range []string{base64.StdEncoding.EncodeToString(secret)[:20], fmt.Sprintf("%x", secret)[:20], fmt.Sprint(secret)[1:20]} {
			if strings.Contains(text, form) {
				t.Errorf("%s holds the secret of %s", what, id)
			}
		}
		if bytes.Contains([]byte(text), secret[:10]) {
			t.Errorf("%s holds the secret of %s", what, id)
		}
	}
}

func regexpReplace(s, pattern, with string) string {
	return regexp.MustCompile(pattern).ReplaceAllString(s, with)
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func base64Of512(body string) string {
	sum := sha512.Sum512([]byte(body))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// withLooseBits sets an unused bit of the last base64 character.
func withLooseBits(s string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	i := strings.LastIndex(s, "=:") - 1
	return s[:i] + string(digits[strings.IndexByte(digits, s[i])|1]) + s[i+1:]
}
