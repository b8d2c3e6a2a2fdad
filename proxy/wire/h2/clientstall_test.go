package h2

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"sallyport/proxy/wire"
	"sallyport/proxy/wire/socket"
	"sallyport/proxy/wire/socket/sockettest"
)

// The server makes crypto/tls write within Read, and reads nothing. The client's next write waits for
// that one. It has a time limit, which ends the connection.
func TestKeyUpdateFloodDoesNotBlockExchanges(t *testing.T) {
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	defer certs.Close()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if c, err := l.Accept(); err == nil {
			const frames = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x40\x00\x0b\x00\x00\x00\x00\x00" // SETTINGS, and the head of a long frame
			sockettest.ServeUpdates(t, c, certs.TLS.Certificates[0], []byte(frames+"\x00"))
		}
	}()
	raw, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(socket.New(raw), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	cl := NewClient(conn, ClientOptions{WriteTime: time.Second, PingTime: time.Second})
	defer cl.Close()
	if err := cl.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, good := cl.Load(); good; _, good = cl.Load() {
		if _, _, err := cl.get(context.Background(), wire.Request{Head: 100 * time.Millisecond}); err == nil {
			t.Error("an answer came")
		}
	}
	<-cl.done
	<-served
}
