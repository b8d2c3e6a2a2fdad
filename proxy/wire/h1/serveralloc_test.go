//go:build !race

package h1

// The race detector makes pools forget, and stacks larger.

import (
	"net"
	"runtime"
	"testing"
	"time"

	"sallyport/proxy/wire"
)

// Two allocations: the stream with the list of fields, and the text of the head.
func TestRequestAllocatesLittle(t *testing.T) {
	client, conn := net.Pipe()
	s := NewServer(answerSmall, wire.ServerOptions{})
	s.ServeConn(conn)
	defer s.Close()
	a := &asker{conn: client}
	a.ask(t)
	if allocs := testing.AllocsPerRun(200, func() { a.ask(t) }); allocs > 2 {
		t.Errorf("a request allocates %v times, want at most 2", allocs)
	}
}

// TestIdleConnectionsHaveSmallStacks: handshake and request grow a stack to at least 8 KiB; a
// waiting connection needs less than half of that.
func TestIdleConnectionsHaveSmallStacks(t *testing.T) {
	const conns, most = 200, 6 << 10
	inUse := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.StackInuse)
	}
	before := inUse()
	all := loopbacks(t, answerSmall, conns)
	ask := func() {
		for _, c := range all {
			(&asker{conn: c}).ask(t)
		}
	}
	ask()
	var each int64
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if each = (inUse() - before) / conns; each <= most {
			break
		}
	}
	if each > most {
		t.Errorf("%d bytes of stack for an idle connection, want at most %d", each, most)
	}
	ask()
}
