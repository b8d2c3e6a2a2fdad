// Package sockettest helps tests to attack TLS connections.
package sockettest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"testing"
)

// ServeUpdates runs a TLS server on c. It reads from the request once, and then only writes: first
// content, then its last byte again and again, each followed by a KeyUpdate. It returns when the
// client closes.
func ServeUpdates(tb testing.TB, c net.Conn, cert tls.Certificate, content []byte) {
	defer c.Close()
	var secrets bytes.Buffer
	server := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}, KeyLogWriter: &secrets, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true})
	if server.Handshake() != nil {
		return
	}
	if s := server.ConnectionState().CipherSuite; s != tls.TLS_AES_128_GCM_SHA256 {
		tb.Errorf("the cipher suite is %s", tls.CipherSuiteName(s))
		return
	}
	if _, err := server.Read(make([]byte, 4<<10)); err != nil {
		return
	}
	updates := NewUpdates(tb, &secrets, "SERVER_TRAFFIC_SECRET_0")
	for err := error(nil); err == nil; content = content[len(content)-1:] {
		var records []byte
		if records, err = updates.Next(content...); err != nil {
			tb.Error(err)
			return
		}
		_, err = c.Write(records)
	}
}

// Updates writes KeyUpdates that ask for an answer (RFC 8446, section 4.6.3). crypto/tls answers
// them within Read. The connection must use TLS_AES_128_GCM_SHA256 and have sent no application
// data.
type Updates struct{ secret []byte }

// NewUpdates takes the first secret from the line of a key log with this label:
// CLIENT_TRAFFIC_SECRET_0 for updates from the client, SERVER_TRAFFIC_SECRET_0 for the server's.
func NewUpdates(tb testing.TB, keyLog *bytes.Buffer, label string) *Updates {
	tb.Helper()
	for line := range strings.Lines(keyLog.String()) {
		if f := strings.Fields(line); f[0] == label {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				tb.Error(err)
			}
			return &Updates{secret}
		}
	}
	tb.Error("no secret")
	return &Updates{}
}

// Next returns two records: content, without which crypto/tls takes few updates, and a KeyUpdate.
func (u *Updates) Next(content ...byte) ([]byte, error) {
	key, err := expand(u.secret, "key", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := expand(u.secret, "iv", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	var records []byte
	for _, message := range [][]byte{
		append(slices.Clone(content), 23), // application_data
		{24, 0, 0, 1, 1, 22},              // key_update, update_requested; handshake
	} {
		head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(message)+aead.Overhead()))
		records = append(append(records, head...), aead.Seal(nil, nonce, message, head)...)
		nonce[11] ^= 1 // the sequence number goes from 0 to 1
	}
	u.secret, err = expand(u.secret, "traffic upd", 32)
	return records, err
}

// expand is HKDF-Expand-Label of RFC 8446, section 7.1, without a context.
func expand(secret []byte, label string, length int) ([]byte, error) {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(length)), byte(len(label)))
	return hkdf.Expand(sha256.New, secret, string(append(append(info, label...), 0)), length)
}
