package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// guarded is a server of HTTP/2 that ends a connection, and every request on it, where
// a real one would.
type guarded struct {
	settings []http2.Setting
	// ends says whether a request ends its connection, by its fields or by more of them
	// behind its content: with GOAWAY, or without a word if why is 0.
	ends func(fields *http2.MetaHeadersFrame, trailers bool) bool
	why  http2.ErrCode
	// resets and pings are how many of them a connection may have, of pings between two
	// answers; 0: no bound.
	resets, pings int
	late          chan struct{} // when it is closed, requests for /late are answered

	arrived atomic.Int64 // requests
	ended   atomic.Int64 // connections, by the server
	conns   atomic.Int64
	reset   atomic.Int64 // streams, by the client
}

func (g *guarded) serve(t testing.TB) (url string) { return "h2c://" + rawServer(t, g.talk) }

// talk answers each request of a connection once it is whole, with its trailers' names as the content.
// A request for /quiet has no answer.
func (g *guarded) talk(c net.Conn) {
	g.conns.Add(1)
	_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	s := &guardedConn{g: g, fr: http2.NewFramer(c, c), quiet: map[uint32]bool{}, lates: map[uint32]bool{}, trailers: map[uint32]string{}}
	s.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = s.fr.WriteSettings(g.settings...)
	for {
		f, err := s.fr.ReadFrame()
		if err != nil {
			return
		}
		if !s.take(f) {
			g.ended.Add(1)
			return
		}
	}
}

// guardedConn is a connection of a guarded server.
type guardedConn struct {
	g             *guarded
	last          uint32
	quiet, lates  map[uint32]bool
	trailers      map[uint32]string
	resets, pings int

	mu sync.Mutex // guards the writing side
	fr *http2.Framer
}

// take answers a frame. It returns false where the connection ends.
func (s *guardedConn) take(f http2.Frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, id := s.g, f.Header().StreamID
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		trailers := id <= s.last
		s.last = max(s.last, id)
		if !trailers {
			g.arrived.Add(1)
			s.quiet[id], s.lates[id] = f.PseudoValue("path") == "/quiet", f.PseudoValue("path") == "/late"
		}
		for _, x := range f.Fields {
			if trailers {
				s.trailers[id] += x.Name
			}
		}
		if g.ends != nil && g.ends(f, trailers) {
			if g.why != 0 {
				_ = s.fr.WriteGoAway(0, g.why, nil)
			}
			return false
		}
	case *http2.PingFrame:
		if f.IsAck() {
			return true
		}
		_ = s.fr.WritePing(true, f.Data)
		s.pings++
	case *http2.RSTStreamFrame:
		s.resets++
		g.reset.Add(1)
	}
	if g.resets > 0 && s.resets > g.resets || g.pings > 0 && s.pings > g.pings {
		_ = s.fr.WriteGoAway(s.last, http2.ErrCodeEnhanceYourCalm, nil)
		return false
	}
	ends := f.Header().Flags.Has(http2.FlagDataEndStream) && (f.Header().Type == http2.FrameData || f.Header().Type == http2.FrameHeaders)
	switch {
	case !ends || s.quiet[id]:
	case s.lates[id]:
		go func() {
			<-g.late
			s.mu.Lock()
			defer s.mu.Unlock()
			answerText(s.fr, id, "late")
		}()
	default:
		s.pings = 0
		answerText(s.fr, id, "ok "+s.trailers[id])
	}
	return true
}

func answerText(fr *http2.Framer, id uint32, text string) {
	var b bytes.Buffer
	_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true})
	_ = fr.WriteData(id, true, []byte(text))
}

