package socket

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"sallyport/proxy/wire/socket/sockettest"
)

// stalls sets how long a write without a deadline waits for a peer that takes nothing.
func stalls(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	k, ok := c.(*Conn)
	if !ok {
		t.Skip("connections are not wrapped here")
	}
	k.stall = d
}

func TestWriteEndsIfThePeerTakesNothing(t *testing.T) {
	both(t, func(t *testing.T, a, _ net.Conn) {
		stalls(t, a, 50*time.Millisecond)
		n, err := a.Write(make([]byte, 64<<20))
		if n == 0 || n == 64<<20 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d bytes: %v; want some, and the deadline", n, err)
		}
	})
}

// TestWriteGoesOnWhileThePeerTakesSome: the time counts from the last byte, and the deadline of the
// owner replaces it.
func TestWriteGoesOnWhileThePeerTakesSome(t *testing.T) {
	for _, limited := range []bool{false, true} {
		a, b := pair(t, "tcp")
		stalls(t, a, 2*time.Second)
		if limited {
			_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		}
		done := make(chan error, 1)
		const all = 24 << 20
		go func() {
			_, err := a.Write(make([]byte, all))
			done <- err
		}()
		piece := make([]byte, all/16)
		for range 16 {
			if _, err := io.ReadFull(b, piece); err != nil {
				t.Fatal(err)
			}
			time.Sleep(150 * time.Millisecond) // 2.4 s in all: longer than a stall
		}
		if err := <-done; err != nil {
			t.Errorf("limited by its owner %v: %v", limited, err)
		}
	}
}

// A peer that takes a few bytes now and then must not block a write for ever.
func TestWriteEndsIfThePeerTakesTooLittle(t *testing.T) {
	a, b := pair(t, "unix")
	stalls(t, a, 100*time.Millisecond)
	a.(*Conn).least = 16 << 20
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := a.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v; want the deadline", err)
		}
	}()
	for buf := make([]byte, 32<<10); ; {
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
			_, _ = b.Read(buf) // returns once the write has ended
		}
	}
}

// TestKeyUpdatesDoNotStopARead: crypto/tls answers a KeyUpdate within Read. Reads end although the
// client, which sends more and more of them, reads no answer.
func TestKeyUpdatesDoNotStopARead(t *testing.T) {
	a, b := pair(t, "unix") // TCP loses window updates to an end whose receive buffer is full
	stalls(t, b, 100*time.Millisecond)
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, tls.Server(b, &tls.Config{Certificates: []tls.Certificate{certificate(t)}}))
		ended <- err
	}()
	var secrets bytes.Buffer
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &secrets, MinVersion: tls.VersionTLS13})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if s := client.ConnectionState().CipherSuite; s != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("the server chose %s", tls.CipherSuiteName(s))
	}
	updates := sockettest.NewUpdates(t, &secrets, "CLIENT_TRAFFIC_SECRET_0")
	_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
	for {
		records, err := updates.Next('x')
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write(records); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the server neither reads nor ends")
		} else if err != nil {
			break // the server has closed
		}
	}
	if err := <-ended; err == nil {
		t.Error("reads ended without an error")
	}
}

func certificate(t *testing.T) tls.Certificate {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.TLS.Certificates[0]
}
