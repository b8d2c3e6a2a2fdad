package h2

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// A stream may be silent as long as its client answers PINGs. It ends soon after the client stops
// answering.
func TestSilentClientsArePinged(t *testing.T) {
	waits := func(until time.Duration, why *error) wire.Handler {
		return func(s wire.Stream) {
			select {
			case <-s.Life().Done():
			case <-time.After(until):
			}
			*why = s.Life().Err()
			_ = s.Respond(&message.Response{Status: 204, ContentLength: -1}, false)
			_ = s.Finish(nil)
		}
	}
	t.Run("alive", func(t *testing.T) {
		var why error
		bubble(t, waits(time.Hour, &why), testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.alive = true
			p.greet().ask(1, false, ":method: POST")
			pass(59 * time.Minute)
			p.want("")
			p.data(1, true, "")
			pass(2 * time.Minute) // the handler returns
			if p.want("1: 204 end, away 1 NO_ERROR"); why != nil {
				t.Error(why)
			}
		})
	})
	t.Run("dead", func(t *testing.T) {
		var why error
		bubble(t, waits(time.Hour, &why), testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.greet().ask(1, false, ":method: POST")
			pass(29 * time.Second)
			p.want("")
			pass(2 * time.Second)
			p.want("ping false")
			pass(58 * time.Second)
			p.want("") // a slow line may delay the PING
			pass(3 * time.Second)
			if p.want("closed"); why == nil {
				t.Error("the request outlived its client")
			}
		})
	})
	t.Run("dead, while the answer goes on", func(t *testing.T) {
		var why error
		h := func(s wire.Stream) {
			_ = s.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
			for s.Life().Err() == nil {
				_, _ = s.Write([]byte("x"))
				_ = s.Flush()
				time.Sleep(10 * time.Second)
			}
			why = s.Life().Err()
		}
		bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.greet().ask(1, true)
			pass(95 * time.Second)
			if got := p.got(); !strings.HasSuffix(got, "closed") || strings.Count(got, "ping") != 1 {
				t.Error(got)
			}
		})
		if why == nil {
			t.Error("the request outlived its client")
		}
	})
	t.Run("alive, but reads no content", func(t *testing.T) {
		var failed error
		var after time.Duration
		h := func(s wire.Stream) {
			began := time.Now()
			_ = s.SetWriteDeadline(began.Add(time.Minute))
			_ = s.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
			for failed == nil {
				_, failed = s.Write(make([]byte, 1<<10))
			}
			after = time.Since(began)
		}
		bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.alive = true
			p.greet().ask(1, true)
			pass(3 * time.Minute)
		})
		if !errors.Is(failed, os.ErrDeadlineExceeded) || after > 62*time.Second {
			t.Errorf("the write ended after %s: %v", after, failed)
		}
	})
	t.Run("without a stream", func(t *testing.T) {
		bubble(t, ok, testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.greet()
			pass(50 * time.Second)
			p.want("")
		})
	})
}

// silentServer is a server that reads all frames and records when its client sends PINGs.
type silentServer struct {
	*origin
	pings  []time.Duration
	answer bool
	began  time.Time
	more   func(f http2.Frame)
}

// silent runs f in a synctest bubble with a client of a server that never answers a request, unless
// set says so.
func silent(t *testing.T, set func(*silentServer), f func(t *testing.T, cl *Client, s *silentServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := &silentServer{origin: &origin{c: theirs, fr: http2.NewFramer(theirs, theirs)}, answer: true, began: time.Now()}
		set(s)
		s.enc = hpack.NewEncoder(&s.buf)
		s.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		done := make(chan struct{})
		go func() { defer close(done); s.run() }()
		cl := NewClient(ours, ClientOptions{})
		if err := cl.Greet(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(t, cl, s)
		cl.Close()
		<-done
	})
}

