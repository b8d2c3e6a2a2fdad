package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"sallyport/proxy"
)

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
	if c := got.Header.Get("Www-Authenticate"); c != fmt.Sprintf(`Bearer realm="models.test", resource_metadata="https://models.test:%d/.well-known/oauth-protected-resource", error="insufficient_scope", scope="models.predict"`, h.addrs.HTTPS[0].(*net.TCPAddr).Port) {
		t.Errorf("challenge %q", c)
	}
}

func TestRefusalsHaveTheDialectsShape(t *testing.T) {
	for dialect, want := range map[string]string{
		"raw":        `{"title":"a credential is required","status":401,"reason":"no_credential","request_id":`,
		"tensorflow": `{"error":"a credential is required","reason":"no_credential","request_id":`,
		"openai":     `{"error":{"message":"a credential is required","type":"gateway_error","param":null,"code":"no_credential"},"reason":"no_credential","request_id":`,
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
			n, err := res.Body.Read(buf) // the server waits, so only this event can have arrived
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
	t.Parallel()
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
			_, _ = io.Copy(io.Discard, r.Body) // net/http detects the connection's end only after the body
			<-r.Context().Done()
		}, 504, "upstream_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			head := "20s"
			if c.status == 504 {
				head = "300ms"
			}
			h := build(t, plan{handler: c.handler, routes: strings.TrimRight(oneRoute, "\n") + "\n    timeouts: {head: " + head + "}\n"})
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

// A stream ends when its token expires.
func TestStreamEndsWithTheCredential(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	now, exp := stopped()
	h := build(t, plan{options: proxy.Options{Now: now}, handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 0\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	}})
	req, _ := http.NewRequest("GET", "https://models.test/", nil)
	req.Header.Set("Authorization", "Bearer "+h.ending(exp))
	res, err := h.client(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); string(got) != "data: 0\n\n" || err == nil {
		t.Errorf("read %q, %v; want the event and then a cut", got, err)
	}
	<-ended
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if rec := h.audit.records(t); len(rec) != 1 || rec[0]["reason"] != "credential_expired_in_stream" {
		t.Errorf("records %v", rec)
	}
}
