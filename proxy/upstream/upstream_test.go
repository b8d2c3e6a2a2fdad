package upstream

import (
	"bufio"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// rawServer serves each connection with handle and returns its address. The end of the test
// waits for all handlers.
func rawServer(tb testing.TB, handle func(net.Conn)) (addr string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var mu sync.Mutex
	var handlers sync.WaitGroup
	conns := map[net.Conn]bool{}
	handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			handlers.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		handlers.Wait()
	})
	return l.Addr().String()
}

// readRequestHead reads up to the empty line after the head.
func readRequestHead(in *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := in.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

func endpointURL(tb testing.TB, s string) setting.URL {
	tb.Helper()
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := setting.ParseURL(s)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// still has a clock that stands still, so that idle connections stay usable on a slow machine.
var still = Options{Now: func() time.Time { return time.Unix(1e9, 0) }}

// newUpstream returns an upstream of these addresses or URLs.
func newUpstream(tb testing.TB, addrs ...string) *Upstream {
	tb.Helper()
	var c Config
	for _, a := range addrs {
		c.Rest = append(c.Rest, endpointURL(tb, a))
	}
	return configured(tb, c, still)
}

func configured(tb testing.TB, c Config, o Options) *Upstream {
	tb.Helper()
	u, err := NewPools(o).Open("test", c, false)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(u.Close)
	return u
}

// statusOf returns the state of an upstream's endpoints, even after Close.
func statusOf(u *Upstream) (all []EndpointStatus) {
	for _, e := range u.all() {
		all = append(all, e.status())
	}
	return all
}

// quiet returns a logger that discards expected server errors.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// TestCauseNamesTheLimitOfACall: a gRPC call waits for content as long as its deadline says.
func TestCauseNamesTheLimitOfACall(t *testing.T) {
	limits := Timeouts{Idle: time.Minute, Pause: 90 * time.Second}
	if got, want := limits.waited(wire.LateContent).Error(), string(wire.LateContent)+" within 1m30s (the call's deadline; timeouts.idle sets another)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	limits.Pause = 0
	if got, want := limits.waited(wire.LateContent).Error(), string(wire.LateContent)+" within 1m (timeouts.idle)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
