package h2

import (
	"net"
	"sync/atomic"
	"testing"
)

// countedConn counts writes.
type countedConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// counted returns a client and the connection for the server.
func counted(t testing.TB) (*peer, *countedConn) {
	client, conn := net.Pipe()
	return newPeer(t, client), &countedConn{Conn: conn}
}
