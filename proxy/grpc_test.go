package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const echo = "/tensorflow.serving.PredictionService/Echo"

func TestCallUnary(t *testing.T) {
	h, s := buildGRPC(t, grpcRoute)
	res, err := h.call(context.Background(), echo, bytes.NewReader(framedText("hello")), "grpc-timeout", "5S")
	if err != nil {
		t.Fatal(err)
	}
	body, status := finish(t, res)
	if body != string(framedText("hello")) || status != "0" || res.Header.Get("content-type") != "application/grpc" {
		t.Errorf("%q with status %s, %v", body, status, res.Header)
	}
	if got, want := res.Trailer.Get("x-seen"), "trailers issuer/corp:alice"; got != want {
		t.Errorf("the server saw %q; want %q", got, want)
	}
	if got := s.timeout.Load(); got != "5S" {
		t.Errorf("the server saw grpc-timeout %q", got)
	}
	if r := h.ended(); r["grpc_status"] != "0" || r["status"] != float64(200) || r["upstream"] != "h2c://"+s.addr {
		t.Errorf("record %v", r)
	}
}

func TestCallThatFailsAtOnce(t *testing.T) {
	t.Parallel()
	h, _ := buildGRPC(t, grpcRoute)
	f := h.frames()
	f.headers(1, true, h.usual("POST", "/a.B/Fail", "content-type: application/grpc", "te: trailers")...)
	for f.got[1] == nil || !f.got[1].done {
		if !f.next() {
			t.Fatal(f.end)
		}
	}
	if n := f.got[1].heads; n != 1 {
		t.Errorf("%d blocks of fields; want one, that ends the call", n)
	}
	if r := h.ended(); r["grpc_status"] != "5" {
		t.Errorf("record %v", r)
	}
}

// Messages pass in both directions one by one, without waiting for the next or the end.
func TestCallBothWays(t *testing.T) {
	h, _ := buildGRPC(t, grpcRoute)
	pr, pw := io.Pipe()
	res, err := h.call(context.Background(), echo, pr)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		m := framedText(fmt.Sprint("message ", i))
		if _, err := pw.Write(m); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(m))
		if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.Equal(got, m) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	pw.Close()
	if body, status := finish(t, res); body != "" || status != "0" {
		t.Errorf("%q with status %s", body, status)
	}
}

func TestCallCancelled(t *testing.T) {
	h, s := buildGRPC(t, grpcRoute)
	ctx, cancel := context.WithCancel(context.Background())
	pr, _ := io.Pipe()
	res, err := h.call(ctx, "/a.B/Hang", pr)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	res.Body.Close()
	s.cancelled(t)
	if r := h.ended(); r["reason"] != "client_gone" {
		t.Errorf("record %v", r)
	}
}

func TestCallOfClientThatVanishes(t *testing.T) {
	h, s := buildGRPC(t, grpcRoute)
	f := h.frames()
	f.headers(1, false, h.usual("POST", "/a.B/Hang", "content-type: application/grpc", "te: trailers")...)
	for f.got[1] == nil || f.got[1].status == "" {
		if !f.next() {
			t.Fatal(f.end)
		}
	}
	f.c.(*tls.Conn).NetConn().Close()
	s.cancelled(t)
}

func TestCallCutByServer(t *testing.T) {
	h, _ := buildGRPC(t, grpcRoute)
	res, err := h.call(context.Background(), "/a.B/Abort", bytes.NewReader(framedText("x")))
	if err != nil {
		t.Fatal(err)
	}
	body, status := finish(t, res)
	if body != string(framedText("half")) || !strings.Contains(status, "INTERNAL_ERROR") {
		t.Errorf("%q, %s", body, status)
	}
	if r := h.ended(); r["reason"] != "upstream_reset" {
		t.Errorf("record %v", r)
	}
}

