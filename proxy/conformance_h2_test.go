package proxy_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// send sends the frames of a row on stream 1 and returns the answer.
func (x *framing) send(f *frames) string {
	lines := make([]string, len(x.lines))
	for i := range lines {
		lines[i] = strings.ReplaceAll(x.lines[i], "{p}", "/p")
	}
	f.headers(1, x.data == nil && x.tail == nil, lines...)
	for i, d := range x.data {
		f.data(1, x.tail == nil && i == len(x.data)-1, d)
	}
	if x.tail != nil {
		f.headers(1, true, x.tail...)
	}
	return f.wait(1)
}

// The page on conformance lists all HTTP/2 requests that the gateway refuses although Go's server
// accepts them.
func TestConformancePageOfHTTP2(t *testing.T) {
	t.Parallel()
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("")})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	server.EnableHTTP2, server.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	trust := &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com", NextProtos: []string{"h2"}}

	page := map[string]pageRow{}
	for _, row := range pageRows(t, "frames") {
		page[strings.Trim(row["frames"], "`")] = row
	}
	for _, x := range framings("authorization: Bearer " + h.token()) {
		c, err := tls.Dial("tcp", server.Listener.Addr().String(), trust)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		got := x.send(h.framesOn(c))
		c.Close()
		row, told := page[x.name]
		delete(page, x.name)
		f := h.frames()
		own := x.send(f)
		f.c.Close()
		switch taken := strings.HasPrefix(got, "2") && own != "404"; {
		case taken && !told:
			t.Errorf("Go's server takes %q, which is %s here: the page does not say so", x.name, own)
		case told && (row["sallyport"] != own || row["Go"] != got):
			t.Errorf("%s: the page says %s here and %s of Go; it is %s and %s", x.name, row["sallyport"], row["Go"], own, got)
		}
	}
	for name := range page {
		t.Errorf("no request of HTTP/2 is about %q", name)
	}
	if up := j.taken(); len(up) > 0 {
		t.Errorf("the upstream saw %s", targets(up))
	}
	j.sound(t)
}
