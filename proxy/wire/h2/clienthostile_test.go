package h2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// origin is a server controlled frame by frame.
type origin struct {
	c   net.Conn
	fr  *http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
}

// script runs do for each connection of a server, after both prefaces.
func script(t testing.TB, settings []http2.Setting, do func(*origin)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				o := &origin{c: c, fr: http2.NewFramer(c, c)}
				o.enc = hpack.NewEncoder(&o.buf)
				o.fr.AllowIllegalWrites = true
				o.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
				_ = o.fr.WriteSettings(settings...)
				do(o)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// request reads up to the head of the next request and returns its stream; 0 at the end.
func (o *origin) request() uint32 {
	for {
		f, err := o.fr.ReadFrame()
		if err != nil {
			return 0
		}
		if f, ok := f.(*http2.MetaHeadersFrame); ok {
			return f.StreamID
		}
	}
}

// drain reads until the client closes.
func (o *origin) drain() { _, _ = io.Copy(io.Discard, o.c) }

// until reads up to a frame of this type and returns it; nil at the end.
func (o *origin) until(kind http2.FrameType) http2.Frame {
	for {
		f, err := o.fr.ReadFrame()
		if err != nil {
			return nil
		}
		if f.Header().Type == kind {
			return f
		}
	}
}

func (o *origin) headers(stream uint32, end bool, lines ...string) {
	o.buf.Reset()
	for _, l := range lines {
		i := strings.Index(l[1:], ":") + 1
		_ = o.enc.WriteField(hpack.HeaderField{Name: l[:i], Value: l[i+1:]})
	}
	_ = o.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: o.buf.Bytes(), EndStream: end, EndHeaders: true})
}

