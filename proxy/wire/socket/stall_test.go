package socket

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
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
		stalls(t, a, 300*time.Millisecond)
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
			time.Sleep(30 * time.Millisecond) // 480 ms in all: longer than a stall
		}
		if err := <-done; err != nil {
			t.Errorf("limited by its owner %v: %v", limited, err)
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
	secret := clientSecret(t, secrets.String())
	_ = a.SetWriteDeadline(time.Now().Add(30 * time.Second))
	for {
		var records []byte
		records, secret = keyUpdate(t, secret)
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

// clientSecret finds CLIENT_TRAFFIC_SECRET_0 in a key log.
func clientSecret(t *testing.T, log string) []byte {
	t.Helper()
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return secret
		}
	}
	t.Fatal("no secret")
	return nil
}

// expand is HKDF-Expand-Label of RFC 8446, section 7.1, without a context.
func expand(t *testing.T, secret []byte, label string, length int) []byte {
	t.Helper()
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(length)), byte(len(label)))
	key, err := hkdf.Expand(sha256.New, secret, string(append(append(info, label...), 0)), length)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keyUpdate returns two records under a secret, and the secret that follows: a byte of content,
// without which crypto/tls takes few updates, and a KeyUpdate that asks for an answer (RFC 8446,
// section 4.6.3).
func keyUpdate(t *testing.T, secret []byte) (records, next []byte) {
	t.Helper()
	block, err := aes.NewCipher(expand(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := expand(t, secret, "iv", 12)
	for _, message := range [][]byte{
		{'x', 23},            // application_data
		{24, 0, 0, 1, 1, 22}, // key_update, update_requested; handshake
	} {
		head := []byte{23, 3, 3, 0, byte(len(message) + aead.Overhead())}
		records = append(records, aead.Seal(head, nonce, message, head)...)
		nonce[11] ^= 1 // the sequence number goes from 0 to 1
	}
	return records, expand(t, secret, "traffic upd", 32)
}
