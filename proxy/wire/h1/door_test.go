package h1

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Writers check everything again before it reaches the wire. These tests cover that last check in
// both directions.

// TestRequestsThatAreNotWritten: none of their bytes are sent, and the connection closes.
func TestRequestsThatAreNotWritten(t *testing.T) {
	body := func() message.Body { return &inPieces{sizes: []int{3}, err: io.EOF} }
	field := func(name, value string) message.Fields { return message.Fields{{Name: name, Value: value}} }
	for _, tt := range []struct {
		name string
		r    wire.Request
		want error
	}{
		{"a method that is none", wire.Request{Method: "G T"}, wire.ErrBadHead},
		{"CONNECT", wire.Request{Method: "CONNECT"}, wire.ErrBadHead},
		{"no target", wire.Request{Target: "-"}, wire.ErrBadHead},
		{"a target with a space", wire.Request{Target: "/a b"}, wire.ErrBadHead},
		{"a target with a line break", wire.Request{Target: "/a\r\nb"}, wire.ErrBadHead},
		{"a target with a fragment", wire.Request{Target: "/a#b"}, wire.ErrBadHead},
		{"a target that libevent takes for an authority", wire.Request{Target: "//a/b"}, wire.ErrBadHead},
		{"a host with a line break", wire.Request{Host: "a\r\nX: b"}, wire.ErrBadHead},
		{"a host with a slash", wire.Request{Host: "a/b"}, wire.ErrBadHead},
		{"a length without a body", wire.Request{Length: 3}, wire.ErrBadLength},
		{"a length below -1", wire.Request{Body: body(), Length: -2}, wire.ErrBadLength},
		{"a field of the connection", wire.Request{Fields: field("connection", "close")}, errFieldBanned},
		{"a field of framing", wire.Request{Fields: field("transfer-encoding", "chunked")}, errFieldBanned},
		{"a length as a field", wire.Request{Fields: field("content-length", "3")}, errFieldBanned},
		{"a name with capitals", wire.Request{Fields: field("X-A", "b")}, errFieldBytes},
		{"a name with a colon", wire.Request{Fields: field("x-a:", "b")}, errFieldBytes},
		{"no name", wire.Request{Fields: field("", "b")}, errFieldBytes},
		{"a value with a line break", wire.Request{Fields: field("x-a", "b\r\nx: y")}, errFieldBytes},
		{"a value with a NUL", wire.Request{Fields: field("x-a", "b\x00")}, errFieldBytes},
		{"a value that begins with a space", wire.Request{Fields: field("x-a", " b")}, errFieldBytes},
		{"an upgrade with content", wire.Request{Upgrade: "websocket", Content: []byte("a")}, errNoUpgrade},
		{"an upgrade with a body", wire.Request{Upgrade: "websocket", Body: body(), Length: 3}, errNoUpgrade},
		{"an upgrade to no protocol", wire.Request{Upgrade: "web socket"}, wire.ErrBadHead},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.r
			if r.Method == "" {
				r.Method = "GET"
			}
			if r.Target == "" {
				r.Target = "/"
			} else if r.Target == "-" {
				r.Target = ""
			}
			if r.Host == "" {
				r.Host = "a"
			}
			client, conn := cannedClient("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1<<20)
			var x wire.Response
			err := client.Exchange(t.Context(), &r, &x)
			var fault *wire.Error
			if !errors.As(err, &fault) || fault.Fault != wire.FaultRequest || !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if conn.written.Len() > 0 || conn.closed {
				t.Errorf("wrote %q, closed %v", conn.written.String(), conn.closed)
			}
			if err := client.Exchange(t.Context(), &wire.Request{Method: "GET", Target: "/", Host: "a"}, &x); err != nil || x.Head.Status != 200 {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

// TestUploadsThatDoNotFit: a body that does not match its announced length never looks complete.
func TestUploadsThatDoNotFit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   inPieces
		length int64
		most   string // the longest content that may be written
	}{
		{"shorter than announced", inPieces{sizes: []int{3, 3}, err: io.EOF}, 7, "xxxxxx"},
		{"longer, in one piece", inPieces{sizes: []int{8}, err: io.EOF}, 7, ""},
		{"longer, by another piece", inPieces{sizes: []int{3, 4, 1}, err: io.EOF}, 7, "xxx"},
		{"its end does not come", inPieces{sizes: []int{3, 4}, err: nil}, 7, "xxx"},
		{"its end is bad", inPieces{sizes: []int{3, 4}, err: errors.New("bad")}, 7, "xxx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			here, there := net.Pipe()
			client := NewClient(here, NewSocket(here), new(wire.Buffers))
			wrote := make(chan string, 1)
			go func() { wrote <- rest(there) }()
			var x wire.Response
			err := client.Exchange(t.Context(), &wire.Request{Method: "POST", Target: "/", Host: "a", Body: &tt.body, Length: tt.length}, &x)
			var fault *wire.Error
			if !errors.As(err, &fault) || fault.Fault != wire.FaultBody {
				t.Errorf("%v, want a fault of the body", err)
			}
			_, content, _ := strings.Cut(<-wrote, "\r\n\r\n")
			if !strings.HasPrefix(tt.most, content) {
				t.Errorf("wrote %q, want at most %q", content, tt.most)
			}
			there.Close()
		})
	}
}

// TestAnswersThatAreNotWritten misuses the stream as a handler, and checks that the misuse does not
// change the answer sent.
func TestAnswersThatAreNotWritten(t *testing.T) {
	head := func(status int, length int64, fields ...message.Field) *message.Response {
		return &message.Response{Status: status, ContentLength: length, Fields: fields}
	}
	x := []byte("x")
	for _, tt := range []struct {
		name string
		do   func(s wire.Stream) error
		want error // the error of the misuse
		get  string
	}{
		{"content before the head", func(s wire.Stream) error { _, err := s.Write(x); return err }, wire.ErrNotBegun, ""},
		{"an end before the head", func(s wire.Stream) error { return s.Finish(nil) }, wire.ErrNotBegun, ""},
		{"an interim status for the answer", func(s wire.Stream) error { return s.Respond(head(103, 0), false) }, wire.ErrStatus, ""},
		{"a status that is none", func(s wire.Stream) error { return s.Respond(head(600, 0), false) }, wire.ErrStatus, ""},
		{"a final status for the meantime", func(s wire.Stream) error { return s.Inform(head(200, 0)) }, wire.ErrStatus, ""},
		{"a switch in the meantime", func(s wire.Stream) error { return s.Inform(head(101, 0)) }, wire.ErrStatus, ""},
		{"an upgrade that was not asked for", func(s wire.Stream) error { _, err := s.Upgrade(head(101, 0)); return err }, errUpgrade, ""},
		{"a second head", func(s wire.Stream) error {
			_ = s.Respond(head(200, 1), false)
			err := s.Respond(head(404, 1), false)
			_, _ = s.Write(x)
			_ = s.Finish(nil)
			return err
		}, wire.ErrBegun, "200 OK"},
		{"a meantime behind the head", func(s wire.Stream) error {
			_ = s.Respond(head(200, 1), false)
			err := s.Inform(head(103, 0))
			_, _ = s.Write(x)
			_ = s.Finish(nil)
			return err
		}, wire.ErrBegun, "200 OK"},
		{"content of an answer that has none", func(s wire.Stream) error {
			_ = s.Respond(head(204, 0), false)
			_, err := s.Write(x)
			_ = s.Finish(nil)
			return err
		}, wire.ErrNoContent, "204 No Content"},
		{"too much content", func(s wire.Stream) error {
			_ = s.Respond(head(200, 1), false)
			_, err := s.Write([]byte("xy"))
			_, _ = s.Write(x)
			_ = s.Finish(nil)
			return err
		}, wire.ErrTooMuch, "200 OK"},
		{"too little content", func(s wire.Stream) error {
			_ = s.Respond(head(200, 2), false)
			_, _ = s.Write(x)
			return s.Finish(nil)
		}, wire.ErrTooLittle, ""},
		{"a field of the connection", func(s wire.Stream) error {
			return s.Respond(head(200, 0, message.Field{Name: "connection", Value: "keep-alive"}), false)
		}, errFieldBanned, ""},
		{"a name with capitals", func(s wire.Stream) error {
			return s.Respond(head(200, 0, message.Field{Name: "X-A", Value: "b"}), false)
		}, errFieldBytes, ""},
		{"a value with a line break", func(s wire.Stream) error {
			return s.Respond(head(200, 0, message.Field{Name: "x-a", Value: "b\r\nSet-Cookie: c=d"}), false)
		}, errFieldBytes, ""},
		{"a line break in the meantime", func(s wire.Stream) error {
			return s.Inform(head(103, 0, message.Field{Name: "link", Value: "b\r\n\r\nHTTP/1.1 200 OK"}))
		}, errFieldBytes, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got error
			h := func(s wire.Stream) { got = tt.do(s) }
			piped(t, h, func(t *testing.T, c net.Conn, _ *Server) {
				send(t, c, get+"Connection: close\r\n\r\n")
				text := rest(c)
				if !errors.Is(got, tt.want) {
					t.Errorf("%v, want %v", got, tt.want)
				}
				whole := strings.HasPrefix(text, "HTTP/1.1 "+tt.get+"\r\n") && (strings.HasSuffix(text, "\r\n\r\nx") || strings.Contains(tt.get, "204") && strings.HasSuffix(text, "\r\n\r\n"))
				if tt.get != "" && !whole || strings.Count(text, "HTTP/1.1") > 1 {
					t.Errorf("answered %q, want %q", text, tt.get)
				}
				if tt.get == "" && strings.Contains(text, "\r\n\r\n") && !errors.Is(got, wire.ErrTooLittle) {
					t.Errorf("answered %q, want nothing whole", text)
				}
			})
		})
	}
}