// TestClientAgainstBadAnswers answers the first request badly, and checks whether that ends only
// the exchange or the connection.
func TestClientAgainstBadAnswers(t *testing.T) {
	const ok = ":status:200"
	long := strings.Repeat("x", 1<<10)
	for _, c := range []struct {
		name    string
		fault   wire.Fault // 0: the answer is good
		lives   bool       // the connection accepts more requests
		answers func(o *origin, id uint32)
	}{
		{"good", 0, true, func(o *origin, id uint32) { o.headers(id, true, ok) }},
		{"head, data, trailers", 0, true, func(o *origin, id uint32) {
			o.headers(id, false, ok)
			_ = o.fr.WriteDataPadded(id, false, []byte("x"), make([]byte, 200))
			o.headers(id, true, "x-sum:1")
		}},
		{"frames of no known type", 0, true, func(o *origin, id uint32) {
			_ = o.fr.WriteRawFrame(77, 3, id, []byte("hello"))
			_ = o.fr.WriteRawFrame(78, 3, 0, nil)
			_ = o.fr.WritePriority(id, http2.PriorityParam{StreamDep: 0})
			o.headers(id, true, ok)
		}},
		{"reset behind the end", 0, true, func(o *origin, id uint32) {
			o.headers(id, true, ok)
			_ = o.fr.WriteRSTStream(id, http2.ErrCodeNo)
		}},
		{"no status", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, "x:y") }},
		{"no fields at all", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true) }},
		{"status twice", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, ok) }},
		{"status behind a field", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, "x:y", ok) }},
		{"status of words", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ":status:OK!") }},
		{"status of four digits", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ":status:2000") }},
		{"status 99", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ":status:099") }},
		{"status 600", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ":status:600") }},
		{"status 101", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, false, ":status:101") }},
		{"pseudo field of requests", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, ":path:/") }},
		{"upper case", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, "X-Upper:y") }},
		{"line feed in a value", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, "x:a\nb:c") }},
		{"NUL in a value", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, "x:a\x00b") }},
		{"space in a name", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, "x y:z") }},
		{"connection", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, "connection:close") }},
		{"transfer coding", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, false, ok, "transfer-encoding:chunked") }},
		{"upgrade", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, "upgrade:h2c") }},
		{"two lengths", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, false, ok, "content-length:1", "content-length:1") }},
		{"odd length", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, false, ok, "content-length:+1") }},
		{"length and no content", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ok, "content-length:1") }},
		{"less than announced", wire.FaultMalformed, true, func(o *origin, id uint32) {
			o.headers(id, false, ok, "content-length:5")
			_ = o.fr.WriteData(id, true, []byte("four"))
		}},
		{"more than announced", wire.FaultMalformed, true, func(o *origin, id uint32) {
			o.headers(id, false, ok, "content-length:3")
			_ = o.fr.WriteData(id, true, []byte("four"))
		}},
		{"content with 204", wire.FaultMalformed, true, func(o *origin, id uint32) {
			o.headers(id, false, ":status:204")
			_ = o.fr.WriteData(id, true, []byte("x"))
		}},
		{"data before the head", wire.FaultMalformed, true, func(o *origin, id uint32) { _ = o.fr.WriteData(id, false, []byte("x")) }},
		{"data behind the end", 0, true, func(o *origin, id uint32) {
			o.headers(id, true, ok)
			_ = o.fr.WriteData(id, false, []byte("x"))
		}},
		{"pseudo field in trailers", wire.FaultMalformed, true, func(o *origin, id uint32) {
			o.headers(id, false, ok)
			o.headers(id, true, ok)
		}},
		{"trailers that do not end", wire.FaultMalformed, true, func(o *origin, id uint32) {
			o.headers(id, false, ok)
			o.headers(id, false, "x:y")
		}},
		{"interim that ends", wire.FaultMalformed, true, func(o *origin, id uint32) { o.headers(id, true, ":status:103") }},
		{"interim without end", wire.FaultMalformed, true, func(o *origin, id uint32) {
			for range 100 {
				o.headers(id, false, ":status:103")
			}
		}},
		{"too many fields", wire.FaultMalformed, true, func(o *origin, id uint32) {
			lines := []string{ok}
			for range 300 {
				lines = append(lines, "x:y")
			}
			o.headers(id, true, lines...)
		}},
		{"head too large", wire.FaultMalformed, true, func(o *origin, id uint32) {
			lines := []string{ok, "x:" + long} // once sent, it takes a byte
			for range 100 {
				lines = append(lines, "x:"+long)
			}
			o.headers(id, true, lines...)
		}},
		{"window too large", wire.FaultMalformed, true, func(o *origin, id uint32) { _ = o.fr.WriteWindowUpdate(id, 1<<31-1) }},
		{"window of nothing", wire.FaultMalformed, true, func(o *origin, id uint32) {
			_ = o.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		}},
		{"refused", wire.FaultBroken, true, func(o *origin, id uint32) { _ = o.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) }},
		{"reset", wire.FaultBroken, true, func(o *origin, id uint32) { _ = o.fr.WriteRSTStream(id, http2.ErrCodeInternal) }},
		{"reset within the content", wire.FaultBroken, true, func(o *origin, id uint32) {
			o.headers(id, false, ok)
			_ = o.fr.WriteData(id, false, []byte("x"))
			_ = o.fr.WriteRSTStream(id, http2.ErrCodeNo)
		}},

		{"closed", wire.FaultBroken, false, func(o *origin, id uint32) { o.c.Close() }},
		{"closed within the content", wire.FaultBroken, false, func(o *origin, id uint32) {
			o.headers(id, false, ok)
			o.c.Close()
		}},
		{"GOAWAY before it", wire.FaultBroken, false, func(o *origin, id uint32) { _ = o.fr.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{"GOAWAY behind it", 0, false, func(o *origin, id uint32) {
			_ = o.fr.WriteGoAway(id, http2.ErrCodeNo, nil)
			o.headers(id, true, ok)
		}},
		{"answer on no stream", wire.FaultMalformed, false, func(o *origin, id uint32) { o.headers(id+2, true, ok) }},
		{"answer on an even stream", wire.FaultMalformed, false, func(o *origin, id uint32) { o.headers(2, true, ok) }},
		{"data on no stream", wire.FaultMalformed, false, func(o *origin, id uint32) { _ = o.fr.WriteData(id+2, false, []byte("x")) }},
		{"reset of no stream", wire.FaultMalformed, false, func(o *origin, id uint32) { _ = o.fr.WriteRSTStream(id+2, http2.ErrCodeNo) }},
		{"window of no stream", wire.FaultMalformed, false, func(o *origin, id uint32) { _ = o.fr.WriteWindowUpdate(id+2, 1) }},
		{"push", wire.FaultMalformed, false, func(o *origin, id uint32) {
			_ = o.fr.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
		}},
		{"takes pushes", wire.FaultMalformed, false, func(o *origin, id uint32) {
			_ = o.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1})
		}},
		{"frame too large", wire.FaultMalformed, false, func(o *origin, id uint32) {
			_ = o.fr.WriteRawFrame(http2.FrameData, 0, id, make([]byte, 20<<10))
		}},
		{"connection's window too large", wire.FaultMalformed, false, func(o *origin, id uint32) { _ = o.fr.WriteWindowUpdate(0, 1<<31-1) }},
		{"CONTINUATION of nothing", wire.FaultMalformed, false, func(o *origin, id uint32) { _ = o.fr.WriteContinuation(id, true, nil) }},
		{"CONTINUATION without end", wire.FaultMalformed, false, func(o *origin, id uint32) {
			_ = o.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id})
			for range 1000 {
				_ = o.fr.WriteContinuation(id, false, nil)
			}
		}},
		{"frame within a block", wire.FaultMalformed, false, func(o *origin, id uint32) {
			_ = o.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id})
			_ = o.fr.WritePing(false, [8]byte{})
		}},
		{"bad compression", wire.FaultMalformed, false, func(o *origin, id uint32) {
			_ = o.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}},
		{"PING without end", wire.FaultMalformed, false, func(o *origin, id uint32) {
			for range 10000 {
				_ = o.fr.WritePing(false, [8]byte{})
			}
		}},
		{"SETTINGS without end", wire.FaultMalformed, false, func(o *origin, id uint32) {
			for range 10000 {
				_ = o.fr.WriteSettings()
			}
		}},
		{"empty DATA without end", wire.FaultMalformed, false, func(o *origin, id uint32) {
			o.headers(id, false, ok)
			for range 10000 {
				_ = o.fr.WriteData(id, false, nil)
			}
		}},
		{"odd frames without end", wire.FaultMalformed, false, func(o *origin, id uint32) {
			for range 10000 {
				_ = o.fr.WriteRawFrame(99, 0, 0, nil)
			}
		}},
		{"garbage", wire.FaultMalformed, false, func(o *origin, id uint32) { _, _ = io.WriteString(o.c, "HTTP/1.1 400 Bad Request\r\n\r\n") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			reset := make(chan bool, 1)
			addr := script(t, nil, func(o *origin) {
				id := o.request()
				if id == 0 {
					return
				}
				c.answers(o, id)
				if c.lives && c.fault == wire.FaultMalformed {
					reset <- o.until(http2.FrameRSTStream) != nil
				}
				o.drain()
			})
			cl := dialClient(t, addr, ClientOptions{})
			x, body, err := cl.get(context.Background(), wire.Request{Inform: func(*message.Response) error { return nil }, Head: time.Minute, Idle: time.Minute})
			if got := faultOf(err); got != c.fault || c.fault == 0 && err != nil {
				t.Fatalf("%v (fault %d) after %v %q; want fault %d", err, got, x.Head, body, c.fault)
			}
			if c.lives && c.fault == wire.FaultMalformed && !<-reset {
				t.Error("the server was not told by RST_STREAM")
			}
			if _, good := cl.Load(); good != c.lives {
				t.Errorf("the connection is good for more: %v; want %v", good, c.lives)
			}
		})
	}
}

