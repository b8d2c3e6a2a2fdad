package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is an HTTP/2 client that sends arbitrary frames.
type frames struct {
	t   testing.TB
	c   net.Conn
	fr  *http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
	// got holds the answers so far, by stream.
	got map[uint32]*framed
	end string // how the connection ended, "" if it has not
	// mute keeps the reader from answering, so that another goroutine may write.
	mute bool
}

// framed is the answer on one stream.
type framed struct {
	status, body string
	reset        string // the code of RST_STREAM
	grpc         string // the status of a call
	done         bool
	heads        int // header blocks
}

// frames opens a connection and sends the preface.
func (h *house) frames(settings ...http2.Setting) *frames {
	h.t.Helper()
	return h.framesOn(h.dial("models.test", "h2"), settings...)
}

// framesOn sends the preface on a connection.
func (h *house) framesOn(c net.Conn, settings ...http2.Setting) *frames {
	h.t.Helper()
	f := &frames{t: h.t, c: c, got: map[uint32]*framed{}}
	f.enc = hpack.NewEncoder(&f.buf)
	f.fr = http2.NewFramer(f.c, f.c)
	f.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.fr.AllowIllegalWrites = true
	if _, err := io.WriteString(f.c, http2.ClientPreface); err != nil {
		h.t.Fatal(err)
	}
	if err := f.fr.WriteSettings(settings...); err != nil {
		h.t.Fatal(err)
	}
	return f
}

// block encodes "name: value" lines without checks.
func (f *frames) block(lines ...string) []byte {
	f.buf.Reset()
	for _, l := range lines {
		i := strings.Index(l[1:], ":") + 1
		_ = f.enc.WriteField(hpack.HeaderField{Name: l[:i], Value: strings.TrimPrefix(l[i+1:], " ")})
	}
	return bytes.Clone(f.buf.Bytes())
}

// headers sends a header block. Write errors are left to the reader.
func (f *frames) headers(stream uint32, end bool, lines ...string) {
	b := f.block(lines...)
	first := b[:min(len(b), 16<<10)]
	_ = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(b)})
	for b = b[len(first):]; len(b) > 0; {
		part := b[:min(len(b), 16<<10)]
		b = b[len(part):]
		_ = f.fr.WriteContinuation(stream, len(b) == 0, part)
	}
}

func (f *frames) data(stream uint32, end bool, text string) {
	_ = f.fr.WriteData(stream, end, []byte(text))
}

// next reads one frame; false when the connection is over.
func (f *frames) next() bool {
	if f.end != "" {
		return false
	}
	frame, err := f.fr.ReadFrame()
	if err != nil {
		f.end = "closed"
		var bad http2.StreamError
		if errors.As(err, &bad) {
			f.t.Errorf("the gateway sent a bad frame: %v", err)
		}
		return false
	}
	id := frame.Header().StreamID
	s := f.got[id]
	if s == nil {
		s = &framed{}
		f.got[id] = s
	}
	switch x := frame.(type) {
	case *http2.MetaHeadersFrame:
		s.heads++
		if status := x.PseudoValue("status"); status != "" {
			s.status = status
		}
		for _, field := range x.RegularFields() {
			if field.Name == "grpc-status" {
				s.grpc = field.Value
			}
		}
		s.done = s.done || x.StreamEnded()
	case *http2.DataFrame:
		s.body += string(x.Data())
		if len(x.Data()) > 0 && !f.mute {
			_ = f.fr.WriteWindowUpdate(0, uint32(len(x.Data())))
		}
		s.done = s.done || x.StreamEnded()
	case *http2.RSTStreamFrame:
		s.reset, s.done = "RST "+x.ErrCode.String(), true
	case *http2.GoAwayFrame:
		if x.ErrCode != http2.ErrCodeNo {
			f.end = "GOAWAY " + x.ErrCode.String()
		}
	case *http2.SettingsFrame:
		if !x.IsAck() && !f.mute {
			_ = f.fr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !x.IsAck() && !f.mute {
			_ = f.fr.WritePing(true, x.Data)
		}
	}
	return f.end == ""
}

// wait reads until the stream or the connection has ended. It returns a status, the code of a
// reset, or the end of the connection.
func (f *frames) wait(stream uint32) string {
	for {
		if s := f.got[stream]; s != nil && s.done {
			if s.status != "" {
				return s.status
			}
			return s.reset
		}
		if !f.next() {
			return f.end
		}
	}
}

// usual is the head of a valid request for the path, with more lines appended.
func (h *house) usual(method, path string, more ...string) []string {
	return append([]string{":method: " + method, ":scheme: https", ":authority: models.test", ":path: " + path, "authorization: Bearer " + h.token()}, more...)
}
