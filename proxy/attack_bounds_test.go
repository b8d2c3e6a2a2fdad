package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestAttackBigHeads(t *testing.T) { // alone, because it measures the heap of the process
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before(""), more: "limits: {head_bytes: 16KiB, keep_alive: 1s}\ntimeouts: {idle: 300ms}"})
	get := "GET /x HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + h.token() + "\r\n"
	fields := func(n, size int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "x-%d: %s\r\n", i, strings.Repeat("x", size))
		}
		return b.String()
	}
	for name, request := range map[string]string{
		"a big field":        get + fields(1, 30_000) + "\r\n",
		"a huge field":       get + fields(1, 3_000_000) + "\r\n",
		"many fields":        get + fields(500, 1) + "\r\n",
		"very many fields":   get + fields(50_000, 0) + "\r\n",
		"one name, often":    get + strings.Repeat("x: y\r\n", 300) + "\r\n",
		"a long target":      strings.Replace(get, "/x", "/"+strings.Repeat("x", 100_000), 1) + "\r\n",
		"a long query":       strings.Replace(get, "/x", "/?"+strings.Repeat("x", 100_000), 1) + "\r\n",
		"a long method":      strings.Repeat("X", 100_000) + get + "\r\n",
		"a long name":        get + strings.Repeat("x", 100_000) + ": y\r\n\r\n",
		"a line without end": strings.Repeat("x", 1_000_000),
		"a big credential":   "GET /x HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + strings.Repeat("x", 30_000) + "\r\n\r\n",
		"a long host":        "GET /x HTTP/1.1\r\nHost: " + strings.Repeat("x.", 5000) + "test\r\n\r\n",
	} {
		got := statuses(h.tell(request))
		if up := j.taken(); got != "400" && got != "431" && got != "414" && (got != "-" || len(request) < 20_000) || len(up) > 0 {
			t.Errorf("%s: %s, upstream %s; want 400, 414 or 431 and nothing", name, got, targets(up))
		}
	}
	usual := h.usual("GET", "/x")
	// Go lets the heap double before it collects. What earlier tests left alive would double with it.
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	for name, send := range map[string]func(*frames){
		"a big field":  func(f *frames) { f.headers(1, true, append(usual, "x: "+strings.Repeat("x", 30_000))...) },
		"a huge field": func(f *frames) { f.headers(1, true, append(usual, "x: "+strings.Repeat("x", 1_000_000))...) },
		"many fields":  func(f *frames) { f.headers(1, true, append(usual, manyLines(200)...)...) },
		"very many":    func(f *frames) { f.headers(1, true, append(usual, manyLines(10_000)...)...) },
		"a long path":  func(f *frames) { f.headers(1, true, h.usual("GET", "/"+strings.Repeat("x", 100_000))...) },
		"many cookies": func(f *frames) { f.headers(1, true, append(usual, slices.Repeat([]string{"cookie: a=b"}, 5000)...)...) },
		"HPACK bomb": func(f *frames) {
			f.block1(append(f.block(append(usual, "x: "+strings.Repeat("x", 4000))...), bytes.Repeat([]byte{0xbe}, 16_000)...))
		},
		"huge table":   func(f *frames) { f.block1(append([]byte{0x3f, 0xff, 0xff, 0xff, 0x7f}, f.block(usual...)...)) },
		"bad index":    func(f *frames) { f.block1(append(f.block(usual...), 0xff, 0xff, 0x7f)) },
		"endless head": func(f *frames) { f.endless(f.block("x: "+strings.Repeat("x", 1000)), usual) },
		"empty frames": func(f *frames) { f.endless(nil, usual) },
		"padding for ever": func(f *frames) {
			f.headers(1, false, usual...)
			for f.fr.WriteDataPadded(1, false, nil, make([]byte, 255)) == nil {
			}
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f := h.frames()
		f.mute = true
		sent := make(chan struct{})
		go func() { defer close(sent); send(f) }()
		got := f.wait(1)
		runtime.ReadMemStats(&after)
		f.c.Close()
		<-sent
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
			t.Errorf("HTTP/2, %s: %d MiB more on the heap", name, grown>>20)
		}
		if up := j.taken(); got == "200" || got == "" || len(up) > 0 {
			t.Errorf("HTTP/2, %s: %s, upstream %s; want a refusal and nothing", name, got, targets(up))
		}
	}
	h.end(j, nil)
}

func manyLines(n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("x-%d: y", i)
	}
	return lines
}

// block1 sends a raw header block on stream 1.
func (f *frames) block1(b []byte) {
	_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndStream: true, EndHeaders: true})
}

// endless begins a head and continues it until the connection is cut.
func (f *frames) endless(fragment []byte, lines []string) {
	_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(lines...)})
	for f.fr.WriteContinuation(1, false, fragment) == nil {
	}
}