// The server's reset code is forwarded to the client.
func TestCallResetWithCode(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		fr := http2.NewFramer(c, c)
		_ = fr.WriteSettings()
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if f.Header().Type != http2.FrameHeaders {
				continue
			}
			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.Header().StreamID, BlockFragment: block.Bytes(), EndHeaders: true})
			_ = fr.WriteData(f.Header().StreamID, false, framedText("half"))
			_ = fr.WriteRSTStream(f.Header().StreamID, http2.ErrCodeEnhanceYourCalm)
		}
	}()
	h := build(t, plan{routes: grpcRoute, more: `upstreams: {tf: {grpc: "h2c://` + l.Addr().String() + `"}}`})
	f := h.frames()
	f.headers(1, true, h.usual("POST", echo, "content-type: application/grpc", "te: trailers")...)
	for f.got[1] == nil || !f.got[1].done {
		if !f.next() {
			t.Fatal(f.end)
		}
	}
	if got := f.got[1].reset; got != "RST ENHANCE_YOUR_CALM" {
		t.Errorf("the client got %q", got)
	}
}

func TestCallRefused(t *testing.T) {
	h, s := buildGRPC(t, grpcRoute+`
  - host: models.test
    path: /rest.Only
    upstream: %s
    callers: anonymous
    rules: [{allow: "*"}]
  - host: models.test
    path: /dead.End
    upstream: dead
    callers: anonymous
    rules: [{allow: "*"}]
  - host: models.test
    path: /small.One
    upstream: tf
    callers: anonymous
    limits: {body: 10}
    rules: [{allow: "*"}]
  - host: models.test
    path: /rare.One
    upstream: tf
    callers: anonymous
    limits: {rate: {per: route, limit: 1/h}}
    rules: [{allow: "*"}]
`)
	wanted := map[string]string{}
	for _, c := range []struct {
		name, method string
		more         []string
		want         string
		reason       string
	}{
		{"no token", echo, []string{"Authorization", ""}, "16", "no_credential"},
		{"bad token", echo, []string{"Authorization", "Bearer x"}, "16", "bad_credential"},
		{"no such scope", echo, []string{"Authorization", "Bearer " + h.token("other")}, "7", "insufficient_scope"},
		{"no gRPC there", "/rest.Only/Call", nil, "12", "protocol_not_served"},
		{"server is down", "/dead.End/Call", nil, "14", "upstream_refused"},
		{"too large", "/small.One/Echo", nil, "8", "body_too_large"},
		{"path of three", "/a.B/C/D", nil, "3", "bad_grpc_call"},
		{"path of one", "/a.B", nil, "3", "bad_grpc_call"},
		{"path without a name", "/a..B/C", nil, "3", "bad_grpc_call"},
		{"path with an odd name", "/a.B/C-D", nil, "3", "bad_grpc_call"},
		{"path with a number first", "/a.1B/C", nil, "3", "bad_grpc_call"},
		{"query", echo + "?x=1", nil, "3", "bad_grpc_call"},
		{"no trailers", echo, []string{"Te", ""}, "3", "bad_grpc_call"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.calls.Load()
			res, err := h.call(context.Background(), c.method, bytes.NewReader(framedText("hello, hello")), c.more...)
			if err != nil {
				t.Fatal(err)
			}
			body, status := finish(t, res)
			if res.StatusCode != 200 || body != "" || status != c.want || res.Header.Get("content-type") != "application/grpc" {
				t.Errorf("%d with status %s, %q, %v; want status %s", res.StatusCode, status, body, res.Header, c.want)
			}
			if res.Header.Get("grpc-message") == "" || res.Header.Get("x-request-id") == "" || res.Header.Get("content-length") != "" {
				t.Errorf("%v", res.Header)
			}
			wanted[res.Header.Get("x-request-id")] = c.reason + " " + c.want
			if s.calls.Load() != before && c.reason != "body_too_large" {
				t.Error("the server saw it")
			}
		})
	}
	t.Run("rate", func(t *testing.T) {
		status := ""
		for range 2 {
			res, err := h.call(context.Background(), "/rare.One/Echo", bytes.NewReader(framedText("x")))
			if err != nil {
				t.Fatal(err)
			}
			_, status = finish(t, res)
		}
		if status != "8" {
			t.Errorf("the second call has status %s", status)
		}
	})
	t.Run("GET", func(t *testing.T) {
		req, _ := http.NewRequest("GET", "https://models.test"+echo, nil)
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
		if r := h.send(h.client(true), req); r.Header.Get("grpc-status") != "3" {
			t.Errorf("%d %v", r.StatusCode, r.Header)
		}
	})
	t.Run("over HTTP/1.1", func(t *testing.T) {
		before := s.calls.Load()
		r := h.do("POST", echo, "x", map[string]string{"Content-Type": "application/grpc", "Te": "trailers"})
		if r.StatusCode != 400 || r.reason() != "bad_grpc_call" || s.calls.Load() != before {
			t.Errorf("%d %s", r.StatusCode, r.body)
		}
	})
	t.Run("not gRPC at all", func(t *testing.T) {
		if r := h.do("GET", "/v1/models/m", "", nil); r.StatusCode != 503 || r.reason() != "protocol_not_served" {
			t.Errorf("%d %s", r.StatusCode, r.body)
		}
	})
	t.Run("records", func(t *testing.T) {
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		for _, r := range h.audit.records(t) {
			if want, ok := wanted[r["id"].(string)]; ok && fmt.Sprint(r["reason"], " ", r["grpc_status"]) != want {
				t.Errorf("record %v; want %s", r, want)
			}
		}
	})
}

