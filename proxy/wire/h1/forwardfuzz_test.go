package h1

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// FuzzForwardRequest: every accepted request can be written for the upstream, whole or streamed.
// The upstream reads it as one request with the same meaning.
func FuzzForwardRequest(f *testing.F) {
	for _, c := range requests() {
		if len(c.raw) < 2000 {
			f.Add(c.raw, false)
			f.Add(c.raw, true)
		}
	}
	f.Fuzz(func(t *testing.T, raw string, streamed bool) {
		got, _ := listen(raw, 1<<20)
		for _, h := range got {
			if h.head.Fault != nil || h.refused != nil || h.err != nil {
				return
			}
			want := h.head
			want.Fields = slices.Clone(h.head.Fields)
			if err := want.Settle(); err != nil {
				t.Fatal(err)
			}
			if want.Forms&message.DoubleSlash != 0 {
				return // no route sends "//" at the start of a path
			}
			if !streamed {
				want.ContentLength, h.trailers = int64(len(h.body)), nil
			}
			text := rendered(t, &want, h, streamed)
			again, _ := listen(text+next, 1<<20)
			if len(again) != 2 || again[1].String() != "GET /smuggled 0" {
				t.Fatalf("%s goes up as %q, which is read as %s", h, text, said(again))
			}
			compareForwarded(t, &want, h, again[0])
			readByStandard(t, text, again[0])
		}
	})
}

// rendered is the request as written for the upstream.
func rendered(t *testing.T, head *message.Head, h heard, streamed bool) string {
	t.Helper()
	r := &wire.Request{Method: head.Method, Target: head.PathAndQuery(), Host: head.Authority, Fields: head.Fields}
	if streamed {
		r.Length, r.Body = head.ContentLength, trailed{strings.NewReader(h.body), h.trailers}
		r.Trailers = func(f message.Fields) message.Fields { return f }
	} else {
		r.Content = []byte(h.body)
	}
	c, conn := cannedClient("", 1)
	out, err := c.render(nil, r)
	if err != nil {
		t.Fatalf("%s is not forwarded: %v", h, err)
	}
	if err := c.write(out, 0); err != nil {
		t.Fatal(err)
	}
	if r.Streams() {
		if err := (&upload{c: c, r: r}).send(); err != nil {
			t.Fatalf("the content of %s is not forwarded: %v", h, err)
		}
	}
	return conn.written.String()
}

type trailed struct {
	io.Reader
	trailers message.Fields
}

func (b trailed) Trailers() message.Fields { return b.trailers }

func compareForwarded(t *testing.T, want *message.Head, h, got heard) {
	t.Helper()
	g := got.head
	var fields message.Fields
	for _, f := range g.Fields {
		if f.Name != "content-length" && f.Name != "transfer-encoding" {
			fields = append(fields, f)
		}
	}
	if g.Method != want.Method || g.Target != want.PathAndQuery() || g.Authority != want.Authority || g.ContentLength != want.ContentLength || !slices.Equal(fields, want.Fields) {
		t.Fatalf("%+v goes up as %+v", want, g)
	}
	if got.body != h.body || !slices.Equal(got.trailers, h.trailers) {
		t.Fatalf("content %q %v goes up as %q %v", h.body, h.trailers, got.body, got.trailers)
	}
}

// readByStandard parses the written bytes with net/http, which must find one request.
func readByStandard(t *testing.T, text string, got heard) {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(text))
	compareWithStandard(t, in, got)
	if left, _ := io.ReadAll(in); len(left) > 0 {
		t.Fatalf("net/http leaves %q of %q", left, text)
	}
}

// FuzzForwardAnswer: every accepted upstream answer can be written for the client. The client reads
// it as one answer with the same meaning.
func FuzzForwardAnswer(f *testing.F) {
	for _, c := range answers() {
		if len(c.raw) < 2000 {
			f.Add(c.raw, c.method == "HEAD", false)
			f.Add(c.raw, c.method == "HEAD", true)
		}
	}
	f.Fuzz(func(t *testing.T, raw string, head, old bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		want := readAnswer(raw, method, 1<<20)
		if want.err != nil || len(want.fields) > wire.MaxFields-3 { // the engine adds Date, framing and Connection
			return
		}
		text := relayed(t, want, method, old)
		got := readAnswer(text, method, 1<<20)
		if got.err != nil || got.status != want.status || got.body != want.body || !old && !slices.Equal(got.trailers, want.trailers) {
			t.Fatalf("%s goes down as %q, which is read as %s", want, text, got)
		}
		if !want.fields.Has("date") {
			got.fields.Del("date")
		}
		if !slices.Equal(got.fields, want.fields) {
			t.Fatalf("fields %v go down as %v", want.fields, got.fields)
		}
		std, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http reads %q with %v", text, err)
		}
		if body, err := io.ReadAll(std.Body); err != nil || string(body) != want.body {
			t.Fatalf("net/http reads %q of %q, %v", body, text, err)
		}
	})
}

// relayed is the answer as written for a client, an HTTP/1.0 one if old.
func relayed(t *testing.T, a reading, method string, old bool) string {
	t.Helper()
	raw := method + " /p HTTP/1.1\r\nHost: a\r\n\r\n"
	if old {
		raw = method + " /p HTTP/1.0\r\nHost: a\r\n\r\n"
	}
	conn := newCanned(raw, 1<<20)
	s := NewServer(func(s wire.Stream) {
		err := s.Respond(&message.Response{Status: a.status, Fields: a.fields, ContentLength: a.length}, len(a.trailers) > 0)
		if err == nil && a.body != "" {
			_, err = s.Write([]byte(a.body))
		}
		if err == nil {
			err = s.Finish(a.trailers)
		}
		if err != nil {
			t.Errorf("%s is not forwarded: %v", a, err)
		}
	}, wire.ServerOptions{})
	newServerConn(s, conn).Serve()
	return conn.written.String()
}
