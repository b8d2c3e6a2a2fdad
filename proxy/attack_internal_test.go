package proxy_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// oddLines are fields that change how a request is read or passed on, well formed or not.
var oddLines = []string{
	"Connection: Upgrade", "Connection: close", "Connection: keep-alive, TE", "Connection: x-foo",
	"Upgrade: websocket", "Upgrade: h2c", "Upgrade: websocket, h2c", "Upgrade: ", "Upgrade: a/b", wsKey, "Sec-WebSocket-Version: 13",
	"Content-Length: 5", "Content-Length: 0", "Content-Length: 70000", "Content-Length: 05", "Content-Length: -1", "Content-Length: 99999999999999999999",
	"Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked",
	"Content-Type: application/grpc", "Content-Type: application/grpc-web", "Content-Type: multipart/form-data; boundary=a", "Content-Type: text/event-stream",
	"TE: trailers", "TE: gzip", "Trailer: x-sum", "Trailer: content-length", "Expect: 100-continue", "Expect: 200-ok",
	"Host: other.test", "Host: models.test:443", "Host: [::1]", "Host: ", "Forwarded: for=_x;host=a", "X-Forwarded-For: 1.2.3.4, x",
	"Cookie: a=b", "Cookie: ", "Range: bytes=0-", "If-None-Match: *", "Accept-Encoding: gzip;q=0, *", "Accept-Encoding: ,;q", "Content-Encoding: gzip",
	"Origin: https://a.test", "Origin: null", "Access-Control-Request-Method: POST", "X-HTTP-Method-Override: PUT",
	"Signature: a=:AA==:", "Signature-Input: a=()", "Signature-Input: a=(\"@method\");created=1", "Content-Digest: sha-256=:AA==:", "Content-Digest: x", "Accept-Signature: a=()",
	"grpc-timeout: 1n", "grpc-timeout: 99999999H", "grpc-encoding: x", "X-Long: " + strings.Repeat("a", 6000), "X-Odd: \x80\xff", "x_y: z", "X-Sallyport-Principal: a",
}

var oddTargets = []string{
	"/ws/%d", "/h2/%d", "/held/%d", "/moved/%d", "/plain/%d", "/plain/%d?a=%%zz", "/plain//%d", "/moved/../%d", "/plain/%d/%%2e%%2e/", "/moved/%d;a=b", "http://models.test/ws/%d",
	"/a.B/C%d", "*#%d", "//ws/%d", "/moved%d", "/moved//a/%d", "/moved/%%2F/%d", "/plain/%d#a", "/ws/%d?" + strings.Repeat("q", 3000),
}

var oddBodies = []string{"", "hello", "5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "5\r\nhel", "g\r\n", "ffffffffffffffffff\r\n", strings.Repeat("x", 70000)}

// oddRequest is the n-th of many odd requests: its path says which.
func oddRequest(r *rand.Rand, n int) (method, target string, lines []string, body string) {
	pick := func(of []string) string { return of[r.IntN(len(of))] }
	method = pick([]string{"GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE", "PRI", "m"})
	target = fmt.Sprintf(pick(oddTargets), n)
	for range r.IntN(6) {
		lines = append(lines, pick(oddLines))
	}
	if r.IntN(3) == 0 {
		lines = append(lines, "Connection: Upgrade", "Upgrade: websocket")
	}
	return method, target, lines, pick(oddBodies)
}

// odd sends an odd request over HTTP/2, now and then as one for a tunnel or with trailers,
// and waits for what comes of it.
func (f *frames) odd(r *rand.Rand, method, target string, lines []string, body string) {
	head := []string{":method: " + method, ":scheme: https", ":authority: models.test", ":path: " + target}
	if r.IntN(4) == 0 {
		head[0] = ":method: CONNECT"
		head = append(head, ":protocol: websocket")
	}
	for _, l := range lines {
		if name, value, _ := strings.Cut(l, ":"); name != "Connection" && name != "Upgrade" || r.IntN(8) == 0 {
			head = append(head, strings.ToLower(name)+":"+value)
		}
	}
	trailers := r.IntN(4) == 0
	f.headers(1, body == "" && !trailers, head...)
	for body = body[:min(len(body), 40_000)]; body != ""; {
		n := min(len(body), 16<<10)
		f.data(1, n == len(body) && !trailers, body[:n])
		body = body[n:]
	}
	if trailers {
		f.headers(1, true, "x-sum: 1")
	}
	f.wait(1)
}

// Whatever a caller sends is refused for a reason of its own, or served: none of it is a
// fault of the gateway.
func TestAttackNoInputIsAnInternalFault(t *testing.T) {
	t.Parallel()
	url := overHTTP2(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	h := signed(t, plan{
		handler: func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") == "" {
				_, _ = io.Copy(w, r.Body)
				return
			}
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\nhello")
			c.Close()
		},
		routes: strings.ReplaceAll(`
  - {host: models.test, path: /ws, upstream: m, callers: anonymous, websocket: true, timeouts: {idle: 1s, head: 2s}, rules: [{allow: "*"}]}
  - {host: models.test, path: /h2, upstream: two, callers: anonymous, timeouts: {idle: 1s, head: 2s}, rules: [{allow: "*"}]}
  - {host: models.test, path: /held, upstream: out, callers: anonymous, timeouts: {idle: 1s, head: 2s}, rules: [{allow: "*"}]}
  - {host: models.test, path: /moved, replace: {prefix: /moved, with: /}, upstream: m, callers: anonymous, timeouts: {idle: 1s, head: 2s}, rules: [{allow: "*"}]}
  - {host: models.test, path: /plain, upstream: m, callers: anonymous, cors: {origins: "https://a.test"}, compress: true, timeouts: {idle: 1s, head: 2s}, rules: [{allow: "*"}]}
  - {host: models.test, path: /, upstream: two, callers: anonymous, timeouts: {idle: 1s, head: 2s}, rules: [{allow: "*"}]}
upstreams:
  m: {rest: '%s', host: client}
  two: {rest: URL, grpc: URL, request_trailers: true}
  out: {rest: '%s', integrity: {sign: out-1}}
`, "URL", url)})
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(6, uint64(worker)))
			for n := worker; n < 2400; n += 8 {
				method, target, lines, body := oddRequest(r, n)
				protocol := []string{"h2"}
				if n%3 != 0 {
					protocol = nil
				}
				c, err := tlsDial(h, "models.test", protocol...)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				if protocol != nil {
					h.framesOn(c).odd(r, method, target, lines, body)
				} else {
					_, _ = io.WriteString(c, method+" "+target+" HTTP/1.1\r\nHost: models.test\r\n"+strings.Join(append(lines, "", ""), "\r\n")+body)
					_ = c.CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	served := map[any]int{}
	for _, r := range h.audit.records(t) {
		if r["reason"] == "internal" {
			t.Errorf("internal: %v %v %v: %v", r["protocol"], r["method"], r["path"], r["cause"])
		}
		if r["reason"] == nil {
			served[r["protocol"]]++
		}
	}
	if served["HTTP/1.1"] < 50 || served["HTTP/2"] < 50 {
		t.Errorf("too few requests were served for the test to mean something: %v", served)
	}
}
