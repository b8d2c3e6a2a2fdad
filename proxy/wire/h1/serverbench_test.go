package h1

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// smallPost is the usual request: a token of a thousand bytes and a few numbers.
var smallPost = []byte("POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + strings.Repeat("x", 900) +
	"\r\nContent-Type: application/json\r\nAccept: */*\r\nUser-Agent: bench\r\nContent-Length: 20\r\n\r\n{\"instances\": [1.0]}")

var (
	smallAnswer = []byte(`{"predictions": [2.5]}`)
	smallHead   = &message.Response{Status: 200, Fields: message.Fields{{Name: "content-type", Value: "application/json"}}, ContentLength: int64(len(smallAnswer))}
	smallBodies = sync.Pool{New: func() any { return new([64]byte) }}
)

// answerSmall serves a stream as the pipeline serves a small request.
func answerSmall(s wire.Stream) {
	buf := smallBodies.Get().(*[64]byte)
	defer smallBodies.Put(buf)
	_ = s.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := s.Body().Read(buf[:]); n != 20 || err != io.EOF {
		s.CloseAfter()
	}
	_ = s.SetReadDeadline(time.Time{})
	_ = s.SetWriteDeadline(time.Now().Add(time.Minute))
	_ = s.Respond(smallHead, false)
	_, _ = s.Write(smallAnswer)
	_ = s.Finish(nil)
}

// asker sends requests repeatedly over one connection.
type asker struct {
	conn net.Conn
	buf  [4 << 10]byte
}

func (a *asker) ask(tb testing.TB) {
	if _, err := a.conn.Write(smallPost); err != nil {
		tb.Fatal(err)
	}
	n, err := a.conn.Read(a.buf[:])
	if err != nil || string(a.buf[n-len(smallAnswer):n]) != string(smallAnswer) {
		tb.Fatalf("%q, %v", a.buf[:n], err)
	}
}

// loopback serves over a TLS connection.
func loopback(tb testing.TB, h wire.Handler) *tls.Conn {
	tb.Helper()
	return loopbacks(tb, h, 1)[0]
}

// loopbacks serves over n of them.
func loopbacks(tb testing.TB, h wire.Handler, n int) (conns []*tls.Conn) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"models.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		tb.Fatal(err)
	}
	s := NewServer(h, wire.ServerOptions{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	tb.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
		_ = s.Close()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	for range n {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			tb.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

func BenchmarkServer(b *testing.B) {
	a := &asker{conn: loopback(b, answerSmall)}
	b.ReportAllocs()
	for b.Loop() {
		a.ask(b)
	}
}

// An interrupted TLS read can be resumed without losing bytes.
func TestWatchOverTLS(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	conn := loopback(t, func(s wire.Stream) {
		switch s.Head().Target {
		case "/slow":
			time.Sleep(time.Second)
		case "/gone":
			<-s.Life().Done()
			close(gone)
		}
		ok(s)
	})
	in := bufio.NewReader(conn)
	for range 2 {
		send(t, conn, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(700 * time.Millisecond) // the watch has started by then
		send(t, conn, get+"\r\n")
		if first, second := response(t, in), response(t, in); first != "/slow" || second != "/p" {
			t.Errorf("answered %q and %q", first, second)
		}
		send(t, conn, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := response(t, in); got != "/slow" {
			t.Errorf("answered %q", got)
		}
	}
	send(t, conn, "GET /gone HTTP/1.1\r\nHost: a\r\n\r\n")
	conn.Close()
	<-gone
}
