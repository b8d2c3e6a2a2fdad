package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAnswersCarrySecurityHeaders(t *testing.T) {
	talisman := map[string]string{
		"X-Frame-Options":         "SAMEORIGIN",
		"X-Content-Type-Options":  "nosniff",
		"Content-Security-Policy": "default-src 'self'; object-src 'none'",
		"Referrer-Policy":         "strict-origin-when-cross-origin",
	}
	t.Run("by default", func(t *testing.T) {
		h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", "gunicorn")
			w.Header().Set("X-Powered-By", "Flask")
		}})
		got := h.do("GET", "/", "", nil)
		for name, want := range talisman {
			if v := got.Header.Values(name); len(v) != 1 || v[0] != want {
				t.Errorf("%s: %q; want %q", name, v, want)
			}
		}
		for _, name := range []string{"Server", "X-Powered-By", "X-Xss-Protection", "Strict-Transport-Security"} {
			if v := got.Header.Get(name); v != "" {
				t.Errorf("%s: %s; want none", name, v)
			}
		}
	})
	t.Run("the upstream's own win", func(t *testing.T) {
		h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Frame-Options", "DENY") }})
		if v := h.do("GET", "/", "", nil).Header.Values("X-Frame-Options"); len(v) != 1 || v[0] != "DENY" {
			t.Errorf("X-Frame-Options: %q; want DENY", v)
		}
	})
	t.Run("changed by the route", func(t *testing.T) {
		h := build(t, plan{
			handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server", "gunicorn") },
			routes: strings.TrimRight(oneRoute, "\n") + `
    security_headers: {x-frame-options: off, Content-Security-Policy: "default-src 'self' 'unsafe-inline'"}
    keep_server_header: true
`})
		got := h.do("GET", "/", "", nil)
		if got.Header.Get("X-Frame-Options") != "" || got.Header.Get("Content-Security-Policy") != "default-src 'self' 'unsafe-inline'" || got.Header.Get("Server") != "gunicorn" {
			t.Errorf("header %v", got.Header)
		}
	})
}

func TestIdentityNamesOfARoute(t *testing.T) {
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + `
    identity: {principal: X-Remote-User, scopes: off}
    insecure_forward_authorization: true
`})
	h.do("GET", "/", "", nil)
	r, _ := h.model.seen()
	if r.Header.Get("X-Remote-User") != "issuer/corp:alice" || r.Header.Get("X-Sallyport-Scopes") != "" || r.Header.Get("X-Sallyport-Principal") != "" || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		t.Errorf("the upstream got %v", r.Header)
	}
}

