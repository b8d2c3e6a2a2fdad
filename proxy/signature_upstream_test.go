package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sallyport/auth/httpsig"
)

// signedUpstream is an upstream section with signatures in both directions, for routes that name it
// m.
const signedUpstream = `
upstreams: {m: {rest: '%s', integrity: {sign: out-1, verify: back-1}}}
`

const upstreamRoutes = `
  - {host: models.test, upstream: m, callers: [key, issuer/corp], rules: [{allow: "*"}], integrity: {response_buffer: 256KiB}}
` + signedUpstream

func identityFields() []string {
	return []string{"x-sallyport-principal", "x-sallyport-scopes", "x-sallyport-request-id"}
}

// received is the signed form of a request at the upstream.
func received(r *http.Request) *httpsig.Message {
	m := &httpsig.Message{Method: r.Method, Scheme: "http", Authority: r.Host, Fields: httpsig.Header(r.Header)}
	m.Path, m.Query, m.HasQuery = strings.Cut(r.RequestURI, "?")
	return m
}

// forwardVerifier verifies the gateway's requests for an upstream.
func forwardVerifier(t testing.TB, policy httpsig.Policy) *httpsig.Verifier {
	t.Helper()
	v, err := httpsig.NewVerifier(policy, httpsig.VerifierOptions{
		Key: func(id string) *httpsig.Key {
			if id == "out-1" {
				return keyOf("out-1")
			}
			return nil
		},
		Authority: func(string) bool { return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// upstreamSigner is a model server that verifies requests and signs its answers. The path selects
// which mistake it makes.
type upstreamSigner struct {
	t        *testing.T
	verifier *httpsig.Verifier
	mu       sync.Mutex // guards the fields below
	nonces   []string
	faults   []string
}

func newUpstreamSigner(t *testing.T) *upstreamSigner {
	return &upstreamSigner{t: t, verifier: forwardVerifier(t, httpsig.ForwardPolicy(identityFields()...))}
}

func (u *upstreamSigner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m := received(r)
	s, err := u.verifier.Verify(m)
	if err == nil {
		var d httpsig.Digests
		if d, err = httpsig.ParseContentDigest(m.Fields); err == nil {
			err = d.Match(body)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		u.faults = append(u.faults, fmt.Sprintf("%s: %v in %v", r.RequestURI, err, r.Header))
		w.WriteHeader(500)
		return
	}
	u.nonces = append(u.nonces, s.Nonce)
	u.answer(w, r, m, s.Nonce)
}

// sign adds a signature to an answer, or returns its fields.
func (u *upstreamSigner) sign(p httpsig.Profile, key *httpsig.Key, m *httpsig.Message, nonce string) (input, signature string) {
	s, err := httpsig.NewSigner(p, nil)
	if err != nil {
		u.t.Error(err)
		return "", ""
	}
	made, err := s.Sign(key, m, nonce)
	if err != nil {
		u.t.Error(err)
	}
	return made.Input, made.Signature
}

func (u *upstreamSigner) answer(w http.ResponseWriter, r *http.Request, request *httpsig.Message, nonce string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	text, sent, status, key := `{"predictions": [2.5]}`, "", 200, keyOf("back-1")
	way, long := strings.CutPrefix(strings.Trim(r.URL.Path, "/"), "long-")
	way, inChunks := strings.CutPrefix(way, "chunked-")
	switch {
	case long:
		text = strings.Repeat("0123456789abcdef", 40<<10) // longer than held answers
	case way == "pieces":
		text = strings.Repeat("0123456789abcdef", 40<<10)[:200<<10] // shorter
	}
	sent = text
	profile, m := httpsig.ResponseProfile(), &httpsig.Message{Status: status, Fields: httpsig.Header(h), Request: request}
	stream := strings.HasPrefix(way, "stream")
	h.Set("Content-Digest", httpsig.ContentDigest([]byte(text)))
	switch way {
	case "tampered":
		sent = text[:len(text)-1] + "X"
	case "tampered-first":
		sent = "X" + text[1:]
	case "other-request":
		other := *request
		other.Path = "/another"
		m.Request = &other
	case "other-digest":
		other := *request
		other.Fields = httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest([]byte("another"))}}
		m.Request = &other
	case "other-nonce":
		nonce = "AAAAAAAAAAAAAAAAAAAAAA"
	case "other-key":
		key = keyOf("back-2")
	case "client-key":
		key = keyOf("acme-1")
	case "gateway-key":
		key = keyOf("out-1")
	case "wrong-secret":
		key = mustKey("back-1", "wrong")
	case "other-status":
		m.Status = 201
	case "request-tag":
		profile.Tag = httpsig.TagForward
	case "head-only", "head-of-a-stream":
		profile = httpsig.HeadProfile(map[string]string{"head-only": httpsig.TagResponseHeadOnly, "head-of-a-stream": httpsig.TagResponseHead}[way])
		h.Del("Content-Digest")
	case "no-digest":
		profile.Cover = slices.DeleteFunc(profile.Cover, func(s string) bool { return s == "content-digest" })
	case "empty":
		w.WriteHeader(204)
	}
	if r.Method == "HEAD" || way == "204" || stream {
		h.Del("Content-Digest")
		profile = httpsig.HeadProfile(httpsig.TagResponseHeadOnly)
		if way == "204" {
			status = 204
			m.Status, text, sent = 204, "", ""
		}
		if stream {
			profile.Tag = httpsig.TagResponseHead
			h.Set("Trailer", "Content-Digest, Signature-Input, Signature")
		}
	}
	if way != "unsigned" {
		input, signature := u.sign(profile, key, m, nonce)
		h.Set("Signature-Input", input)
		h.Set("Signature", signature)
	}
	if !inChunks && !stream && status != 204 {
		h.Set("Content-Length", strconv.Itoa(len(sent)))
	}
	if way == "tampered-type" {
		h.Set("Content-Type", "text/plain")
	}
	w.WriteHeader(status)
	if r.Method == "HEAD" {
		return
	}
	u.send(w, way, sent, inChunks || stream || way == "pieces")
	if stream {
		u.tail(w, way, text, m, nonce)
	}
}

// send writes content, in pieces of odd sizes if it must flush.
func (u *upstreamSigner) send(w http.ResponseWriter, way, text string, flush bool) {
	if way == "stream-tampered" {
		text = "X" + text[1:]
	}
	for size := 1; text != ""; size = size*3 + 1 {
		n := len(text)
		if flush {
			n = min(n, size%40_000+1)
		}
		_, _ = io.WriteString(w, text[:n])
		if text = text[n:]; flush {
			w.(http.Flusher).Flush()
		}
	}
	if way == "stream-cut" {
		panic(http.ErrAbortHandler)
	}
}

func (u *upstreamSigner) tail(w http.ResponseWriter, way, text string, m *httpsig.Message, nonce string) {
	if way == "stream-no-tail" {
		return
	}
	key := keyOf("back-1")
	if way == "stream-other-key" {
		key = keyOf("back-2")
	}
	if way == "stream-other-nonce" {
		nonce = "AAAAAAAAAAAAAAAAAAAAAA"
	}
	digest := httpsig.ContentDigest([]byte(text))
	m.Trailers = httpsig.Lines{{Name: "content-digest", Value: digest}}
	input, signature := u.sign(httpsig.TailProfile(), key, m, nonce)
	w.Header().Set("Content-Digest", digest)
	w.Header().Set("Signature-Input", input)
	w.Header().Set("Signature", signature)
}

// TestSignedUpstreamAnswersAreAccepted checks valid signatures on both legs.
func TestSignedUpstreamAnswersAreAccepted(t *testing.T) {
	u := newUpstreamSigner(t)
	h := signed(t, plan{handler: u.ServeHTTP, routes: upstreamRoutes})
	short, long := `{"predictions": [2.5]}`, strings.Repeat("0123456789abcdef", 40<<10)
	n := 0
	for _, h2 := range []bool{false, true} {
		c, signing := h.client(h2), h.signingClient(h2, nil)
		for _, x := range []struct{ method, path, body string }{
			{"POST", "/good", short}, {"GET", "/good?q=%2F&r", short}, {"HEAD", "/good", ""}, {"GET", "/204", ""}, {"GET", "/stream", short},
			{"GET", "/long-good", long}, {"GET", "/chunked-good", short}, {"GET", "/long-chunked-good", long}, {"POST", "/pieces", long[:200<<10]},
			{"PUT", "/%6dodel", short},
		} {
			for _, client := range []*http.Client{c, signing} {
				req, err := http.NewRequest(x.method, "https://models.test"+x.path, strings.NewReader(map[bool]string{true: usualBody}[x.method == "POST"]))
				if err != nil {
					t.Fatal(err)
				}
				if client == c {
					req.Header.Set("Authorization", "Bearer "+h.token())
				}
				n++
				r := h.send(client, req)
				if r.StatusCode/100 != 2 || r.body != x.body {
					t.Errorf("%s %s (HTTP/2: %v, signed: %v): got %d with %d bytes; want %d", x.method, x.path, h2, client != c, r.StatusCode, len(r.body), len(x.body))
				}
				if client == c {
					for _, name := range []string{"Signature", "Signature-Input"} {
						if v := r.Header.Get(name); v != "" {
							t.Errorf("%s %s: a caller who asked for none got the upstream's %s", x.method, x.path, name)
						}
					}
				}
			}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range u.faults {
		t.Errorf("the upstream refused %s", f)
	}
	slices.Sort(u.nonces)
	if once := len(slices.Compact(slices.Clone(u.nonces))); once != n || len(u.nonces) != n {
		t.Errorf("%d requests had %d nonces, %d of them different", n, len(u.nonces), once)
	}
}

// TestBadlySignedUpstreamAnswersAreNeverComplete: without a valid signature, the client never gets a complete answer.
func TestBadlySignedUpstreamAnswersAreNeverComplete(t *testing.T) {
	t.Parallel()
	u := newUpstreamSigner(t)
	h := signed(t, plan{handler: u.ServeHTTP, routes: upstreamRoutes})
	for _, way := range []string{
		"unsigned", "tampered", "tampered-first", "tampered-type", "other-request", "other-digest", "other-nonce", "other-key", "client-key", "gateway-key",
		"wrong-secret", "other-status", "request-tag", "head-only", "head-of-a-stream", "no-digest",
		"stream-no-tail", "stream-tampered", "stream-cut", "stream-other-key", "stream-other-nonce",
	} {
		for _, size := range []string{"", "long-", "chunked-", "long-chunked-"} {
			if strings.HasPrefix(way, "stream") && strings.Contains(size, "chunked") {
				continue
			}
			t.Run(size+way, func(t *testing.T) {
				h := h.in(t)
				for _, te := range []string{"", "TE: trailers\r\n"} {
					for _, bySignature := range []bool{false, true} {
						e := errand{target: "/" + size + way}.signed(t)
						request := e.raw()
						if !bySignature {
							request = "POST /" + size + way + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + h.token() + "\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
						}
						h.neverWhole(e, h.tell(strings.Replace(request, "Connection: close\r\n", te+"Connection: close\r\n", 1)), bySignature)
						if bySignature {
							continue
						}
						req, err := http.NewRequest("GET", "https://models.test/"+size+way, nil)
						if err != nil {
							t.Fatal(err)
						}
						req.Header.Set("Authorization", "Bearer "+h.token())
						res, err := h.client(true).Do(req)
						if err != nil {
							continue // aborted before its head
						}
						if _, err = io.ReadAll(res.Body); err == nil && res.StatusCode != 502 {
							t.Errorf("over HTTP/2 a whole answer with status %d", res.StatusCode)
						}
						res.Body.Close()
					}
				}
			})
		}
	}
	t.Run("for clients whose answers end with the connection", func(t *testing.T) {
		for _, path := range []string{"/chunked-tampered", "/long-chunked-tampered", "/stream-tampered", "/stream-no-tail", "/long-stream-no-tail"} {
			raw := h.in(t).tell("GET " + path + " HTTP/1.0\r\nHost: models.test\r\nAuthorization: Bearer " + h.token() + "\r\n\r\n")
			if _, body, _ := strings.Cut(raw, "\r\n\r\n"); statuses(raw) == "200" && (len(body) == len(`{"predictions": [2.5]}`) || len(body) == 640<<10) {
				t.Errorf("%s: all %d bytes came", path, len(body))
			}
		}
	})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	for _, rec := range h.audit.records(t) {
		if rec["reason"] == nil || rec["reason"] != "upstream_signature" && !strings.Contains(fmt.Sprint(rec["path"]), "cut") {
			t.Errorf("record %v", rec)
		}
	}
}

// neverWhole checks that raw bytes are a refusal or look truncated.
func (h *house) neverWhole(e *errand, raw string, bySignature bool) {
	h.t.Helper()
	if raw == "" {
		return
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		return
	}
	body, err := io.ReadAll(res.Body)
	r := &reply{res, string(body)}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		if strings.Contains(raw, "sp-tail") {
			h.t.Errorf("what was not signed has a tail: %.2000s", raw)
		}
	case r.StatusCode == 502 && (r.reason() == "upstream_signature" || strings.HasSuffix(e.target, "cut")):
		if bySignature {
			h.vouched(e, r, keyOf("acme-1"))
		} else {
			h.unsigned(r)
		}
	default:
		h.t.Errorf("got %d with %d bytes (%v): %.2000s", r.StatusCode, len(body), err, raw)
	}
}
