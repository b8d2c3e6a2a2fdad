//go:build !race

package h2

// The race detector makes pools forget.

import (
	"net"
	"testing"
)

// Six allocations: the stream, the list of its fields, and four strings. This client sends those
// unindexed each time, and they are too short to be cached; most clients index them.
func TestRequestAllocatesLittle(t *testing.T) {
	client, conn := net.Pipe()
	s := NewServer(answerSmall, ServerOptions{})
	s.ServeConn(conn)
	defer s.Close()
	a := newAsker(t, client)
	a.ask(t, 1)
	if allocs := testing.AllocsPerRun(200, func() { a.ask(t, 1) }); allocs > 6 {
		t.Errorf("a request allocates %v times", allocs)
	}
}
