package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// overHTTP2 serves h without TLS over HTTP/2 and returns its URL.
func overHTTP2(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: h, Protocols: protocols}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return "h2c://" + l.Addr().String()
}

// TestModelServerOverHTTP2 uses an HTTP/2 upstream with clients of either version.
func TestModelServerOverHTTP2(t *testing.T) {
	url := overHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("x-seen", fmt.Sprint(r.Proto, " ", r.Method, " ", r.RequestURI, " ", r.ContentLength, " ", r.Header.Get("x-forwarded-proto")))
		switch r.URL.Path {
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		case "/early":
			w.WriteHeader(413)
		case "/cut":
			h.Set("content-length", "10")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/unchanged":
			w.WriteHeader(304)
		}
	})
	h := build(t, plan{routes: strings.ReplaceAll(oneRoute, "%s", url)})
	for _, c := range []struct {
		method, target, body string
		status               int
		seen, answer         string
	}{
		{"GET", "/echo?a=b", "", 200, "HTTP/2.0 GET /echo?a=b 0 https", ""},
		{"HEAD", "/echo", "", 200, "HTTP/2.0 HEAD /echo 0 https", ""},
		{"POST", "/echo", "hello", 200, "HTTP/2.0 POST /echo 5 https", "hello"},
		{"POST", "/echo", strings.Repeat("x", 1<<20), 200, "HTTP/2.0 POST /echo 1048576 https", strings.Repeat("x", 1<<20)},
		{"POST", "/early", strings.Repeat("x", 1<<20), 413, "HTTP/2.0 POST /early 1048576 https", ""},
		{"GET", "/unchanged", "", 304, "HTTP/2.0 GET /unchanged 0 https", ""},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprint(c.method, " ", c.target, " ", len(c.body), " ", http2), func(t *testing.T) {
				req, err := http.NewRequest(c.method, "https://models.test"+c.target, strings.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+h.token())
				r := h.send(h.client(http2), req)
				if r.StatusCode != c.status || r.body != c.answer || r.Header.Get("x-seen") != c.seen {
					t.Errorf("%d, %d bytes, the server saw %q; want %d, %q", r.StatusCode, len(r.body), r.Header.Get("x-seen"), c.status, c.seen)
				}
			})
		}
	}
	t.Run("chunked", func(t *testing.T) {
		got := h.raw("POST /echo HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		if !strings.Contains(got, "HTTP/2.0 POST /echo -1 https") || !strings.Contains(got, "hello") {
			t.Error(got)
		}
	})
	t.Run("cut", func(t *testing.T) {
		got := h.raw("GET /cut HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n\r\n")
		if !strings.HasSuffix(got, "\r\n\r\nhalf") || !strings.Contains(got, "Content-Length: 10") {
			t.Error(got)
		}
	})
}

// Requests to HTTP/2 upstreams are signed like others, including gRPC calls.
func TestRequestsOverHTTP2AreSigned(t *testing.T) {
	var got *http.Request
	var body []byte
	url := overHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		got = r
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("grpc-status", "0")
	})
	h := signed(t, plan{routes: strings.ReplaceAll(`
  - {host: models.test, upstream: m, callers: [issuer/corp, key], rules: [{allow: "*"}]}
upstreams: {m: {rest: '%s', grpc: '%s', integrity: {sign: out-1}}}
`, "%s", url)})
	verifier := forwardVerifier(t, httpsig.ForwardPolicy(identityFields()...))

	h.do("POST", "/p?x=1", "hello", nil)
	if s, err := verifier.Verify(received(got)); err != nil || !s.Covers("content-digest") {
		t.Errorf("a request: %v", err)
	}
	res, err := h.call(t.Context(), echo, bytes.NewReader(framedText("hello")))
	if err != nil {
		t.Fatal(err)
	}
	if _, status := finish(t, res); status != "0" {
		t.Errorf("status %s", status)
	}
	if s, err := verifier.Verify(received(got)); err != nil || !s.Covers("content-digest") || !bytes.Equal(body, framedText("hello")) {
		t.Errorf("a call: %v", err)
	}
}