// victims has many calls under way while attack runs, and fails the test if one is lost.
func victims(t *testing.T, u *Upstream, attack func()) {
	t.Helper()
	var all sync.WaitGroup
	over := make(chan struct{})
	defer all.Wait()
	defer close(over)
	for range 8 {
		all.Go(func() {
			for {
				if body, err := answered(u, call("x")); err != nil || body != "ok " {
					t.Errorf("a victim lost its call: %q, %v", body, err)
					return
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	attack()
}

// withTrailers is a request of unknown length with a trailer.
func withTrailers(contentType string) *Request {
	r := call("")
	r.Fields = message.Fields{{Name: "content-type", Value: contentType}}
	r.Body = trailed{strings.NewReader("x"), message.Fields{{Name: "x-sum", Value: "1"}}}
	r.Length = -1
	r.Trailers = func(f message.Fields) message.Fields { return f }
	return r
}

// A server such as grpc-go ends the connection at the second HEADERS of a stream: no
// caller can have the gateway send one.
func TestTrailersOfOneCallerEndNoConnectionOfOthers(t *testing.T) {
	for name, kind := range map[string]string{"gRPC": "application/grpc", "others": "text/plain"} {
		t.Run(name, func(t *testing.T) {
			g := &guarded{ends: func(_ *http2.MetaHeadersFrame, trailers bool) bool { return trailers }, why: http2.ErrCodeProtocol}
			list := setting.List[setting.URL]{endpointURL(t, g.serve(t))}
			u := configured(t, Config{Rest: list, GRPC: list}, Options{})
			victims(t, u, func() {
				for range 40 {
					if body, err := answered(u, withTrailers(kind)); err != nil || body != "ok " {
						t.Errorf("the request without its trailers: %q, %v", body, err)
					}
				}
			})
			if n := g.ended.Load(); n > 0 {
				t.Errorf("%d connections ended", n)
			}
		})
	}
}

// Trailers go out over HTTP/2 where the configuration says so, but for those of gRPC.
func TestTrailersGoWhereTheUpstreamTakesThem(t *testing.T) {
	g := &guarded{}
	list := setting.List[setting.URL]{endpointURL(t, g.serve(t))}
	u := configured(t, Config{Rest: list, GRPC: list, RequestTrailers: true}, Options{})
	for kind, want := range map[string]string{"text/plain": "ok x-sum", "application/grpc": "ok ", "application/grpc+proto": "ok "} {
		if body, err := answered(u, withTrailers(kind)); err != nil || body != want {
			t.Errorf("%s: %q, %v; want %q", kind, body, err, want)
		}
	}
}

// A head that is larger than the server takes never leaves: hypercorn ends the
// connection at one.
func TestHeadAboveTheServersLimitIsNotSent(t *testing.T) {
	size := func(f *http2.MetaHeadersFrame) (n uint32) {
		for _, x := range f.Fields {
			n += x.Size()
		}
		return n
	}
	const most = 4096
	g := &guarded{
		settings: []http2.Setting{{ID: http2.SettingMaxHeaderListSize, Val: most}},
		ends:     func(f *http2.MetaHeadersFrame, _ bool) bool { return size(f) > most },
		why:      http2.ErrCodeEnhanceYourCalm,
	}
	u := grpcUpstream(t, Options{}, g.serve(t))
	sent := 0
	victims(t, u, func() {
		for n := most - 600; n <= most+100; n++ {
			r := call("x")
			r.Fields = append(r.Fields, message.Field{Name: "x-long", Value: strings.Repeat("a", n)})
			_, err := answered(u, r)
			if err == nil {
				sent++
			} else if !errors.Is(err, message.ErrHeadTooLarge) {
				t.Fatal(err)
			}
		}
	})
	if n := g.ended.Load(); n > 0 || sent < 100 || sent > 500 {
		t.Errorf("%d connections ended, %d heads were sent", n, sent)
	}
}

// A request at which servers end their connections gets to end few of them.
func TestRequestThatEndsConnectionsIsNotRepeatedForEver(t *testing.T) {
	for name, c := range map[string]struct {
		why  http2.ErrCode
		want int64
	}{
		"without a word":         {0, maxEnds},
		"with an error":          {http2.ErrCodeProtocol, maxEnds},
		"because it is too much": {http2.ErrCodeEnhanceYourCalm, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var poison atomic.Int64
			ends := func(f *http2.MetaHeadersFrame, _ bool) bool {
				if f.PseudoValue("path") == "/poison" {
					poison.Add(1)
					return true
				}
				return false
			}
			first, second := &guarded{ends: ends, why: c.why}, &guarded{ends: ends, why: c.why}
			u := grpcUpstream(t, Options{}, first.serve(t), second.serve(t))
			for range 4 { // so that both have a connection that was used
				if _, err := answered(u, call("x")); err != nil {
					t.Fatal(err)
				}
			}
			r := call("x")
			r.Method, r.Target = "GET", "/poison"
			if _, err := answered(u, r); kindOf(err) != Reset {
				t.Error(err)
			}
			if n := poison.Load(); n != c.want {
				t.Errorf("the request ended %d connections; want %d", n, c.want)
			}
			victims(t, u, func() {})
		})
	}
}

// Servers end a connection on which too much is reset: callers who cancel wear out
// connections without that, and those of others go on. In a bubble no time passes: a request that is
// a second old may be reset more often.
func TestCancelsOfOneCallerEndNoConnectionOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guarded{resets: 21, late: make(chan struct{})}
		u := grpcUpstream(t, Options{Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				g.talk(theirs)
			}()
			return ours, nil
		}}, "h2c://a")
		const late = 5
		var all sync.WaitGroup
		for range late {
			all.Go(func() {
				r := call("x")
				r.Target = "/late"
				if body, err := answered(u, r); err != nil || body != "late" {
					t.Errorf("a victim's long call: %q, %v", body, err)
				}
			})
		}
		synctest.Wait() // for them to arrive
		victims(t, u, func() {
			for range 10 {
				ctx, cancel := context.WithCancel(t.Context())
				before := g.arrived.Load()
				var round sync.WaitGroup
				for range 40 {
					round.Go(func() {
						r := call("x")
						r.Target = "/quiet"
						if x, err := u.Send(ctx, r); err == nil {
							x.Close()
						}
					})
				}
				for g.arrived.Load() < before+40 && g.ended.Load() == 0 {
					runtime.Gosched()
				}
				cancel()
				round.Wait()
			}
		})
		close(g.late)
		all.Wait()
		if n := g.ended.Load(); n > 0 {
			t.Errorf("the server ended %d connections", n)
		}
		if n, conns := g.reset.Load(), g.conns.Load(); n == 0 || conns > 30 {
			t.Errorf("%d streams were reset, on %d connections", n, conns)
		}
	})
}

// Servers of gRPC end a connection that is asked too often whether it lives.
func TestTimeoutsOfOneCallerEndNoConnectionOfOthers(t *testing.T) {
	g := &guarded{pings: 3, late: make(chan struct{})}
	u := grpcUpstream(t, Options{}, g.serve(t))
	victim := make(chan error, 1)
	go func() {
		r := call("x")
		r.Target = "/late"
		_, err := answered(u, r)
		victim <- err
	}()
	for g.arrived.Load() < 1 {
		runtime.Gosched()
	}
	for range 12 {
		r := call("x")
		r.Target, r.Timeouts.Head = "/quiet", time.Millisecond
		if _, err := answered(u, r); kindOf(err) != Timeout {
			t.Error(err)
		}
	}
	close(g.late)
	if err := <-victim; err != nil || g.ended.Load() > 0 {
		t.Errorf("%v; the server ended %d connections", err, g.ended.Load())
	}
}
