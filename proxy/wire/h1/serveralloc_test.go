//go:build !race

package h1

// The race detector makes pools forget.

import (
	"net"
	"testing"
)

// Two: the stream with the list of the fields, and the text of the head.
func TestRequestAllocatesLittle(t *testing.T) {
	client, conn := net.Pipe()
	s := NewServer(answerSmall, ServerOptions{})
	s.ServeConn(conn)
	defer s.Close()
	a := &asker{conn: client}
	a.ask(t)
	if allocs := testing.AllocsPerRun(200, func() { a.ask(t) }); allocs > 2 {
		t.Errorf("a request allocates %v times, want at most 2", allocs)
	}
}