func (s *silentServer) run() {
	defer s.c.Close()
	_, _ = io.ReadFull(s.c, make([]byte, len(http2.ClientPreface)))
	_ = s.fr.WriteSettings()
	for {
		f, err := s.fr.ReadFrame()
		if err != nil {
			return
		}
		if p, ok := f.(*http2.PingFrame); ok && !p.IsAck() {
			s.pings = append(s.pings, time.Since(s.began).Round(time.Second))
			if s.answer {
				_ = s.fr.WritePing(true, p.Data)
			}
		}
		if s.more != nil {
			s.more(f)
		}
	}
}

// An exchange may wait for an event as long as its server answers PINGs. The PINGs are so rare that a
// server with the defaults of grpc-go counts none as a strike.
func TestSilentServersArePinged(t *testing.T) {
	quiet := wire.Request{Method: "POST", Head: 2 * time.Hour}
	t.Run("alive", func(t *testing.T) {
		silent(t, func(*silentServer) {}, func(t *testing.T, cl *Client, s *silentServer) {
			ended := make(chan error, 1)
			go func() {
				_, _, err := cl.get(context.Background(), quiet)
				ended <- err
			}()
			pass(time.Hour)
			select {
			case err := <-ended:
				t.Fatal(err)
			default:
			}
			if n := len(s.pings); n != 11 {
				t.Errorf("%d PINGs in an hour: %v", n, s.pings)
			}
			for i, at := range s.pings {
				if i > 0 && at-s.pings[i-1] < 5*time.Minute {
					t.Errorf("PINGs at %s and %s", s.pings[i-1], at)
				}
			}
			if _, good := cl.Load(); !good {
				t.Error("the connection takes no more requests")
			}
			cl.Close()
			<-ended
		})
	})
	t.Run("dead", func(t *testing.T) {
		silent(t, func(s *silentServer) { s.answer = false }, func(t *testing.T, cl *Client, s *silentServer) {
			_, _, err := cl.get(context.Background(), quiet)
			if took := time.Since(s.began); faultOf(err) != wire.FaultBroken || !errors.Is(err, errDeaf) || took > 6*time.Minute {
				t.Errorf("after %s: %v", took, err)
			}
			<-cl.done
		})
	})
	t.Run("without a request", func(t *testing.T) {
		silent(t, func(*silentServer) {}, func(t *testing.T, cl *Client, s *silentServer) {
			if pass(time.Hour); len(s.pings) != 0 {
				t.Errorf("PINGs at %v", s.pings)
			}
		})
	})
	t.Run("alive, but takes no content", func(t *testing.T) {
		silent(t, func(*silentServer) {}, func(t *testing.T, cl *Client, s *silentServer) {
			r := wire.Request{Method: "POST", Body: reading{Reader: endlessText{}}, Length: -1, Head: 2 * time.Hour, Idle: 6 * time.Minute, Pause: time.Hour}
			_, _, err := cl.get(context.Background(), r)
			if took := time.Since(s.began); faultOf(err) != wire.FaultTimeout || took > 7*time.Minute {
				t.Errorf("after %s: %v", took, err)
			}
		})
	})
}

type endlessText struct{}

func (endlessText) Read(p []byte) (int, error) { return len(p), nil }

// Pause bounds each wait for content, and Idle still bounds each write.
func TestPauseBoundsWaitsForContentOnly(t *testing.T) {
	for name, c := range map[string]struct {
		r    wire.Request
		want time.Duration
	}{
		"idle alone": {wire.Request{Idle: time.Minute}, time.Minute},
		"both":       {wire.Request{Idle: time.Minute, Pause: time.Hour}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			begins := func(s *silentServer) {
				s.more = func(f http2.Frame) {
					if h, ok := f.(*http2.MetaHeadersFrame); ok {
						s.headers(h.StreamID, false, ":status:200")
					}
				}
			}
			silent(t, begins, func(t *testing.T, cl *Client, s *silentServer) {
				_, _, err := cl.get(context.Background(), c.r)
				if took := time.Since(s.began).Round(time.Second); faultOf(err) != wire.FaultTimeout || took < c.want || took > c.want+2*time.Second {
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
}
