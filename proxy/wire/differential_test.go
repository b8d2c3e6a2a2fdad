package wire_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h2"
	"sallyport/proxy/wire/stdhttp"
)

// reading is a request as a handler sees it.
type reading struct {
	Method, Scheme, Authority, Target, Path, Query, Body string
	Fields, Trailers                                     []string
	Length                                               int64
}

// tell answers with the request that it read, or refuses it as the pipeline does.
func tell(s wire.Stream) {
	h := s.Head()
	text, status := []byte(nil), 400
	if h.Settle() == nil {
		if body, err := io.ReadAll(s.Body()); err == nil {
			r := reading{h.Method, h.Scheme, h.Authority, h.Target, h.Path, h.Query, string(body), lines(h.Fields), lines(s.Body().Trailers()), h.ContentLength}
			text, _ = json.Marshal(r)
			status = 200
		}
	}
	if status != 200 {
		s.CloseAfter()
	}
	answer(s, status, string(text))
}

// lines returns fields ordered by name, because one engine does not keep their order.
func lines(fields message.Fields) []string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.Name + ": " + f.Value
	}
	slices.SortStableFunc(all, func(a, b string) int {
		return strings.Compare(a[:strings.Index(a, ":")], b[:strings.Index(b, ":")])
	})
	return all
}

// two sends the same request to both engines, on kept connections.
type two struct {
	addr  [2]string
	tls   *tls.Config
	conns [2]*asking
}

// asking is a client connection.
type asking struct {
	c    net.Conn
	fr   *http2.Framer
	enc  *hpack.Encoder
	buf  bytes.Buffer
	next uint32
}

func newTwo(t testing.TB) *two {
	t.Helper()
	pki := httptest.NewUnstartedServer(nil)
	pki.EnableHTTP2 = true
	pki.StartTLS()
	t.Cleanup(pki.Close)
	roots := x509.NewCertPool()
	roots.AddCert(pki.Certificate())
	w := &two{tls: &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: []string{"h2"}}}
	for i, s := range []server{h2.NewServer(tell, h2.ServerOptions{}), stdhttp.New(tell, stdhttp.Options{})} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.addr[i] = l.Addr().String()
		done := make(chan error, 1)
		go func() { done <- s.Serve(tlsListener{l, pki}) }()
		t.Cleanup(func() {
			if w.conns[i] != nil {
				w.conns[i].c.Close()
			}
			_ = s.Close()
			<-done
		})
	}
	return w
}

// ask sends a request to one engine and returns how the engine read it; nil if it refused.
func (w *two) ask(t testing.TB, i int, head []hpack.HeaderField, data string, tail []hpack.HeaderField, end bool) *reading {
	t.Helper()
	a := w.conns[i]
	if a == nil || a.next > 2000 {
		if a != nil {
			a.c.Close()
		}
		c, err := tls.Dial("tcp", w.addr[i], w.tls)
		if err != nil {
			t.Fatal(err)
		}
		a = &asking{c: c, fr: http2.NewFramer(c, c), next: 1}
		a.enc = hpack.NewEncoder(&a.buf)
		a.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		a.fr.AllowIllegalWrites = true
		_, _ = io.WriteString(c, http2.ClientPreface)
		_ = a.fr.WriteSettings()
		w.conns[i] = a
	}
	id := a.next
	a.next += 2
	a.headers(id, end, head)
	if !end {
		_ = a.fr.WriteData(id, len(tail) == 0, []byte(data))
		if len(tail) > 0 {
			a.headers(id, true, tail)
		}
	}
	status, body, err := a.answer(id)
	if err != nil {
		if errors.Is(err, errSilent) {
			t.Fatalf("engine %d: %v for %v", i, err, head)
		}
		a.c.Close()
		w.conns[i] = nil
		return nil
	}
	if status != "200" {
		return nil
	}
	r := &reading{}
	if err := json.Unmarshal(body, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (a *asking) headers(id uint32, end bool, fields []hpack.HeaderField) {
	a.buf.Reset()
	for _, f := range fields {
		_ = a.enc.WriteField(f)
	}
	_ = a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.buf.Bytes(), EndStream: end, EndHeaders: true})
}

var errSilent = errors.New("no answer came")

