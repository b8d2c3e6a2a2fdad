package h2

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// answering writes frames for the seeds of fuzzing.
func answering(do func(*origin)) []byte {
	var b bytes.Buffer
	o := &origin{fr: http2.NewFramer(&b, nil)}
	o.fr.AllowIllegalWrites = true
	o.enc = hpack.NewEncoder(&o.buf)
	_ = o.fr.WriteSettings()
	do(o)
	return b.Bytes()
}

// FuzzClient sends any bytes as answer to two requests. Both exchanges must end, their results must
// be unambiguous, and no memory may be kept.
func FuzzClient(f *testing.F) {
	const ok = ":status:200"
	f.Add(answering(func(o *origin) {
		o.headers(1, false, ok, "content-length:5", "x:y")
		_ = o.fr.WriteData(1, true, []byte("hello"))
		o.headers(3, false, ":status:103", "link:</a>")
		o.headers(3, false, ok, "content-type:application/grpc")
		_ = o.fr.WriteDataPadded(3, false, []byte("hello"), make([]byte, 3))
		o.headers(3, true, "grpc-status:0")
	}))
	f.Add(answering(func(o *origin) {
		_ = o.fr.WriteWindowUpdate(0, 100)
		_ = o.fr.WriteWindowUpdate(1, 100)
		_ = o.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		_ = o.fr.WritePing(false, [8]byte{})
		_ = o.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		_ = o.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
		o.headers(3, true, ok)
	}))
	f.Add(answering(func(o *origin) {
		_ = o.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}})
		_ = o.fr.WriteContinuation(1, true, nil)
		_ = o.fr.WriteData(1, true, nil)
		_ = o.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 3, PromiseID: 2, EndHeaders: true})
	}))
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := &scripted{sent: sent, asked: make(chan struct{}), closed: make(chan struct{})}
		c := NewClient(conn, ClientOptions{Frames: 100})
		defer c.Close()
		var both sync.WaitGroup
		for _, r := range []wire.Request{{Method: "GET"}, {Method: "POST", Content: make([]byte, 100)}} {
			r.Target, r.Host = "/", "a"
			r.Inform = func(m *message.Response) error { checkAnswer(t, m); return nil }
			c.Reserve()
			both.Go(func() { checkExchange(t, c, &r) })
		}
		both.Wait()
		if n, _ := c.Load(); n != 0 {
			t.Errorf("%d places are taken in the end", n)
		}
	})
}

func checkExchange(t *testing.T, c *Client, r *wire.Request) {
	x := &wire.Response{}
	if c.Exchange(context.Background(), r, x) != nil {
		return
	}
	defer x.Close()
	checkAnswer(t, &x.Head)
	body, err := io.ReadAll(x)
	if n := x.Head.ContentLength; err == nil && n >= 0 && int64(len(body)) != n && message.MayHaveBody(r.Method, x.Head.Status) {
		t.Errorf("%d bytes of %d", len(body), n)
	}
	for _, f := range x.Trailers() {
		if !validName(f.Name) || !message.ValidValue(f.Value) || message.OfConnection(f.Name) {
			t.Errorf("trailer %q: %q", f.Name, f.Value)
		}
	}
}

// scripted is a connection to a server that sends its script once two requests have arrived, and
// closes.
type scripted struct {
	net.Conn
	sent   []byte
	asked  chan struct{} // closed once the requests have arrived
	closed chan struct{}

	mu      sync.Mutex // guards the fields below
	preface int        // bytes of the preface received
	heads   int
	end     bool
}

func (s *scripted) Read(p []byte) (int, error) {
	select {
	case <-s.asked:
	case <-s.closed:
		return 0, net.ErrClosed
	}
	if len(s.sent) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.sent)
	s.sent = s.sent[n:]
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := p[min(len(p), len(preface)-s.preface):]
	s.preface += len(p) - len(b)
	for len(b) >= frameHead { // the client writes whole frames
		f := parseFrameHead(b)
		b = b[min(len(b), frameHead+f.size):]
		if f.kind == frameHeaders {
			if s.heads++; s.heads == 2 {
				close(s.asked)
			}
		}
	}
	return len(p), nil
}

func (s *scripted) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.end {
		s.end = true
		close(s.closed)
	}
	return nil
}

func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

func checkAnswer(t *testing.T, m *message.Response) {
	if m.Status < 100 || m.Status > 599 || m.Status == 101 {
		t.Errorf("status %d", m.Status)
	}
	for _, f := range m.Fields {
		if !validName(f.Name) || !message.ValidValue(f.Value) || message.OfConnection(f.Name) {
			t.Errorf("field %q: %q", f.Name, f.Value)
		}
	}
}
