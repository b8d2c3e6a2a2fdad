package exchange

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"sallyport/proxy/wire/socket"
	"sallyport/proxy/wire/socket/sockettest"
)

// The client makes crypto/tls write within Read, and reads nothing. The idle time must still end its
// tunnel.
func TestTunnelEndsThoughTLSWritesWithinRead(t *testing.T) {
	t.Parallel()
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	defer certs.Close()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s")) // TCP has buffers of megabytes
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client := tls.Server(socket.New(accepted), &tls.Config{Certificates: certs.TLS.Certificates})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	var log bytes.Buffer
	attacker := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &log, MinVersion: tls.VersionTLS13})
	if err := attacker.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	updates := sockettest.NewUpdates(t, &log, "CLIENT_TRAFFIC_SECRET_0")
	go func() {
		for err := error(nil); err == nil; {
			var records []byte
			if records, err = updates.Next('x'); err == nil {
				_, err = raw.Write(records)
			}
		}
	}()

	server, model := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, model) }()
	go func() { // a model server that speaks now and then
		for err := error(nil); err == nil; time.Sleep(20 * time.Millisecond) {
			_, err = io.WriteString(model, "x")
		}
	}()
	heard := &activity{idle: 300 * time.Millisecond}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		up := make(chan int64, 1)
		go func() { up <- splice(server, client, heard) }()
		splice(client, server, heard)
		<-up
	}()
	select {
	case <-ended:
	case <-time.After(40 * time.Second): // a stalled socket alone ends after a minute
		t.Error("the tunnel goes on")
	}
}
