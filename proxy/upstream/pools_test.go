package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// countedServer serves HTTP/1.1 and counts its connections.
func countedServer(t testing.TB) (addr string, conns *atomic.Int64) {
	conns = new(atomic.Int64)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") })
	return serveHTTP(t, &http.Server{Handler: handler, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}}), conns
}

// restConfig returns a configuration with these REST endpoints.
func restConfig(t testing.TB, urls ...string) (c Config) {
	for _, at := range urls {
		c.Rest = append(c.Rest, endpointURL(t, at))
	}
	return c
}

// opened opens an upstream; the caller must close it.
func opened(t testing.TB, p *Pools, c Config) *Upstream {
	t.Helper()
	u, err := p.Open("models", c, false)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func mustAnswer(t testing.TB, u *Upstream) {
	t.Helper()
	if _, err := answered(u, get()); err != nil {
		t.Fatal(err)
	}
}

// bothVersions runs a test over HTTP/1.1 and over HTTP/2.
func bothVersions(t *testing.T, test func(t *testing.T, c Config, conns *atomic.Int64)) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		addr, conns := countedServer(t)
		test(t, restConfig(t, addr), conns)
	})
	t.Run("HTTP/2", func(t *testing.T) {
		url, conns := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") })
		test(t, restConfig(t, url), conns)
	})
}

func TestReopenedUpstreamKeepsItsConnections(t *testing.T) {
	bothVersions(t, func(t *testing.T, c Config, conns *atomic.Int64) {
		p := NewPools(still)
		before := opened(t, p, c)
		mustAnswer(t, before)
		after := opened(t, p, c)
		before.Close()
		defer after.Close()
		if after != before {
			t.Error("the same configuration opens another upstream")
		}
		mustAnswer(t, after)
		if n := conns.Load(); n != 1 {
			t.Errorf("the server accepted %d connections, want 1", n)
		}
		if s := statusOf(after)[0]; s.Dials != 1 || s.Reuses != 1 || s.Idle != 1 {
			t.Errorf("status is %+v, want 1 dial, 1 reuse, 1 idle", s)
		}
	})
}

func TestChangedConfigurationOpensFreshConnections(t *testing.T) {
	bothVersions(t, func(t *testing.T, c Config, conns *atomic.Int64) {
		p := NewPools(still)
		before := opened(t, p, c)
		mustAnswer(t, before)
		c.Host = "other.example"
		after := opened(t, p, c)
		defer after.Close()
		mustAnswer(t, after)
		if n := conns.Load(); n != 2 {
			t.Errorf("the server accepted %d connections, want 2", n)
		}
		status := p.Status()
		if len(status) != 1 || len(status[0].Endpoints) != 1 {
			t.Fatalf("status is %+v, want one upstream with one endpoint", status)
		}
		if s := status[0].Endpoints[0]; s.Dials != 2 || s.Idle != 2 {
			t.Errorf("status is %+v, want 2 dials and 2 idle: those of both configurations", s)
		}
		before.Close()
		if s := p.Status()[0].Endpoints[0]; s.Dials != 2 || s.Idle != 1 {
			t.Errorf("status is %+v, want the counters to go on and 1 idle", s)
		}
	})
}

func TestChangedCAFileOpensFreshConnections(t *testing.T) {
	_, ca := testCertificate(t)
	text, err := os.ReadFile(string(ca))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	c := restConfig(t, "https://localhost")
	c.CA = setting.Path(file)
	p := NewPools(still)
	var all []*Upstream
	for _, content := range [][]byte{text, append(text, '\n'), text} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		u := opened(t, p, c)
		defer u.Close()
		all = append(all, u)
	}
	if all[0] == all[1] || all[0] != all[2] {
		t.Error("the content of the CA file does not distinguish upstreams")
	}
}