func (a *asking) answer(id uint32) (status string, body []byte, err error) {
	_ = a.c.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		f, err := a.fr.ReadFrame()
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return "", nil, errSilent
		}
		if err != nil {
			return "", nil, err
		}
		if f.Header().StreamID != id {
			if g, ok := f.(*http2.GoAwayFrame); ok {
				return "", nil, fmt.Errorf("sent away: %v", g.ErrCode)
			}
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if status = f.PseudoValue("status"); status == "100" {
				continue
			}
			if f.StreamEnded() {
				return status, body, nil
			}
		case *http2.DataFrame:
			body = append(body, f.Data()...)
			_ = a.fr.WriteWindowUpdate(0, max(1, uint32(len(f.Data()))))
			if f.StreamEnded() {
				return status, body, nil
			}
		case *http2.RSTStreamFrame:
			return "", nil, nil
		}
	}
}

// fieldsOf reads "name: value" lines.
func fieldsOf(text string) []hpack.HeaderField {
	var all []hpack.HeaderField
	for _, line := range strings.Split(text, "\n") {
		i := strings.Index(line[min(1, len(line)):], ": ") + 1
		if i == 0 {
			continue
		}
		all = append(all, hpack.HeaderField{Name: line[:i], Value: line[i+2:]})
	}
	return all
}

const usual = ":method: POST\n:scheme: https\n:authority: example.com\n:path: /a?b=c\n"

// both are requests that both engines accept.
var both = []struct{ head, data, tail string }{
	{usual, "", ""},
	{usual + "content-length: 5\nx-a: 1\nx-b: 2\nx-a: 3\ncookie: a=1\ncookie: b=2\nte: trailers", "hello", ""},
	{usual + "trailer: x-sum\nhost: example.com", "hello", "x-sum: 7"},
	{":method: GET\n:scheme: https\n:path: /\nhost: example.com:8443\nexpect: 100-continue", "x", ""},
	{":method: PATCH\n:scheme: https\n:authority: [::1]\n:path: /%7Ea/%C3%A9?%2F", "x", ""},
	{usual + "x-high: \xc3\xa9\nx-empty: \nx-tab: a\tb", "x", ""},
}

func TestEnginesForHTTP2ReadTheSame(t *testing.T) {
	w := newTwo(t)
	for _, x := range both {
		for _, end := range []bool{false, true} {
			if end && strings.Contains(x.head, "content-length: 5") {
				continue
			}
			ours, std := w.ask(t, 0, fieldsOf(x.head), x.data, fieldsOf(x.tail), end), w.ask(t, 1, fieldsOf(x.head), x.data, fieldsOf(x.tail), end)
			if ours == nil || std == nil || fmt.Sprintf("%+v", ours) != fmt.Sprintf("%+v", std) {
				t.Errorf("%q: ours %+v\nstd %+v", x.head, ours, std)
			}
		}
	}
}

// FuzzEnginesForHTTP2 checks that net/http, the more lenient engine, accepts every request that h2
// accepts, and reads it the same way.
func FuzzEnginesForHTTP2(f *testing.F) {
	for _, x := range both {
		f.Add(x.head, x.data, x.tail, false)
	}
	f.Add(usual+"transfer-encoding: chunked\nconnection: close", "0\r\n\r\n", "", false)
	f.Add(usual+"content-length: 6", "hello", ":path: /x", true)
	f.Add(":method: CONNECT\n:authority: example.com:443", "", "", false)
	w := newTwo(f)
	f.Fuzz(func(t *testing.T, head, data, tail string, end bool) {
		if len(head) > 8<<10 || len(data) > 16<<10 || len(tail) > 4<<10 {
			return
		}
		fields, trailers := fieldsOf(head), fieldsOf(tail)
		ours := w.ask(t, 0, fields, data, trailers, end)
		if ours == nil {
			return
		}
		std := w.ask(t, 1, fields, data, trailers, end)
		if std == nil {
			t.Fatalf("we take %+v, net/http does not", ours)
		}
		for _, line := range std.Trailers { // net/http knows only announced trailers
			if !slices.Contains(ours.Trailers, line) {
				t.Errorf("net/http has the trailer %q, we have %q", line, ours.Trailers)
			}
		}
		ours.Trailers, std.Trailers = nil, nil
		if a, b := fmt.Sprintf("%+v", ours), fmt.Sprintf("%+v", std); a != b {
			t.Fatalf("we read    %s\nnet/http has %s", a, b)
		}
	})
}
