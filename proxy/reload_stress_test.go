package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy"
)

// reloads is the number of reloads under traffic; half of them are of broken files.
const reloads = 1000

// pace is the pause of a client after each request. Several requests still meet each reload, and the
// reloads do not wait for processors that the clients keep busy.
const pace = 2 * time.Millisecond

// stressed is the configuration with a number that marks requests and answers.
func stressed(base string, n int) string {
	return strings.ReplaceAll(base, "MARK", fmt.Sprint(n))
}

// traffic runs clients until they are stopped.
type traffic struct {
	h       *house
	stop    context.Context
	clients sync.WaitGroup
	served  atomic.Int64
}

// repeat runs a client repeatedly. once returns what failed, "" if nothing.
func (x *traffic) repeat(name string, once func() string) {
	x.clients.Go(func() {
		n := 0
		for x.stop.Err() == nil {
			if fault := once(); fault != "" && x.stop.Err() == nil {
				x.h.t.Errorf("%s, after %d: %s", name, n, fault)
				return
			}
			n++
			x.served.Add(1)
			time.Sleep(pace)
		}
		if n == 0 {
			x.h.t.Errorf("%s: not one", name)
		}
	})
}

// sameMark checks that one configuration made the whole answer, and returns the fault.
func sameMark(res *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err.Error()
	case res.StatusCode != 200:
		return fmt.Sprintf("%d %s", res.StatusCode, body)
	case res.Header.Get("X-Answer") != string(body):
		return fmt.Sprintf("the request was marked %q, and its answer %q", body, res.Header.Get("X-Answer"))
	}
	return ""
}

func TestThousandReloadsUnderTraffic(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute of reloads")
	}
	rpc := newGRPCServer(t)
	h := signed(t, plan{more: unwatched + "drain: 5m\n", handler: func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			ticking(w, r)
		case "/socket":
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			_, _ = io.Copy(c, rw)
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, r.Header.Get("X-Request-Mark"))
		}
	}, routes: `
  - host: models.test
    upstream: %s
    callers: [issuer/corp, key/acme]
    rules: [{allow: "*"}]
    websocket: true
    headers: {request: {set: {X-Request-Mark: "MARK"}}, response: {set: {X-Answer: "MARK"}}}
  - {host: models.test, path: /bench.Echo, upstream: 'h2c://` + rpc.addr + `', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /extra-MARK, upstream: %s, callers: issuer/corp, rules: [{allow: "*"}]}
`})
	text, err := os.ReadFile(h.file)
	if err != nil {
		t.Fatal(err)
	}
	base, token := string(text), h.token()
	write := func(text string) {
		if err := os.WriteFile(h.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	x := &traffic{h: h, stop: ctx}
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		c := h.client(h2)
		x.repeat(name, func() string {
			req, _ := http.NewRequest("POST", "https://models.test/v1", strings.NewReader(`{"instances": [1]}`))
			req.Header.Set("Authorization", "Bearer "+token)
			return sameMark(c.Do(req))
		})
		s := h.signingClient(h2, nil)
		x.repeat("signed, "+name, func() string {
			req, _ := http.NewRequest("POST", "https://models.test/v1", strings.NewReader(`{"instances": [1]}`))
			return sameMark(s.Do(req))
		})
	}
	c := h.client(true)
	x.repeat("gRPC", func() string {
		frame := append(binary.BigEndian.AppendUint32([]byte{0}, 4), "ping"...)
		req, _ := http.NewRequest("POST", "https://models.test/bench.Echo/Echo", bytes.NewReader(frame))
		req.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/grpc"}, "Te": {"trailers"}}
		res, err := c.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(body, frame) || res.Trailer.Get("grpc-status") != "0" {
			return fmt.Sprintf("%d %q %v %v", res.StatusCode, body, err, res.Trailer)
		}
		return ""
	})
	patient := h.client(false)
	patient.Timeout = 0 // one answer lasts through all reloads
	events := h.stream(patient, "/events", token)
	x.repeat("event stream", func() string {
		if _, err := events.ReadString('\n'); err != nil {
			return err.Error()
		}
		return ""
	})
	socket := h.dial("models.test")
	_ = socket.SetDeadline(time.Time{})
	_, _ = io.WriteString(socket, "GET /socket HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+token+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsKey+"\r\n\r\n")
	frames := bufio.NewReader(socket)
	if res, err := http.ReadResponse(frames, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("WebSocket: %v %v", res, err)
	}
	x.repeat("WebSocket", func() string {
		if _, err := io.WriteString(socket, "ping"); err != nil {
			return err.Error()
		}
		if _, err := io.ReadFull(frames, make([]byte, 4)); err != nil {
			return err.Error()
		}
		return ""
	})
	used := errand{}.signed(t)
	if got := h.sendErrand(used); got.StatusCode != 200 {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	replays := h.client(true)
	x.repeat("replay", func() string {
		res, err := replays.Do(used.request(t))
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		if body, _ := io.ReadAll(res.Body); res.StatusCode != 401 || !strings.Contains(string(body), "replayed") && !strings.Contains(string(body), "stale") {
			return fmt.Sprintf("%d %s", res.StatusCode, body)
		}
		return ""
	})

	var settled runtime.MemStats
	goroutines := 0
	for n := range reloads {
		if n == reloads/10 { // pools and caches have reached their size
			h.audit.forget()
			runtime.GC()
			runtime.ReadMemStats(&settled)
			goroutines = runtime.NumGoroutine()
		}
		next, want := stressed(base, n), proxy.ReloadChanged
		if n%2 == 1 {
			next, want = next[:len(next)/2]+"\n  : {", proxy.ReloadRefused
		}
		write(next)
		if r := h.gateway.Reload(ctx); r.Result != want {
			t.Fatalf("reload %d was %s: %s %v", n, r.Result, r.Summary, r.Faults)
		}
		if t.Failed() {
			break
		}
	}
	// For a moment, requests in flight keep what the last reloads replaced.
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var after runtime.MemStats
		h.audit.forget() // the test's own, and larger than the bound
		runtime.GC()
		runtime.ReadMemStats(&after)
		n, grown := runtime.NumGoroutine(), int64(after.HeapAlloc)-int64(settled.HeapAlloc)
		if n <= goroutines+20 && grown <= 8<<20 {
			t.Logf("the heap grew by %d bytes", grown)
			break
		}
		if time.Now().After(end) {
			t.Errorf("%d goroutines, %d after the first reloads; the heap grew by %d bytes", n, goroutines, grown)
			break
		}
	}
	cancel()
	socket.Close()
	x.clients.Wait()
	t.Logf("%d requests and messages", x.served.Load())
}