func TestNamesDoNotShareConnections(t *testing.T) {
	addr, conns := countedServer(t)
	p := NewPools(still)
	c := restConfig(t, addr)
	for _, name := range []string{"b", "a"} {
		u, err := p.Open(name, c, false)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		mustAnswer(t, u)
	}
	if n := conns.Load(); n != 2 {
		t.Errorf("the server accepted %d connections, want 2", n)
	}
	if s := p.Status(); len(s) != 2 || s[0].Name != "a" || s[1].Name != "b" || s[0].Endpoints[0].Dials != 1 {
		t.Errorf("status is %+v, want a and b with a dial each", s)
	}
}

func TestEjectionSurvivesReload(t *testing.T) {
	good, _ := countedServer(t)
	_, ca := testCertificate(t)
	for name, c := range map[string]struct {
		change func(*Config)
		dials  int // of the bad endpoint
	}{
		"other limits": {func(c *Config) { c.MaxIdle = 3 }, 1},
		"other trust":  {func(c *Config) { c.CA, c.Rest = ca, append(c.Rest, endpointURL(t, "https://secure")) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeNet{to: map[string]string{"good:80": good}}
			p := NewPools(Options{Dial: f.dial})
			before := restConfig(t, "http://bad", "http://good")
			after := restConfig(t, "http://bad", "http://good")
			c.change(&after)
			for _, config := range []Config{before, after} {
				u := opened(t, p, config)
				defer u.Close()
				for range 4 {
					mustAnswer(t, u)
				}
			}
			if n := f.count("bad:80"); n != c.dials {
				t.Errorf("the bad endpoint was tried %d times, want %d", n, c.dials)
			}
			s := p.Status()[0].Endpoints[0]
			if s.Failures != uint64(c.dials) || !s.Ejected {
				t.Errorf("status is %+v, want %d failures and an ejection", s, c.dials)
			}
		})
	}
}

func TestStatusListsTheEndpointsOfAllConfigurations(t *testing.T) {
	p := NewPools(Options{})
	before := opened(t, p, restConfig(t, "http://a", "http://b"))
	after := opened(t, p, restConfig(t, "http://c", "http://b"))
	defer after.Close()
	urls := func() (all []string) {
		for _, e := range p.Status()[0].Endpoints {
			all = append(all, e.URL)
		}
		return all
	}
	if got, want := urls(), []string{"http://c", "http://b", "http://a"}; !slices.Equal(got, want) {
		t.Errorf("endpoints are %v, want %v", got, want)
	}
	before.Close()
	if got, want := urls(), []string{"http://c", "http://b"}; !slices.Equal(got, want) {
		t.Errorf("endpoints are %v, want %v", got, want)
	}
}

func TestLastCloseClosesAllConnections(t *testing.T) {
	bothVersions(t, func(t *testing.T, c Config, _ *atomic.Int64) {
		p := NewPools(Options{})
		u, again := opened(t, p, c), opened(t, p, c)
		mustAnswer(t, u)
		u.Close()
		if s := p.Status(); len(s) != 1 || s[0].Endpoints[0].Idle != 1 {
			t.Errorf("status after the first Close is %+v, want an idle connection", s)
		}
		again.Close()
		again.Close() // one too many
		if s := p.Status(); len(s) != 0 {
			t.Errorf("status after the last Close is %+v, want none", s)
		}
		if n := statusOf(u)[0].Idle; n != 0 {
			t.Errorf("%d connections are kept after the last Close", n)
		}
		anew := opened(t, p, c)
		defer anew.Close()
		if s := p.Status()[0].Endpoints[0]; anew == u || s.Dials != 0 {
			t.Errorf("status after another Open is %+v, want that of a new upstream", s)
		}
	})
}

