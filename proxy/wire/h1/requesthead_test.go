package h1

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// heard is a request as the handler sees it.
type heard struct {
	head     message.Head
	refused  error // the error of Settle, which the engine does not call
	body     string
	trailers message.Fields
	err      error // of the body
}

// String is what the tables compare.
func (h heard) String() string {
	switch {
	case h.head.Fault != nil:
		return kindOf(h.head.Fault)
	case h.refused != nil:
		return kindOf(h.refused)
	case h.err != nil:
		return fmt.Sprintf("%s %s, then: %v", h.head.Method, h.head.Target, h.err)
	}
	text := fmt.Sprintf("%s %s %d", h.head.Method, h.head.Target, h.head.ContentLength)
	if h.body != "" {
		text += " " + h.body
	}
	for _, f := range h.trailers {
		text += fmt.Sprintf(" +%s=%s", f.Name, f.Value)
	}
	return text
}

// kindOf returns an error without the place, which is for the record.
func kindOf(err error) string {
	if inner := errors.Unwrap(err); inner != nil {
		return inner.Error()
	}
	return err.Error()
}

// listen gives a server raw bytes, in pieces of step, and returns the handler's requests and the
// bytes written. Like the gateway, the handler closes the connection after a refusal.
func listen(raw string, step int) (got []heard, written string) {
	conn := newCanned(raw, step)
	s := NewServer(func(s wire.Stream) {
		h := heard{head: *s.Head()}
		settled := h.head
		settled.Fields = slices.Clone(settled.Fields)
		h.refused = settled.Settle()
		var body []byte
		body, h.err = io.ReadAll(s.Body())
		h.body, h.trailers = string(body), s.Body().Trailers()
		got = append(got, h)
		if h.err != nil || h.refused != nil {
			s.CloseAfter()
		}
		_ = s.Respond(&message.Response{Status: 204}, false)
		_ = s.Finish(nil)
	}, wire.ServerOptions{HeadBytes: 20 << 10})
	newServerConn(s, conn).Serve()
	return got, conn.written.String()
}

func TestHeadIsReadAsSent(t *testing.T) {
	got, _ := listen("POST /a%2Fb?x=%20 HTTP/1.0\r\nX-B: 1\r\nHOST: A.Example:80\r\nX_Odd:  a b \r\nx-b: 2\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 1<<20)
	h := got[0].head
	if h.Version != message.HTTP10 || h.Scheme != "http" || h.Authority != "A.Example:80" || h.Target != "/a%2Fb?x=%20" || h.Fault != nil {
		t.Errorf("head %+v", h)
	}
	if s := fmt.Sprint(h.Fields); s != "[{x-b 1} {x_odd a b} {x-b 2} {expect 100-continue} {content-length 1}]" {
		t.Errorf("fields %s", s)
	}
}

// The known parts of a refused request are available for the audit record.
func TestFaultKeepsTheRequestLine(t *testing.T) {
	got, _ := listen("PUT /x HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 1<<20)
	if h := got[0].head; h.Method != "PUT" || h.Target != "/x" || h.Version != message.HTTP11 || h.Fields != nil {
		t.Errorf("head %+v", h)
	}
}

func TestTrailersThatMayNotBeBelieved(t *testing.T) {
	got, _ := listen(post+"X-In-Head: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\nAuthorization: b\r\nX_In_Head: 2\r\n\r\n", 1<<20)
	if s := fmt.Sprint(got[0].trailers); s != "[{x-sum 1}]" {
		t.Errorf("trailers %s", s)
	}
}
