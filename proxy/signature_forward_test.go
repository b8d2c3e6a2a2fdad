package proxy_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sallyport/auth/httpsig"
)

// TestRequestsToUpstreams checks the signatures on forwarded requests.
func TestRequestsToUpstreams(t *testing.T) {
	policy := httpsig.ForwardPolicy(identityFields()...)
	seen := func(t *testing.T, h *house) (*httpsig.Signature, *http.Request, error) {
		r, _ := h.model.seen()
		s, err := forwardVerifier(t, policy).Verify(received(r))
		return s, r, err
	}
	routes := func(integrity string) string {
		return `
  - {host: models.test, upstream: m, callers: [issuer/corp, key], rules: [{allow: "*"}], strip: /v1}
upstreams: {m: {rest: '%s', integrity: {sign: out-1` + integrity + `}}}
`
	}
	t.Run("of callers with a token, who said something else", func(t *testing.T) {
		h := signed(t, plan{routes: strings.Replace(routes(""), ", strip: /v1", "", 1)})
		r := h.do("POST", "/p?x=%20", usualBody, map[string]string{
			"Content-Digest": httpsig.ContentDigest([]byte("other")), "Signature": "sp=:AA==:", "Signature-Input": `sp=();tag="sallyport-fwd"`, "Content-Type": "application/json", "Accept-Signature": "sp=()",
		})
		s, up, err := seen(t, h)
		if r.StatusCode != 200 || err != nil {
			t.Fatalf("got %d, upstream %v", r.StatusCode, err)
		}
		if up.Header.Get("Content-Digest") != httpsig.ContentDigest([]byte(usualBody)) || up.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" || up.Header.Get("Accept-Signature") != "" {
			t.Errorf("the upstream got %v", up.Header)
		}
		for _, c := range append(identityFields(), "@method", "@authority", "@path", "@query", "content-digest", "content-type") {
			if !s.Covers(c) {
				t.Errorf("%s is not covered, but %v", c, s.Components())
			}
		}
		for _, name := range []string{"X-Sallyport-Principal", "X-Sallyport-Scopes", "X-Sallyport-Request-Id", "Content-Digest", "Content-Type"} {
			changed := up.Clone(up.Context())
			changed.Header.Set(name, "changed")
			if _, err := forwardVerifier(t, policy).Verify(received(changed)); err == nil {
				t.Errorf("another %s is believed", name)
			}
			changed.Header.Del(name)
			if _, err := forwardVerifier(t, policy).Verify(received(changed)); err == nil {
				t.Errorf("no %s is believed", name)
			}
		}
	})
	t.Run("of callers who signed", func(t *testing.T) {
		h := signed(t, plan{routes: strings.Replace(routes(""), ", strip: /v1", "", 1)})
		for _, digest := range []string{"", "sha-512=:" + base64Of512(usualBody) + ":"} {
			e := errand{digest: digest}.signed(t)
			r := h.sendErrand(e)
			s, up, err := seen(t, h)
			if r.StatusCode != 200 || err != nil || s.Key.ID() != "out-1" || s.Nonce == e.nonce || up.Header.Get("Content-Digest") != e.digest || up.Header.Get("X-Sallyport-Principal") != "key:acme" {
				t.Errorf("got %d, upstream %v, %v", r.StatusCode, err, up.Header)
			}
			if up.Header.Get("Signature") == e.signature || strings.Contains(up.Header.Get("Signature-Input"), "acme") {
				t.Errorf("the client's signature went on: %v", up.Header)
			}
		}
	})
	t.Run("for the path that the upstream gets", func(t *testing.T) {
		h := signed(t, plan{routes: strings.Replace(routes(""), "host: models.test,", "host: models.test, path: /v1,", 1)})
		r := h.do("GET", "/v1/%6dodels?q", "", nil)
		_, up, err := seen(t, h)
		if r.StatusCode != 200 || err != nil || up.RequestURI != "/models?q" {
			t.Errorf("got %d %s, upstream %s, %v", r.StatusCode, r.body, up.RequestURI, err)
		}
	})
	t.Run("with no content that nobody signed", func(t *testing.T) {
		h := signed(t, plan{routes: strings.Replace(routes(", body: none"), ", strip: /v1", "", 1)})
		r := h.do("POST", "/", usualBody, nil)
		if _, _, err := seen(t, h); r.StatusCode != 200 || err == nil {
			t.Errorf("got %d, %v", r.StatusCode, err)
		}
		bare := policy
		bare.Require = identityFields()
		up, _ := h.model.seen()
		if s, err := forwardVerifier(t, bare).Verify(received(up)); err != nil || s.Covers("content-digest") {
			t.Errorf("%v", err)
		}
		e := errand{}.signed(t)
		h.passed(h.sendErrand(e), 2)
		if _, _, err := seen(t, h); err != nil {
			t.Errorf("content that its client signed: %v", err)
		}
	})
	t.Run("content that is too long to be held", func(t *testing.T) {
		h := signed(t, plan{more: memoryPlan, routes: `
  - {host: models.test, upstream: m, callers: issuer/corp, rules: [{allow: "*"}]}
upstreams: {m: {rest: '%s', integrity: {sign: out-1}}}
`})
		h.refused(h.do("POST", "/", strings.Repeat("x", 2<<20), nil), 413, "body_too_large")
	})
	t.Run("the client's signature goes on where the route says so", func(t *testing.T) {
		h := signed(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, key/acme], rules: [{allow: "*"}], integrity: {forward_client_signature: true}}
`})
		e := errand{}.signed(t)
		h.passed(h.sendErrand(e), 1)
		if up, _ := h.model.seen(); up.Header.Get("Signature") != e.signature || up.Header.Get("Signature-Input") != e.input {
			t.Errorf("the upstream got %v", up.Header)
		}
	})
}

// closer is an upstream that closes its first connection at the second request, and records all
// heads.
type closer struct {
	net.Listener
	heads chan *http.Request
}

func newCloser(t *testing.T) *closer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &closer{l, make(chan *http.Request, 8)}
	var conns sync.WaitGroup
	conns.Go(func() {
		for first := true; ; first = false {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { c.serve(conn, first) })
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return c
}

func (c *closer) serve(conn net.Conn, first bool) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for n := 0; ; n++ {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		c.heads <- r
		if first && n == 1 {
			return
		}
		if _, err := io.Copy(conn, bytes.NewReader([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))); err != nil {
			return
		}
	}
}

// TestEachAttemptIsSignedAnew: an upstream closes the connection when the second request arrives.
// The retry must not look like a replay.
func TestEachAttemptIsSignedAnew(t *testing.T) {
	up := newCloser(t)
	h := signed(t, plan{routes: strings.ReplaceAll(`
  - {host: models.test, upstream: m, callers: key, rules: [{allow: "*"}]}
upstreams: {m: {rest: 'http://%s', integrity: {sign: out-1}}}
`, "%s", up.Addr().String())})
	for range 2 {
		if r := h.sendErrand(errand{method: "GET"}.signed(t)); r.StatusCode != 200 {
			t.Fatalf("got %d %s", r.StatusCode, r.body)
		}
	}
	if len(up.heads) != 3 {
		t.Fatalf("the upstream got %d requests; want 3", len(up.heads))
	}
	var nonces []string
	for range 3 {
		s, err := forwardVerifier(t, httpsig.ForwardPolicy(identityFields()...)).Verify(received(<-up.heads))
		if err != nil {
			t.Fatal(err)
		}
		nonces = append(nonces, s.Nonce)
	}
	if nonces[1] == nonces[2] || nonces[0] == nonces[1] {
		t.Errorf("nonces %q", nonces)
	}
}
