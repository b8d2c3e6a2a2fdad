package h1

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"sallyport/proxy/message"
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

// TestNothingSweepsIdleConnections: idle connections are not looked at, and later requests have the
// same limits as before.
func TestNothingSweepsIdleConnections(t *testing.T) {
	var fault error
	h := func(s wire.Stream) { fault = s.Head().Fault; ok(s) }
	piped(t, h, func(t *testing.T, c net.Conn, s *Server) {
		in := bufio.NewReader(c)
		for range 3 {
			send(t, c, get+"\r\n")
			if got := response(t, in); got != "/p" {
				t.Fatalf("answered %q", got)
			}
			pass(10 * time.Second)
			if !sweepsRest(s) {
				t.Error("sweeps go on while the only connection is idle")
			}
		}
		start := time.Now()
		send(t, c, get[:5])
		answer := make([]byte, 12)
		_, err := io.ReadFull(in, answer)
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("the head was waited for for %v, want 10 s", took)
		}
		if !errors.Is(fault, message.ErrHeadTimeout) || err != nil || string(answer) != "HTTP/1.1 400" {
			t.Errorf("got %q, %v; the fault is %v", answer, err, fault)
		}
	})
}

// TestNothingSweepsWatchedRequests: a long request costs no sweeps once its client is watched, and
// ends when the client leaves.
func TestNothingSweepsWatchedRequests(t *testing.T) {
	ended := make(chan time.Time, 1)
	h := func(s wire.Stream) {
		<-s.Life().Done()
		ended <- time.Now()
	}
	piped(t, h, func(t *testing.T, c net.Conn, s *Server) {
		send(t, c, get+"\r\n")
		pass(10 * time.Second)
		if !sweepsRest(s) {
			t.Error("sweeps go on while the only request is watched")
		}
		c.Close()
		if at := <-ended; !at.Equal(time.Now()) {
			t.Errorf("the request ended %v ago", time.Since(at))
		}
	})
}
