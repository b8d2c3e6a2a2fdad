package fetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
)

// hostileProxy is a proxy that does as it likes with each CONNECT.
func hostileProxy(t *testing.T, do func(c net.Conn)) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	ended, end := context.WithCancel(context.Background())
	work.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			work.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ended, func() { c.Close() })()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					do(c)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); end(); work.Wait() })
	return parsed(t, "http://"+l.Addr().String())
}

// TestHostileProxyLearnsAndForgesNothing: whatever a proxy answers, no document of its own is taken, no
// token and no password is shown, and memory is bounded. A fetch through an honest proxy goes on beside.
func TestHostileProxyLearnsAndForgesNothing(t *testing.T) {
	honest, seen := secured(t)
	good, _ := connectProxy(t, "")
	const document = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n" + `{"issuer":"a"}`
	var heard sync.Map // what the proxies got after CONNECT
	listen := func(c net.Conn) {
		b := make([]byte, 64<<10)
		n, _ := c.Read(b)
		heard.Store(string(b[:n]), true)
	}
	var flooded atomic.Int64
	left := make(chan struct{}, 8)
	for name, x := range map[string]struct {
		do   func(c net.Conn)
		kind Kind
	}{
		"says nothing": {func(c net.Conn) { listen(c) }, TimedOut},
		"closes":       {func(net.Conn) {}, Unreachable},
		"says nothing after 200": {func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
			_, _ = io.Copy(io.Discard, c) // until the client leaves
			left <- struct{}{}
		}, TimedOut},
		"answers in the issuer's place":         {func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n"+document); listen(c) }, Unreachable},
		"answers the CONNECT with the document": {func(c net.Conn) { fmt.Fprint(c, document); listen(c) }, Unreachable},
		"has a certificate of its own": {func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{authtest.NewCA("proxy", time.Now(), nil).TLS()}})
			if s.Handshake() == nil {
				listen(s)
			}
		}, Untrusted},
		"redirects": {func(c net.Conn) {
			fmt.Fprintf(c, "HTTP/1.1 302 Found\r\nLocation: %s/private\r\nContent-Length: 0\r\n\r\n", honest.URL)
		}, ProxyRefused},
		"speaks of itself": {func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 407 \x1b[31mevil level=ERROR\r\nContent-Length: 0\r\n\r\n") }, ProxyRefused},
		"sends a head without end": {func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			line := []byte("X: " + strings.Repeat("x", 1<<10) + "\r\n")
			for err := error(nil); err == nil; {
				var n int
				n, err = c.Write(line)
				flooded.Add(int64(n))
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var reached atomic.Bool
			proxy := hostileProxy(t, func(c net.Conn) { reached.Store(true); x.do(c) })
			fetch := func(proxy *url.URL, timeout time.Duration) error {
				var d doc
				return New(Options{
					Roots: rootsOf(honest), Proxy: proxy, ProxyUser: url.UserPassword("egress", "secret-password"), Timeout: timeout,
					Token: func() ([]byte, error) { return []byte("secret-token"), nil }, Origins: []*url.URL{parsed(t, honest.URL)},
				}).JSON(context.Background(), honest.URL, &d)
			}
			limit := time.Minute
			if x.kind == TimedOut {
				limit = 200 * time.Millisecond
			}
			victim := make(chan error, 1)
			go func() { victim <- fetch(good, time.Minute) }()
			err := fetch(proxy, limit)
			for x.kind == TimedOut && !reached.Load() { // the time was up before the busy machine sent the CONNECT
				limit *= 2
				err = fetch(proxy, limit)
			}
			if err == nil || x.kind != "" && kind(t, err) != x.kind {
				t.Errorf("got %v, want %s", err, x.kind)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "\x1b")) {
				t.Errorf("the error repeats a secret or the proxy: %q", err)
			}
			if name == "says nothing after 200" {
				<-left // the client leaves after its fetch: else connections to such a proxy would pile up
			}
			if err := <-victim; err != nil {
				t.Errorf("the victim beside: %v", err)
			}
		})
	}
	for _, got := range seen() {
		if got != "Bearer secret-token" {
			t.Errorf("the issuer saw %q", got)
		}
	}
	heard.Range(func(text, _ any) bool {
		if strings.Contains(text.(string), "secret") {
			t.Error("a proxy has heard a token")
		}
		return true
	})
	if n := flooded.Load(); n > 64<<20 {
		t.Errorf("the client took %d bytes of a head", n)
	}
}
