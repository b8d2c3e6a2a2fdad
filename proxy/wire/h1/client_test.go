package h1

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

type body struct{ io.Reader }

func (body) Trailers() message.Fields { return nil }

// TestRequestsOnTheWire compares every byte.
func TestRequestsOnTheWire(t *testing.T) {
	fields := message.Fields{{Name: "accept", Value: "*/*"}, {Name: "x-name", Value: "caf\xc3\xa9"}, {Name: "x-empty", Value: ""}, {Name: "cookie", Value: "a=b"}}
	const lines = "accept: */*\r\nx-name: caf\xc3\xa9\r\nx-empty: \r\ncookie: a=b\r\n"
	for name, c := range map[string]struct {
		r    wire.Request
		want string
	}{
		"GET":            {wire.Request{Method: "GET", Target: "/a?b=c"}, "GET /a?b=c HTTP/1.1\r\nHost: a:1\r\n" + lines + "\r\n"},
		"DELETE":         {wire.Request{Method: "DELETE", Target: "/"}, "DELETE / HTTP/1.1\r\nHost: a:1\r\n" + lines + "\r\n"},
		"empty POST":     {wire.Request{Method: "POST", Target: "/"}, "POST / HTTP/1.1\r\nHost: a:1\r\n" + lines + "Content-Length: 0\r\n\r\n"},
		"POST":           {wire.Request{Method: "POST", Target: "/", Content: []byte("abc")}, "POST / HTTP/1.1\r\nHost: a:1\r\n" + lines + "Content-Length: 3\r\n\r\nabc"},
		"GET with":       {wire.Request{Method: "GET", Target: "/", Content: []byte("abc")}, "GET / HTTP/1.1\r\nHost: a:1\r\n" + lines + "Content-Length: 3\r\n\r\nabc"},
		"upgrade":        {wire.Request{Method: "GET", Target: "/", Upgrade: "websocket"}, "GET / HTTP/1.1\r\nHost: a:1\r\n" + lines + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"streamed":       {wire.Request{Method: "POST", Target: "/", Body: body{strings.NewReader("abc")}, Length: 3}, "POST / HTTP/1.1\r\nHost: a:1\r\n" + lines + "Content-Length: 3\r\n\r\nabc"},
		"chunked":        {wire.Request{Method: "POST", Target: "/", Body: body{strings.NewReader("abcdefghijklmnopq")}, Length: -1}, "POST / HTTP/1.1\r\nHost: a:1\r\n" + lines + "Transfer-Encoding: chunked\r\n\r\n11\r\nabcdefghijklmnopq\r\n0\r\n\r\n"},
		"chunked, empty": {wire.Request{Method: "GET", Target: "/", Body: body{strings.NewReader("")}, Length: -1}, "GET / HTTP/1.1\r\nHost: a:1\r\n" + lines + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			client, conn := cannedClient("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1<<20)
			conn.until = c.want
			c.r.Host, c.r.Fields = "a:1", fields
			var x wire.Response
			if err := client.Exchange(t.Context(), &c.r, &x); err != nil {
				t.Fatal(err)
			}
			if !x.Close() || conn.closed {
				t.Error("the connection is not kept")
			}
			if got := conn.written.String(); got != c.want {
				t.Errorf("on the wire:\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

func TestOneExchangeAtATime(t *testing.T) {
	client, conn := cannedClient("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 1<<20)
	r := &wire.Request{Method: "GET", Target: "/", Host: "a"}
	var x, y wire.Response
	if err := client.Exchange(t.Context(), r, &x); err != nil {
		t.Fatal(err)
	}
	if client.Alive() {
		t.Error("a connection in use passes for idle")
	}
	var fault *wire.Error
	if err := client.Exchange(t.Context(), r, &y); !errors.As(err, &fault) || fault.Fault != wire.FaultBroken {
		t.Errorf("second exchange gives %v", err)
	}
	if !conn.closed || y.Close() {
		t.Error("the connection survives")
	}
	x.Close()
}

func TestChunksAreReadTogether(t *testing.T) {
	client, _ := cannedClient("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", 1<<20)
	var x wire.Response
	if err := client.Exchange(t.Context(), &wire.Request{Method: "GET", Target: "/", Host: "a"}, &x); err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	buf := make([]byte, 100)
	if n, err := x.Read(buf); string(buf[:n]) != "abc" || err != io.EOF {
		t.Errorf("first read gives %q, %v, want all and the end", buf[:n], err)
	}
}

func BenchmarkExchange(b *testing.B) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: x\r\nDate: Tue, 24 Nov 2026 10:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}"
	client, conn := cannedClient(answer, 1<<20)
	r := &wire.Request{Method: "POST", Target: "/v1/models/half_plus_two:predict", Host: "a", Content: []byte("{}"), Fields: message.Fields{
		{Name: "accept", Value: "*/*"}, {Name: "content-type", Value: "application/json"}, {Name: "x-sallyport-principal", Value: "issuer/corp:alice"},
	}}
	buf, text := make([]byte, 4<<10), []byte(answer)
	var x wire.Response
	b.ReportAllocs()
	for b.Loop() {
		conn.answer = text
		conn.written.Reset()
		if err := client.Exchange(context.Background(), r, &x); err != nil {
			b.Fatal(err)
		}
		x.Read(buf)
		x.Close()
	}
}