func TestAnonymousRoute(t *testing.T) {
	h := build(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: anonymous, rules: [{allow: get}]}
`})
	if got := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer nonsense"}); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	r, _ := h.model.seen()
	if r.Header.Get("Authorization") != "" || r.Header.Get("X-Sallyport-Principal") != "anonymous" {
		t.Errorf("the upstream got %v", r.Header)
	}
	h.model.hits.Store(0)
	got := h.do("POST", "/", "{}", nil)
	h.refused(got, 403, "forbidden")
	if c := got.Header.Get("Www-Authenticate"); c != "" {
		t.Errorf("challenge %q on a route that checks nobody", c)
	}
}

func TestInsufficientScope(t *testing.T) {
	h := build(t, plan{})
	got := h.do("POST", "/", "{}", map[string]string{"Authorization": "Bearer " + h.token("models.read")})
	h.refused(got, 403, "insufficient_scope")
	if c := got.Header.Get("Www-Authenticate"); c != `Bearer realm="models.test", error="insufficient_scope", scope="models.predict"` {
		t.Errorf("challenge %q", c)
	}
}

func TestRefusalsHaveTheDialectsShape(t *testing.T) {
	for dialect, want := range map[string]string{
		"raw":        `{"title":"a bearer token is required","status":401,"reason":"no_credential","request_id":`,
		"tensorflow": `{"error":"a bearer token is required","reason":"no_credential","request_id":`,
		"openai":     `{"error":{"message":"a bearer token is required","type":"gateway_error","param":null,"code":"no_credential"},"reason":"no_credential","request_id":`,
	} {
		h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    serves: " + dialect + "\n"})
		got := h.do("POST", "/", "{}", map[string]string{"Authorization": ""})
		h.refused(got, 401, "no_credential")
		if !strings.HasPrefix(got.body, want) || !strings.HasSuffix(got.body, "\"}\n") {
			t.Errorf("%s: %s", dialect, got.body)
		}
	}
}

func TestRefusalToHeadHasNoBody(t *testing.T) {
	h := build(t, plan{})
	got := h.do("HEAD", "/", "", map[string]string{"Authorization": ""})
	if got.StatusCode != 401 || got.body != "" || got.ContentLength <= 0 {
		t.Errorf("got %d, length %d, body %q", got.StatusCode, got.ContentLength, got.body)
	}
	h.untouched()
}

func TestUnknownHostAndMethod(t *testing.T) {
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    methods: [GET, PUT]\n"})
	req, _ := http.NewRequest("GET", "https://models.test/", nil)
	req.Host = "elsewhere.test"
	h.refused(h.send(h.client(false), req), 404, "no_route")
	got := h.do("POST", "/", "{}", nil)
	h.refused(got, 405, "method_not_allowed")
	if a := got.Header.Get("Allow"); a != "GET, PUT" {
		t.Errorf("Allow: %s", a)
	}
}

func TestHTTP2(t *testing.T) {
	h := build(t, plan{})
	req, _ := http.NewRequest("POST", "https://models.test/v1/x?y", strings.NewReader(`{"a": 1}`))
	req.Header.Set("Authorization", "Bearer "+h.token())
	got := h.send(h.client(true), req)
	r, body := h.model.seen()
	if got.ProtoMajor != 2 || got.StatusCode != 200 || got.body != `{"predictions": [2.5]}` || r.RequestURI != "/v1/x?y" || string(body) != `{"a": 1}` || r.ContentLength != 8 {
		t.Errorf("%s %d %s; upstream %s %s", got.Proto, got.StatusCode, got.body, r.RequestURI, body)
	}
}

func TestChunkedRequestIsForwarded(t *testing.T) {
	h := build(t, plan{})
	req, _ := http.NewRequest("POST", "https://models.test/", io.MultiReader(strings.NewReader("abc"), strings.NewReader("def")))
	req.Header.Set("Authorization", "Bearer "+h.token())
	if got := h.send(h.client(false), req); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	if _, body := h.model.seen(); string(body) != "abcdef" {
		t.Errorf("the upstream got %q", body)
	}
}

func TestBodyLimit(t *testing.T) {
	route := strings.TrimRight(oneRoute, "\n") + "\n    limits: {body: 1KiB}\n"
	t.Run("announced", func(t *testing.T) {
		h := build(t, plan{routes: route})
		h.refused(h.do("POST", "/", strings.Repeat("x", 1025), nil), 413, "body_too_large")
	})
	t.Run("counted while it streams", func(t *testing.T) {
		cut := make(chan error, 1)
		h := build(t, plan{routes: route, handler: func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			cut <- err
		}})
		req, _ := http.NewRequest("POST", "https://models.test/", io.MultiReader(strings.NewReader(strings.Repeat("x", 800)), strings.NewReader(strings.Repeat("x", 800))))
		req.Header.Set("Authorization", "Bearer "+h.token())
		if got := h.send(h.client(false), req); got.StatusCode != 413 || got.reason() != "body_too_large" {
			t.Errorf("got %d %s; want 413", got.StatusCode, got.body)
		}
		if h.model.hits.Load() > 0 {
			if err := <-cut; err == nil {
				t.Error("the upstream got a whole request")
			}
		}
	})
	t.Run("just fits", func(t *testing.T) {
		h := build(t, plan{routes: route})
		if got := h.do("POST", "/", strings.Repeat("x", 1024), nil); got.StatusCode != 200 {
			t.Errorf("got %d %s", got.StatusCode, got.body)
		}
	})
}

func TestRateLimitPerPrincipal(t *testing.T) {
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    limits: {rate: {per: principal, limit: 1/h, burst: 2}}\n"})
	for range 2 {
		if got := h.do("GET", "/", "", nil); got.StatusCode != 200 {
			t.Fatalf("got %d %s", got.StatusCode, got.body)
		}
	}
	h.model.hits.Store(0)
	got := h.do("GET", "/", "", nil) // a fresh token of the same caller
	h.refused(got, 429, "rate_limited")
	if s := got.Header.Get("Retry-After"); s == "" || s == "0" {
		t.Errorf("Retry-After: %q", s)
	}
	other, _ := h.issuer.Sign(h.issuer.Claims("bob", "models.predict"))
	if got := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + other}); got.StatusCode != 200 {
		t.Errorf("another caller got %d %s", got.StatusCode, got.body)
	}
}

func TestInFlightLimit(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    limits: {in_flight: 1}\n", handler: func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-leave }})
	first := make(chan *reply, 1)
	go func() { first <- h.do("GET", "/", "", nil) }()
	<-entered
	got := h.do("GET", "/", "", nil)
	if got.StatusCode != 503 || got.reason() != "too_many_in_flight" || got.Header.Get("Retry-After") == "" || h.model.hits.Load() != 1 {
		t.Errorf("got %d %s, %d upstream", got.StatusCode, got.body, h.model.hits.Load())
	}
	close(leave)
	if got := <-first; got.StatusCode != 200 {
		t.Errorf("the first got %d", got.StatusCode)
	}
}

func TestEventsArriveOneByOne(t *testing.T) {
	next := make(chan struct{})
	h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}})
	for _, h2 := range []bool{false, true} {
		req, _ := http.NewRequest("GET", "https://models.test/", nil)
		req.Header.Set("Authorization", "Bearer "+h.token())
		res, err := h.client(h2).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for i := range 3 {
			n, err := res.Body.Read(buf) // the server waits: nothing but this event can be here
			if want := fmt.Sprintf("data: %d\n\n", i); string(buf[:n]) != want || err != nil {
				t.Errorf("h2 %v: read %q, %v; want %q", h2, buf[:n], err, want)
			}
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
			t.Errorf("at the end: %q, %v", rest, err)
		}
		res.Body.Close()
	}
}

func TestInterimAnswersAndTrailersPass(t *testing.T) {
	h := build(t, plan{handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "content")
		w.Header().Set("X-Sum", r.Trailer.Get("X-In")+"/"+r.Trailer.Get("X-Sallyport-Principal"))
	}})
	req, _ := http.NewRequest("POST", "https://models.test/", struct{ io.Reader }{strings.NewReader("x")})
	req.Header.Set("Authorization", "Bearer "+h.token())
	req.Header.Set("Te", "trailers")
	req.Trailer = http.Header{"X-In": {"7"}, "X-Sallyport-Principal": {"admin"}}
	hints := 0
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, m textproto.MIMEHeader) error {
		if code == 103 && m.Get("Link") != "" {
			hints++
		}
		return nil
	}}))
	got := h.send(h.client(false), req)
	if hints != 1 || got.body != "content" || got.Trailer.Get("X-Sum") != "7/" {
		t.Errorf("%d hints, body %q, trailer %v", hints, got.body, got.Trailer)
	}
}

func TestEarlyAnswerWhileUploading(t *testing.T) {
	h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, "enough")
	}})
	for _, h2 := range []bool{false, true} {
		pr, pw := io.Pipe()
		go func() {
			for err := error(nil); err == nil; {
				_, err = pw.Write(make([]byte, 32<<10)) // until the client stops reading
			}
		}()
		req, _ := http.NewRequest("POST", "https://models.test/", pr)
		req.ContentLength = 60 << 20
		req.Header.Set("Authorization", "Bearer "+h.token())
		got := h.send(h.client(h2), req)
		pr.Close()
		if got.StatusCode != 422 || got.body != "enough" {
			t.Errorf("h2 %v: got %d %q", h2, got.StatusCode, got.body)
		}
	}
}

func TestUpstreamFaults(t *testing.T) {
	cut := func(raw string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(c, raw)
			c.Close()
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
		reason  string
	}{
		{"closes without an answer", cut(""), 502, "upstream_reset"},
		{"half a head", cut("HTTP/1.1 200 OK\r\nConte"), 502, "upstream_reset"},
		{"garbage", cut("SSH-2.0-OpenSSH\r\n\r\n"), 502, "upstream_garbage"},
		{"both framings", cut("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 502, "upstream_garbage"},
		{"switch nobody asked for", cut("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), 502, "upstream_garbage"},
		{"too slow", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // net/http looks for the end of the connection only after the body
			<-r.Context().Done()
		}, 504, "upstream_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := build(t, plan{handler: c.handler, routes: strings.TrimRight(oneRoute, "\n") + "\n    timeouts: {head: 300ms}\n"})
			got := h.do("POST", "/", "{}", nil)
			if got.StatusCode != c.status || got.reason() != c.reason || got.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %s; want %d %s", got.StatusCode, got.body, c.status, c.reason)
			}
			if n := h.model.hits.Load(); n != 1 {
				t.Errorf("the upstream got the POST %d times", n)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		l.Close()
		h := build(t, plan{routes: strings.ReplaceAll(oneRoute, "%s", "http://"+l.Addr().String())})
		if got := h.do("GET", "/", "", nil); got.StatusCode != 502 || got.reason() != "upstream_refused" {
			t.Errorf("got %d %s", got.StatusCode, got.body)
		}
	})
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfXX",
	} {
		for _, h2 := range []bool{false, true} {
			h := build(t, plan{handler: cut(raw)})
			req, _ := http.NewRequest("GET", "https://models.test/", nil)
			req.Header.Set("Authorization", "Bearer "+h.token())
			res, err := h.client(h2).Do(req)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Errorf("h2 %v: a cut answer looks whole: %q", h2, raw)
			}
		}
	}
}

// The pair of RFC 6455, section 1.3.
const (
	wsKey    = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

func TestWebSocket(t *testing.T) {
	echo := func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\nhello\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(c, "echo "+line)
	}
	const request = "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n\r\nearly\n"
	t.Run("on a route that allows it", func(t *testing.T) {
		h := build(t, plan{handler: echo, routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n"})
		got := h.raw(request)
		if !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.HasSuffix(got, "\r\n\r\nhello\necho early\n") || !strings.Contains(strings.ToLower(got), strings.ToLower(wsAccept)) {
			t.Errorf("got %q", got)
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if rec := h.audit.records(t); len(rec) != 1 || rec[0]["status"] != 101. {
			t.Errorf("records %v", rec)
		}
	})
	t.Run("without a token", func(t *testing.T) {
		h := build(t, plan{handler: echo, routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n"})
		if got := h.raw(strings.ReplaceAll(request, "TOKEN", "x.y.z")); !strings.HasPrefix(got, "HTTP/1.1 401 ") {
			t.Errorf("got %q", got)
		}
		h.untouched()
	})
	t.Run("a side that only listens is not idle", func(t *testing.T) {
		h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n    timeouts: {idle: 400ms}\n", handler: func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			for range 10 {
				time.Sleep(100 * time.Millisecond) // what a server does that speaks now and then
				_, _ = io.WriteString(c, "tick\n")
			}
			_, _ = io.Copy(io.Discard, c) // until the gateway finds both idle
		}})
		if got := h.raw(request); strings.Count(got, "tick\n") != 10 {
			t.Errorf("got %q", got)
		}
	})
	t.Run("ends with the credential", func(t *testing.T) {
		h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n", handler: func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}})
		claims := h.issuer.Claims("alice", "models.predict")
		claims["exp"] = time.Now().Unix() - 58 // taken for 60 s more: clocks differ
		token, _ := h.issuer.Sign(claims)
		got := h.raw(strings.ReplaceAll(request, "TOKEN", token)) // returns when the gateway closes
		if !strings.HasPrefix(got, "HTTP/1.1 101 ") {
			t.Errorf("got %q", got)
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if rec := h.audit.records(t); len(rec) != 1 || rec[0]["reason"] != "credential_expired_in_stream" {
			t.Errorf("records %v", rec)
		}
	})
}

func TestRedirect(t *testing.T) {
	h := build(t, plan{more: "public_https: 8443"})
	talk := func(request string) string {
		c, err := net.Dial("tcp", h.addrs.HTTP[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, strings.ReplaceAll(request, "TOKEN", h.token()))
		all, _ := io.ReadAll(c)
		return string(all)
	}
	if got := talk("POST /v1/%6D?x=1 HTTP/1.1\r\nHost: Models.Test:80\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 308 ") || !strings.Contains(got, "Location: https://models.test:8443/v1/m?x=1\r\n") {
		t.Errorf("got %s", got)
	}
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n": "403",
		"GET / HTTP/1.1\r\nHost: models.test\r\nX-Api-Key: abc\r\nConnection: close\r\n\r\n":              "403",
		"GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n":                                  "404",
		"GET //evil.test/ HTTP/1.1\r\nHost: models.test\r\n\r\n":                                          "400",
		"GET http://evil.test/ HTTP/1.1\r\nHost: models.test\r\n\r\n":                                     "400",
	} {
		if got := talk(request); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%q got %s; want %s", request, got, want)
		}
	}
	h.untouched()
}

func TestDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "late")
	}})
	got := make(chan *reply, 1)
	go func() { got <- h.do("GET", "/", "", nil) }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	for { // no new connections
		c, err := net.Dial("tcp", h.addrs.HTTPS[0].String())
		if err != nil {
			break
		}
		c.Close()
	}
	close(leave)
	if r := <-got; r.StatusCode != 200 || r.body != "late" {
		t.Errorf("the request in flight got %d %q", r.StatusCode, r.body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestDrainCutsWhatOutlivesTheGrace(t *testing.T) {
	entered := make(chan struct{}, 2)
	h := build(t, plan{more: "drain: 200ms", routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n", handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			c, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			entered <- struct{}{}
			_, _ = io.Copy(io.Discard, c)
			c.Close()
			return
		}
		entered <- struct{}{}
		<-r.Context().Done()
	}})
	token := h.token()
	var ends sync.WaitGroup
	for _, fields := range []string{"", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n"} {
		c := h.dial("models.test")
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\n%s\r\n", token, fields)
		ends.Go(func() {
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection was left open")
			}
		})
		<-entered
	}
	if err := h.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	ends.Wait()
}

// One record a request, on every way out, and what it must not hold.
func TestOneRecordARequest(t *testing.T) {
	h := build(t, plan{})
	ok := h.do("POST", "/v1/x?secret=1", `{"a":1}`, nil)
	h.do("GET", "/", "", map[string]string{"Authorization": ""})
	h.do("GET", "/", "", map[string]string{"X-Sallyport-Principal": "x"})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	rec := h.audit.records(t)
	if len(rec) != 3 {
		t.Fatalf("%d records; want 3", len(rec))
	}
	for key, want := range map[string]any{
		"id": ok.Header.Get("X-Request-Id"), "client": "127.0.0.1", "host": "models.test", "method": "POST", "path": "/v1/x", "route": "models.test/", "protocol": "HTTP/1.1",
		"principal": "issuer/corp:alice", "credential": "bearer", "status": 200., "bytes_in": 7., "bytes_out": 22.,
	} {
		if rec[0][key] != want {
			t.Errorf("%s is %v; want %v", key, rec[0][key], want)
		}
	}
	for _, key := range []string{"key_id", "duration_us", "upstream_us", "own_us", "upstream"} {
		if rec[0][key] == nil {
			t.Errorf("no %s in %v", key, rec[0])
		}
	}
	if rec[1]["reason"] != "no_credential" || rec[2]["reason"] != "protected_field" {
		t.Errorf("reasons %v, %v", rec[1]["reason"], rec[2]["reason"])
	}
}

func TestClientThatLeavesEndsTheUpstreamRequest(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	h := build(t, plan{handler: func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	}})
	c := h.dial("models.test")
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\n\r\n", h.token())
	<-entered
	c.Close()
	<-left
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if rec := h.audit.records(t); len(rec) != 1 || rec[0]["reason"] != "client_gone" {
		t.Errorf("records %v", rec)
	}
}

func TestKeepAliveServesManyRequests(t *testing.T) {
	h := build(t, plan{})
	c := h.dial("models.test")
	r := bufio.NewReader(c)
	for i := range 5 {
		fmt.Fprintf(c, "POST /%d HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\n\r\n{}", i, h.token())
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); res.StatusCode != 200 || err != nil {
			t.Errorf("request %d got %d %s, %v", i, res.StatusCode, body, err)
		}
	}
}

func TestHealthIsOnItsOwnListener(t *testing.T) {
	h := build(t, plan{})
	h.do("GET", "/", "", nil)
	get := func(path string) (int, string) {
		res, err := http.Get("http://" + h.addrs.Health.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		all, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(all)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, body := get("/readyz"); code != 200 || !strings.Contains(body, `"ready": true`) && !strings.Contains(body, `"ready":true`) {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `sallyport_requests_total{code="200",method="GET",reason="",route="models.test/"} 1`) {
		t.Errorf("/metrics: %d %s", code, body)
	}
	if code, _ := get("/"); code != 404 {
		t.Errorf("/: %d; the health listener proxies nothing", code)
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	h := build(t, plan{handler: func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }})
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, h2 := range []bool{false, true} {
		req, _ := http.NewRequest("POST", "https://models.test/", bytes.NewReader(big))
		req.Header.Set("Authorization", "Bearer "+h.token())
		if got := h.send(h.client(h2), req); got.body != string(big) {
			t.Errorf("h2 %v: %d bytes came back of %d", h2, len(got.body), len(big))
		}
	}
}

func TestUnknownNamesAreRefusedInTheHandshake(t *testing.T) {
	h := build(t, plan{})
	for _, name := range []string{"", "elsewhere.test"} {
		c, err := tls.Dial("tcp", h.addrs.HTTPS[0].String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil {
			c.Close()
			t.Errorf("a handshake for %q succeeds", name)
		}
	}
}