// zeros is a reader of n zero bytes.
type zeros struct{ n int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.n)
	z.n -= n
	clear(p[:n])
	return n, nil
}

// A large message is forwarded as it arrives, not held.
func TestCallLarge(t *testing.T) {
	const size = 64 << 20
	h, _ := buildGRPC(t, strings.Replace(grpcRoute, "callers:", "limits: {body: 128MiB}\n    callers:", 1))
	// Go lets the heap double before it collects. What earlier tests left alive would double with it.
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	runtime.GC() // pools give up their memory at the second
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var most atomic.Uint64
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	res, err := h.call(context.Background(), echo, &zeros{size})
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	res.Body.Close()
	close(stop)
	watch.Wait()
	if err != nil || n != size || res.Trailer.Get("grpc-status") != "0" {
		h.stop()
		t.Fatalf("%d bytes, %v, %v, %v", n, err, res.Trailer, h.audit.records(t))
	}
	if grown := int64(most.Load()) - int64(before.HeapInuse); grown > 32<<20 {
		t.Errorf("%d MiB more in use meanwhile, client and server in it", grown>>20)
	}
}

// Calls cancelled at random leave nothing behind and disturb no other call.
func TestCallsCancelledAtRandom(t *testing.T) {
	h, s := buildGRPC(t, grpcRoute)
	client := h.client(true)
	token := "Bearer " + h.token()
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			for j := range 4 {
				ctx, cancel := context.WithCancel(context.Background())
				cancels := (i+j)%3 == 0
				if cancels {
					time.AfterFunc(time.Duration(i*j)*100*time.Microsecond, cancel)
				}
				text := strings.Repeat("x", i<<10)
				req, _ := http.NewRequestWithContext(ctx, "POST", "https://models.test"+echo, bytes.NewReader(framedText(text)))
				req.Header = http.Header{"Authorization": {token}, "Content-Type": {"application/grpc"}, "Te": {"trailers"}}
				res, err := client.Do(req)
				if err == nil {
					body, status := finish(t, res)
					if !cancels && (status != "0" || body != string(framedText(text))) {
						t.Errorf("%d bytes of %d, status %s", len(body), len(text), status)
					}
				} else if !cancels && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if s.calls.Load() == 0 {
		t.Error("no call arrived")
	}
}

// A side that only listens is not idle while the other sends.
func TestCallWithOneSideSilent(t *testing.T) {
	t.Parallel()
	h, _ := buildGRPC(t, strings.Replace(grpcRoute, "callers:", "timeouts: {idle: 2s}\n    callers:", 1))
	pr, pw := io.Pipe()
	defer pw.Close()
	res, err := h.call(context.Background(), "/a.B/Tick", pr)
	if err != nil {
		t.Fatal(err)
	}
	body, status := finish(t, res)
	if n := strings.Count(body, "tick"); n != 20 || status != "0" {
		t.Errorf("%d ticks, status %s", n, status)
	}
}

// A call with both sides silent ends.
func TestCallWithBothSidesSilent(t *testing.T) {
	t.Parallel()
	h, s := buildGRPC(t, strings.Replace(grpcRoute, "callers:", "timeouts: {idle: 1s}\n    callers:", 1))
	pr, pw := io.Pipe()
	defer pw.Close()
	res, err := h.call(context.Background(), "/a.B/Hang", pr)
	if err != nil {
		t.Fatal(err)
	}
	if _, status := finish(t, res); status == "0" {
		t.Error("the call ended well")
	}
	s.cancelled(t)
}
