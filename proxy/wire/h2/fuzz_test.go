package h2

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzConn sends arbitrary frames. The output must be frames that a strict parser accepts, in a
// valid order, and no goroutine may be left.
func FuzzConn(f *testing.F) {
	p := &peer{}
	p.enc = hpack.NewEncoder(&p.buf)
	head := p.block(":method: POST", ":scheme: http", ":authority: a", ":path: /p", "content-length: 3")
	wish := p.block(extended...)
	part := func(kind http2.FrameType, flags http2.Flags, stream byte, payload []byte) []byte {
		return append([]byte{byte(kind), byte(flags), stream, byte(len(payload))}, payload...)
	}
	f.Add(bytes.Join([][]byte{part(http2.FrameSettings, 0, 0, nil), part(http2.FrameHeaders, 4, 1, head), part(http2.FrameData, 1, 1, []byte("abc")),
		part(http2.FramePing, 0, 0, make([]byte, 8)), part(http2.FrameWindowUpdate, 0, 1, []byte{0, 0, 0, 9}), part(http2.FrameRSTStream, 0, 1, make([]byte, 4))}, nil), uint8(0))
	f.Add(bytes.Join([][]byte{part(http2.FrameSettings, 0, 0, []byte{0, 4, 0, 0, 0, 1}), part(http2.FrameHeaders, 5, 1, head[:5]), part(http2.FrameContinuation, 4, 1, head[5:]),
		part(http2.FrameHeaders, 4, 3, wish), part(http2.FrameData, 0, 3, []byte("echo")), part(http2.FrameHeaders, 5, 3, head), part(http2.FrameGoAway, 0, 0, make([]byte, 8)), part(http2.FramePriority, 0, 5, make([]byte, 5))}, nil), uint8(3))
	f.Fuzz(func(t *testing.T, script []byte, piece uint8) {
		synctest.Test(t, func(t *testing.T) {
			client, conn := net.Pipe()
			s := NewServer(upgrading(func(c net.Conn) {
				_, _ = io.Copy(c, c)
				c.Close()
			}), ServerOptions{Streams: 3, Frames: 50, Resets: 5, StreamWindow: 1 << 16, ConnWindow: 1 << 16})
			s.ServeConn(conn)
			var out bytes.Buffer
			read := make(chan struct{})
			go func() { _, _ = io.Copy(&out, client); close(read) }()
			in := []byte(http2.ClientPreface)
			if piece < 128 {
				in = appendSettings(in)
			}
			in = append(in, framed(script)...)
			for len(in) > 0 {
				n := len(in)
				if piece > 0 {
					n = min(n, 1+int(piece%128)*3)
				}
				if _, err := client.Write(in[:n]); err != nil {
					break
				}
				in = in[n:]
			}
			synctest.Wait()
			if piece%2 == 0 {
				client.Close()
			} else {
				s.Close()
			}
			<-read
			sound(t, out.Bytes())
			time.Sleep(time.Minute)
		})
	})
}

// framed builds frames from a script: type, flags, stream, length and payload, one byte each except
// the payload.
func framed(script []byte) (b []byte) {
	for len(script) >= 4 {
		n := min(int(script[3]), len(script)-4)
		b = append(appendFrameHead(b, n, frameType(script[0]), script[1], uint32(script[2])), script[4:4+n]...)
		script = script[4+n:]
	}
	return append(b, script...)
}

// sound fails the test unless the bytes are frames in a valid order. The last may be truncated.
func sound(t *testing.T, out []byte) {
	t.Helper()
	fr := http2.NewFramer(nil, bytes.NewReader(out))
	fr.ReadMetaHeaders = hpack.NewDecoder(0, nil)
	type state struct{ answered, over bool }
	streams := map[uint32]*state{}
	for n := 0; ; n++ {
		f, err := fr.ReadFrame()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return
		}
		if err != nil {
			t.Fatalf("frame %d: %v %v of %x", n, err, fr.ErrorDetail(), out)
		}
		if _, ok := f.(*http2.SettingsFrame); n == 0 && !ok {
			t.Fatalf("the first frame is %v", f)
		}
		id := f.Header().StreamID
		s := streams[id]
		if s == nil {
			s = &state{}
			streams[id] = s
		}
		end := f.Header().Flags.Has(http2.FlagDataEndStream)
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status := f.PseudoValue("status")
			if s.over || s.answered && status != "" || !s.answered && status == "" || s.answered && !end {
				t.Fatalf("frame %d: %v on a stream that is %+v", n, f, *s)
			}
			s.answered, s.over = !strings.HasPrefix(status, "1"), end
		case *http2.DataFrame:
			if s.over || !s.answered {
				t.Fatalf("frame %d: %v on a stream that is %+v", n, f, *s)
			}
			s.over = end
		case *http2.RSTStreamFrame:
			s.over = true
		case *http2.PushPromiseFrame, *http2.PriorityFrame, *http2.UnknownFrame:
			t.Fatalf("frame %d: %v", n, f)
		}
	}
}
