package story

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// Relay stands between the gateway and a server and keeps the bytes of what they
// say to each other, exchange by exchange.
type Relay struct {
	Address string
	target  string

	mu    sync.Mutex // guards conns
	conns []*relayed
}

// Exchange is one request as the gateway sent it, and what the server answered.
type Exchange struct {
	Request, Response []byte
}

// relayed is one connection.
type relayed struct {
	mu        sync.Mutex // guards exchanges
	exchanges []Exchange
}

// StartRelay starts a relay to a server at host:port. It ends with the test.
func StartRelay(t testing.TB, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Address: l.Addr().String(), target: target}
	var open sync.Map // of connections
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, nil)
			all.Go(func() {
				r.join(c)
				open.Delete(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		all.Wait()
	})
	return r
}

// join carries one connection. When the server is away it closes at once, as the
// server's own machine would.
func (r *Relay) join(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	k := &relayed{}
	r.mu.Lock()
	r.conns = append(r.conns, k)
	r.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyTo(server, client, k.request)
		server.(*net.TCPConn).CloseWrite()
	}()
	copyTo(client, server, k.response)
	client.Close() // ends the other direction too
	<-done
}

func copyTo(dst, src net.Conn, note func([]byte)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			note(buf[:n])
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// request notes bytes of the gateway: a new request, if an answer has begun to
// the last one, for the gateway does not pipeline.
func (k *relayed) request(b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.exchanges); n == 0 || len(k.exchanges[n-1].Response) > 0 {
		k.exchanges = append(k.exchanges, Exchange{})
	}
	e := &k.exchanges[len(k.exchanges)-1]
	e.Request = append(e.Request, b...)
}

func (k *relayed) response(b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.exchanges); n > 0 {
		e := &k.exchanges[n-1]
		e.Response = append(e.Response, b...)
	}
}

// Take returns the exchanges since the last call and forgets them. Call it when
// no request is under way.
func (r *Relay) Take() []Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Exchange
	for _, k := range r.conns {
		k.mu.Lock()
		for _, e := range k.exchanges {
			all = append(all, Exchange{bytes.Clone(e.Request), bytes.Clone(e.Response)})
		}
		k.exchanges = nil
		k.mu.Unlock()
	}
	return all
}