// Only requests that the server has not processed may be retried.
func TestClientSaysWhatWasUnprocessed(t *testing.T) {
	for _, c := range []struct {
		name string
		want bool
		do   func(o *origin, id uint32)
	}{
		{"refused", true, func(o *origin, id uint32) { _ = o.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) }},
		{"GOAWAY before it", true, func(o *origin, id uint32) { _ = o.fr.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{"GOAWAY with an error before it", true, func(o *origin, id uint32) { _ = o.fr.WriteGoAway(0, http2.ErrCodeInternal, nil) }},
		{"GOAWAY that asks for calm", false, func(o *origin, id uint32) { _ = o.fr.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil) }},
		{"GOAWAY behind it, and closed", false, func(o *origin, id uint32) {
			_ = o.fr.WriteGoAway(id, http2.ErrCodeNo, nil)
			o.c.Close()
		}},
		{"reset", false, func(o *origin, id uint32) { _ = o.fr.WriteRSTStream(id, http2.ErrCodeCancel) }},
		{"closed", false, func(o *origin, id uint32) { o.c.Close() }},
		{"refused behind the head", false, func(o *origin, id uint32) {
			o.headers(id, false, ":status:103")
			o.headers(id, false, ":status:103")
			_ = o.fr.WriteRSTStream(id, http2.ErrCodeInternal)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := dialClient(t, script(t, nil, func(o *origin) {
				if id := o.request(); id != 0 {
					c.do(o, id)
				}
				o.drain()
			}), ClientOptions{})
			x, _, err := cl.get(context.Background(), wire.Request{Method: "POST", Content: []byte("x")})
			if faultOf(err) != wire.FaultBroken || x.Unprocessed != c.want {
				t.Errorf("%v, unprocessed: %v; want %v", err, x.Unprocessed, c.want)
			}
		})
	}
	t.Run("body was read", func(t *testing.T) {
		cl := dialClient(t, script(t, nil, func(o *origin) {
			id := o.request()
			o.until(http2.FrameData)
			_ = o.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			o.drain()
		}), ClientOptions{})
		x, _, err := cl.get(context.Background(), wire.Request{Method: "POST", Length: -1, Body: reading{Reader: strings.NewReader("x")}})
		if faultOf(err) != wire.FaultBroken || x.Unprocessed {
			t.Errorf("%v, unprocessed: %v", err, x.Unprocessed)
		}
	})
}

func TestClientTellsTheCodeOfAReset(t *testing.T) {
	cl := dialClient(t, script(t, nil, func(o *origin) {
		_ = o.fr.WriteRSTStream(o.request(), http2.ErrCodeEnhanceYourCalm)
		o.drain()
	}), ClientOptions{})
	_, _, err := cl.get(context.Background(), wire.Request{})
	var reset *wire.Reset
	if !errors.As(err, &reset) || reset.Code != uint32(http2.ErrCodeEnhanceYourCalm) || reset.Name != "ENHANCE_YOUR_CALM" {
		t.Error(err)
	}
}

func TestClientSaysThatTheServerSpeaksHTTP1(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(conn, ClientOptions{})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Greet(ctx); err == nil || !strings.Contains(err.Error(), "the server speaks HTTP/1: write http://") {
		t.Errorf("got %v", err)
	} else if faultOf(err) != wire.FaultMalformed {
		t.Errorf("the fault is %v", faultOf(err))
	}
}
