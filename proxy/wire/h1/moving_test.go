package h1

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"sallyport/proxy/wire"
)

// TestIdleConnectionsGoOn: a connection that has moved to another goroutine keeps serving requests,
// and ends when it would have ended without moving.
func TestIdleConnectionsGoOn(t *testing.T) {
	piped(t, ok, func(t *testing.T, c net.Conn, _ *Server) {
		in := bufio.NewReader(c)
		for i := range 5 {
			if i == 0 {
				pass(9 * time.Second) // of the ten seconds for the first head
			} else {
				pass(50 * time.Second) // of the minute between requests
			}
			send(t, c, get+"\r\n")
			if got := response(t, in); got != "/p" {
				t.Fatalf("request %d: %q", i, got)
			}
		}
		start := time.Now()
		if left, err := io.ReadAll(in); len(left) > 0 || err != nil {
			t.Errorf("left %q, %v", left, err)
		}
		if d := time.Since(start); d < time.Minute || d > time.Minute+2*wire.Lag {
			t.Errorf("closed after %v, want a minute", d)
		}
	})
	t.Run("in halves", func(t *testing.T) {
		piped(t, ok, func(t *testing.T, c net.Conn, _ *Server) {
			in := bufio.NewReader(c)
			for range 3 {
				pass(5 * time.Second)
				send(t, c, get[:1])
				pass(5 * time.Second)
				send(t, c, get[1:]+"\r\n")
				if got := response(t, in); got != "/p" {
					t.Fatalf("answered %q", got)
				}
			}
		})
	})
	t.Run("until the server drains", func(t *testing.T) {
		piped(t, ok, func(t *testing.T, c net.Conn, s *Server) {
			send(t, c, get+"\r\n")
			in := bufio.NewReader(c)
			response(t, in)
			pass(30 * time.Second)
			start := time.Now()
			if err := s.Shutdown(t.Context()); err != nil || time.Since(start) > 0 {
				t.Errorf("Shutdown: %v after %v", err, time.Since(start))
			}
			if left, err := io.ReadAll(in); len(left) > 0 || err != nil {
				t.Errorf("left %q, %v", left, err)
			}
		})
	})
}