func TestRequestInFlightSurvivesClose(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	closed := make(chan struct{}, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "begun, ")
		_ = http.NewResponseController(w).Flush()
		begun <- struct{}{}
		<-release
		fmt.Fprint(w, "done")
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	addr := serveHTTP(t, &http.Server{Handler: handler, Protocols: protocols, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}})
	for _, scheme := range []string{"http://", "h2c://"} {
		t.Run(scheme, func(t *testing.T) {
			u := opened(t, NewPools(Options{}), restConfig(t, scheme+addr))
			x, err := u.Send(t.Context(), get())
			if err != nil {
				t.Fatal(err)
			}
			<-begun
			u.Close()
			release <- struct{}{}
			if body, err := io.ReadAll(x.Body); string(body) != "begun, done" || err != nil {
				t.Errorf("the answer is %q, %v", body, err)
			}
			x.Close()
			<-closed // the connection closes with the request
			if s := statusOf(u)[0]; s.Idle != 0 || s.InFlight != 0 {
				t.Errorf("status is %+v, want none idle and none in flight", s)
			}
		})
	}
}

// As in a series of reloads, each upstream opens with a new configuration while the previous
// one is still open.
func TestReloadsLeakNoConnectionsOrGoroutines(t *testing.T) {
	one, _ := countedServer(t)
	two, _ := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") })
	var live atomic.Int64
	p := NewPools(Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		live.Add(1)
		return &closeCounted{Conn: conn, live: &live}, nil
	}})
	var last *Upstream
	cycle := func(i int) {
		c := restConfig(t, one, two)
		c.MaxIdle = i + 1
		u := opened(t, p, c)
		for range 4 {
			mustAnswer(t, u)
		}
		if last != nil {
			last.Close()
		}
		last = u
	}
	// The server's goroutines may end later than our connections, so measure waits for both.
	measure := func(most int) (goroutines int, memory int64) {
		last.Close()
		last = nil
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if live.Load() == 0 && runtime.NumGoroutine() <= most && !strings.Contains(leftStacks(), "proxy/wire/") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), int64(m.HeapAlloc)
	}
	for i := range 20 {
		cycle(i)
	}
	const more = 20
	goroutines, memory := measure(runtime.NumGoroutine() + more)
	for i := range 200 {
		cycle(i)
	}
	goroutinesAfter, memoryAfter := measure(goroutines + more)
	if n := live.Load(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if goroutinesAfter > goroutines+more {
		t.Errorf("%d goroutines after 200 cycles, %d before", goroutinesAfter, goroutines)
	}
	if grown := memoryAfter - memory; grown > 1<<20 {
		t.Errorf("%d bytes more after 200 cycles", grown)
	}
	if s := p.Status(); len(s) != 0 {
		t.Errorf("status is %+v, want none", s)
	}
}

func leftStacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// closeCounted decrements a counter once when it is closed.
type closeCounted struct {
	net.Conn
	live *atomic.Int64
	once sync.Once
}

func (c *closeCounted) Close() error {
	c.once.Do(func() { c.live.Add(-1) })
	return c.Conn.Close()
}

// Requests are sent on the newest upstream while configurations change.
func TestReloadsLoseNoRequest(t *testing.T) {
	bothVersions(t, func(t *testing.T, c Config, _ *atomic.Int64) {
		p := NewPools(Options{})
		var current atomic.Pointer[Upstream]
		current.Store(opened(t, p, c))
		done := make(chan struct{})
		var senders sync.WaitGroup
		var sent atomic.Int64
		for range 4 {
			senders.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					if body, err := answered(current.Load(), get()); body != "ok" || err != nil {
						t.Errorf("a request got %q, %v", body, err)
						return
					}
					sent.Add(1)
				}
			})
		}
		for i := 0; i < 100 || sent.Load() < 100 && !t.Failed(); i++ {
			c.MaxIdle = 1 + i/2%3 // every second reload changes nothing
			old := current.Swap(opened(t, p, c))
			old.Close()
			_ = p.Status()
			runtime.Gosched()
		}
		close(done)
		senders.Wait()
		current.Load().Close()
		if s := p.Status(); len(s) != 0 {
			t.Errorf("status is %+v, want none", s)
		}
	})
}