func TestAttackBigBodies(t *testing.T) {
	t.Parallel()
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("\n    limits: {body: 100KB}")})
	post := "POST /x HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + h.token() + "\r\n"
	chunk := "4000\r\n" + strings.Repeat("x", 0x4000) + "\r\n"
	h.meanwhile(func() {
		for name, r := range map[string]struct{ head, more string }{
			"announced":           {"Content-Length: 100001\r\n\r\n", "x"},
			"announced, huge":     {"Content-Length: 9223372036854775807\r\n\r\n", chunk},
			"chunks for ever":     {"Transfer-Encoding: chunked\r\n\r\n", chunk},
			"bytes for ever":      {"Transfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 1000)},
			"a huge chunk":        {"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", chunk},
			"trailers for ever":   {"Transfer-Encoding: chunked\r\n\r\n0\r\n", "x: y\r\n"},
			"extensions for ever": {"Transfer-Encoding: chunked\r\n\r\n1;", "x"},
			"expected":            {"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n", chunk},
		} {
			c := h.dial("models.test")
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				_, err := io.WriteString(c, post+r.head)
				for err == nil {
					_, err = io.WriteString(c, r.more)
				}
			}()
			got := statuses(closes(t, name, c))
			c.Close()
			<-wrote
			if got != "413" && got != "400" && got != "-" {
				t.Errorf("%s: %s; want 413 or 400", name, got)
			}
		}
		for _, lines := range [][]string{{"content-length: 100001"}, nil} {
			f := h.frames()
			f.mute = true
			wrote := make(chan struct{})
			f.headers(1, false, h.usual("POST", "/x", lines...)...)
			go func() {
				defer close(wrote)
				for range 15 { // as much as the connection's windows allow
					f.data(1, false, strings.Repeat("x", 16000))
				}
			}()
			if got := f.wait(1); got != "413" && !strings.HasPrefix(got, "RST ") {
				t.Errorf("HTTP/2, %v: %s; want 413", lines, got)
			}
			f.c.Close()
			<-wrote
		}
	})
	if up := slices.DeleteFunc(j.taken(), func(r *judged) bool { return r.Target == "/honest" }); len(up) > 0 {
		t.Errorf("upstream %.500s; want none of them whole", targets(up))
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	j.l.Close()
	j.conns.Wait()
	j.sound(t)
}

// Hundreds of idle connections come from one address. Those beyond the limit are dropped, other
// addresses are served, and closed connections free their places.
func TestAttackFlood(t *testing.T) {
	leavesNothing(t)
	h := build(t, plan{more: "limits: {connections: 500, connections_per_address: 150, head_time: 2m}"})
	from := func(addr string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: time.Minute}
		return d.Dial("tcp", h.addrs.HTTPS[0].String())
	}
	if c, err := from("127.0.0.2"); err != nil {
		t.Skipf("this system has one loopback address only: %v", err)
	} else {
		c.Close()
	}
	var dropped atomic.Int64
	var all sync.WaitGroup
	var conns []net.Conn
	for range 400 {
		c, err := from("127.0.0.2")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		conns = append(conns, c)
		all.Go(func() {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				dropped.Add(1)
			}
		})
	}
	eventually(t, "250 connections are dropped", func() bool { return dropped.Load() == 250 })
	h.meanwhile(func() { time.Sleep(100 * time.Millisecond) })
	if n := dropped.Load(); n != 250 {
		t.Errorf("%d connections of 400 were dropped; want 250", n)
	}
	for _, c := range conns {
		c.Close()
	}
	all.Wait()
	eventually(t, "a place is free", func() bool {
		c, err := from("127.0.0.2")
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	})
}

// Many callers send at once: the route's limit bounds the requests at the upstream, and the other
// requests are refused.
func TestAttackBurst(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    limits: {in_flight: 10}\n", handler: func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
	}})
	token := h.token()
	client := h.client(true)
	eventually(t, "the gateway has the issuer's keys", func() bool { return get(t, client, token) == 200 })
	var ok, busy atomic.Int64
	var all sync.WaitGroup
	for range 300 {
		all.Go(func() {
			req, _ := http.NewRequest("GET", "https://models.test/", nil)
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			switch {
			case res.StatusCode == 200:
				ok.Add(1)
			case res.StatusCode == 429 && res.Header.Get("Retry-After") != "":
				busy.Add(1)
			}
		})
	}
	all.Wait()
	if most.Load() > 10 || ok.Load() < 10 || ok.Load()+busy.Load() != 300 {
		t.Errorf("%d at once, %d served, %d told to wait", most.Load(), ok.Load(), busy.Load())
	}
}
