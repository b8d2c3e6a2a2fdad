package h2

import (
	"strings"
	"testing"
	"time"
)

// A connection announces its end after this many requests. Requests that the client sent before it
// saw the GOAWAY are still answered.
func TestRequestsOfAConnection(t *testing.T) {
	options := testOptions
	options.Requests = 2
	bubble(t, ok, options, func(t *testing.T, p *peer, _ *Server) {
		p.greet()
		p.ask(1, true)
		pass(time.Second)
		if got := p.got(); strings.Contains(got, "away") || !strings.Contains(got, "1: 200") {
			t.Errorf("after the first: %s", got)
		}
		p.ask(3, true)
		p.ask(5, true) // already in flight
		pass(5 * time.Second)
		got := p.got()
		if !strings.Contains(got, "away 2147483647 NO_ERROR") || !strings.Contains(got, "3: 200") || !strings.Contains(got, "5: 200") || !strings.HasSuffix(got, "closed") {
			t.Errorf("got %s", got)
		}
	})
}
