package h2

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/wire"
)

// sweepsRest reports whether no sweep has run for a while: the clock is then exact.
func sweepsRest(s *Server) bool {
	for range 3 {
		time.Sleep(time.Second + time.Millisecond)
		if !s.options.Load().Clock.Now().Equal(time.Now()) {
			return false
		}
	}
	return true
}

// rested runs f with a client whose connection has served requests and is idle.
func rested(t *testing.T, f func(t *testing.T, p *peer, s *Server)) {
	t.Helper()
	bubble(t, ok, testOptions, func(t *testing.T, p *peer, s *Server) {
		p.greet()
		for id := uint32(1); id < 6; id += 2 {
			p.ask(id, true)
			pass(5 * time.Second)
			if got := p.got(); !strings.Contains(got, "200") {
				t.Fatalf("stream %d: got %s", id, got)
			}
			if !sweepsRest(s) {
				t.Error("sweeps go on while the only connection is idle")
			}
		}
		f(t, p, s)
	})
}

// TestNothingSweepsIdleConnections: idle connections are not looked at, and later frames have the
// same limits as before.
func TestNothingSweepsIdleConnections(t *testing.T) {
	t.Run("the idle time ends", func(t *testing.T) {
		rested(t, func(t *testing.T, p *peer, _ *Server) {
			start := time.Now() // some 8 s after the last request
			<-p.quit
			if took := time.Since(start); took < 50*time.Second || took > 54*time.Second {
				t.Errorf("closed after %v, want a minute after the last request, and the time to linger", took)
			}
			if got := p.got(); !strings.HasPrefix(got, "away 5 NO_ERROR") {
				t.Errorf("got %s", got)
			}
		})
	})
	t.Run("a header block is slow", func(t *testing.T) {
		rested(t, func(t *testing.T, p *peer, _ *Server) {
			start := time.Now()
			_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: p.block(":method: GET")})
			<-p.quit
			if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+3*wire.Lag {
				t.Errorf("closed after %v, want 10 s", took)
			}
		})
	})
	t.Run("a frame stops in its head", func(t *testing.T) {
		rested(t, func(t *testing.T, p *peer, _ *Server) {
			start := time.Now()
			_, _ = p.c.Write([]byte{0})
			<-p.quit
			if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+3*wire.Lag {
				t.Errorf("closed after %v, want 10 s", took)
			}
		})
	})
	t.Run("the server drains and the client says nothing", func(t *testing.T) {
		rested(t, func(t *testing.T, p *peer, s *Server) {
			start := time.Now()
			go func() { _ = s.Shutdown(t.Context()) }() // sends GOAWAY; the PING gets no answer
			<-p.quit
			if took := time.Since(start); took < time.Second || took > 3*time.Second {
				t.Errorf("closed after %v, want the time to linger, or twice that", took)
			}
			synctest.Wait()
		})
	})
}
