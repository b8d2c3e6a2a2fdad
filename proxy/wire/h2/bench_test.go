package h2

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

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
	in   reader
	out  []byte
	id   uint32
	head []byte // the block: a token of a thousand bytes, as clients send it that do not index secrets
}

func newAsker(tb testing.TB, conn net.Conn) *asker {
	tb.Helper()
	a := &asker{conn: conn, in: reader{conn: conn, bufs: &wire.Buffers{}}, id: 1}
	a.head = append(a.head, 0x83, 0x87) // POST, https
	if _, ok := conn.(*tls.Conn); !ok {
		a.head[1] = 0x86
	}
	for _, f := range [][2]string{{":authority", "models.test"}, {":path", "/v1/models/half_plus_two:predict"}, {"authorization", "Bearer " + strings.Repeat("eyJhbGciOi", 90)},
		{"content-type", "application/json"}, {"user-agent", "bench"}, {"content-length", "20"}} {
		value := hpack.AppendHuffmanString(nil, f[1])
		a.head = append(appendInt(appendInt(a.head, 0x10, 4, staticName(f[0])), 0x80, 7, len(value)), value...)
	}
	hello := appendWindow(appendSettings([]byte(preface)), 0, 1<<30)
	if _, err := conn.Write(hello); err != nil {
		tb.Fatal(err)
	}
	return a
}

// ask sends n requests at once and reads the answers.
func (a *asker) ask(tb testing.TB, n int) {
	a.out = a.out[:0]
	for range n {
		a.out = append(appendFrameHead(a.out, len(a.head), frameHeaders, flagEndHeaders, a.id), a.head...)
		a.out = append(appendFrameHead(a.out, 20, frameData, flagEndStream, a.id), `{"instances": [1.0]}`...)
		a.id += 2
	}
	if _, err := a.conn.Write(a.out); err != nil {
		tb.Fatal(err)
	}
	for n > 0 {
		f, err := a.in.next()
		if err != nil || f.kind == frameReset || f.kind == frameGoAway {
			tb.Fatalf("%+v, %v", f, err)
		}
		if f.kind == frameData && f.has(flagEndStream) {
			if n--; string(f.payload) != string(smallAnswer) {
				tb.Fatalf("%q", f.payload)
			}
		}
	}
}

// overTLS serves over a TLS connection.
func overTLS(tb testing.TB, h wire.Handler) *tls.Conn {
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
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{NextProtos: []string{"h2"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		tb.Fatal(err)
	}
	s := NewServer(h, ServerOptions{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		conn.Close()
		_ = s.Close()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return conn
}

func BenchmarkServer(b *testing.B) {
	for _, n := range []int{1, 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := newAsker(b, overTLS(b, answerSmall))
			b.ReportAllocs()
			for b.Loop() {
				a.ask(b, n)
			}
		})
	}
}

// BenchmarkDownload sends a megabyte per request over a connection with a large window.
func BenchmarkDownload(b *testing.B) {
	conn := overTLS(b, func(s wire.Stream) {
		_, _ = io.Copy(io.Discard, s.Body())
		_ = s.Respond(&message.Response{Status: 200, ContentLength: 1 << 20}, false)
		buf := make([]byte, 32<<10)
		for range 32 {
			_, _ = s.Write(buf)
			_ = s.Flush()
		}
		_ = s.Finish(nil)
	})
	a := newAsker(b, conn)
	_, _ = conn.Write(appendSettings(nil, setting{settingWindow, 1 << 30}))
	b.SetBytes(1 << 20)
	for b.Loop() {
		a.out = append(appendFrameHead(a.out[:0], len(a.head), frameHeaders, flagEndHeaders, a.id), a.head...)
		a.out = append(appendFrameHead(a.out, 20, frameData, flagEndStream, a.id), `{"instances": [1.0]}`...)
		a.out = appendWindow(a.out, 0, 1<<20)
		a.id += 2
		_, _ = a.conn.Write(a.out)
		for {
			f, err := a.in.next()
			if err != nil {
				b.Fatal(err)
			}
			if f.kind == frameData && f.has(flagEndStream) {
				break
			}
		}
	}
}

// BenchmarkUpload receives a megabyte per request.
func BenchmarkUpload(b *testing.B) {
	conn := overTLS(b, func(s wire.Stream) {
		buf := make([]byte, 64<<10)
		for err := error(nil); err == nil; {
			_, err = s.Body().Read(buf)
		}
		_ = s.Respond(smallHead, false)
		_, _ = s.Write(smallAnswer)
		_ = s.Finish(nil)
	})
	a := newAsker(b, conn)
	window := 64<<10 - 1
	stream := 0
	data := make([]byte, maxFrame)
	b.SetBytes(1 << 20)
	for b.Loop() {
		a.out = append(appendFrameHead(a.out[:0], 2+len(uploadHead), frameHeaders, flagEndHeaders, a.id), 0x83, 0x87)
		a.out = append(a.out, uploadHead...)
		stream = 256 << 10
		for left := 1 << 20; left >= 0; {
			n := min(left, maxFrame, window, stream)
			if n > 0 || left == 0 {
				flags := uint8(0)
				if n == left {
					flags = flagEndStream
				}
				a.out = append(appendFrameHead(a.out, n, frameData, flags, a.id), data[:n]...)
				if left, window, stream = left-n, window-n, stream-n; flags != 0 {
					break
				}
				if len(a.out) < 64<<10 {
					continue
				}
			}
			_, _ = a.conn.Write(a.out)
			a.out = a.out[:0]
			for n := min(left, maxFrame); window < n || stream < n; {
				f, err := a.in.next()
				if err != nil {
					b.Fatal(err)
				}
				if f.kind == frameWindow {
					if more := int(binary.BigEndian.Uint32(f.payload)); f.stream == 0 {
						window += more
					} else {
						stream += more
					}
				}
			}
		}
		_, _ = a.conn.Write(a.out)
		for {
			f, err := a.in.next()
			if err != nil {
				b.Fatal(err)
			}
			if f.kind == frameWindow && f.stream == 0 {
				window += int(binary.BigEndian.Uint32(f.payload))
			}
			if f.kind == frameData && f.has(flagEndStream) {
				break
			}
		}
		a.id += 2
	}
}

// uploadHead is the block of a request without a length, except for method and scheme.
var uploadHead = appendField(appendField(nil, ":authority", "models.test"), ":path", "/v1/upload")
