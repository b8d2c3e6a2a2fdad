package h1

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// net/http is more lenient and must read every accepted request the same way. The size of the
// pieces must not matter.
func FuzzRequestHead(f *testing.F) {
	for _, c := range requests() {
		if len(c.raw) < 2000 {
			f.Add(c.raw, uint8(3))
		}
	}
	for _, absolute := range []string{
		"GET http://a HTTP/1.0\r\n\r\n",
		"GET http://a HTTP/1.0\r\nHost:\r\n\r\n",
		"GET http://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
	} {
		f.Add(absolute, uint8(3))
	}
	f.Fuzz(func(t *testing.T, raw string, step uint8) {
		got, _ := listen(raw, 1<<20)
		other, _ := listen(raw, max(1, int(step)))
		if len(other) != len(got) {
			t.Fatalf("in one piece %v, in many %v", got, other)
		}
		in := bufio.NewReader(strings.NewReader(raw))
		for i := range got {
			failed := got[i].err != nil && other[i].err != nil // at the same place; the fault found first may differ
			if got[i].String() != other[i].String() && !failed {
				t.Fatalf("in one piece %s, in many %s", got[i], other[i])
			}
			if got[i].head.Fault != nil || got[i].err != nil {
				return
			}
			if !compareWithStandard(t, in, got[i]) {
				return
			}
		}
	})
}

// compareWithStandard parses the same request with net/http. It returns false if the server refuses
// the head and so ends the connection; net/http may then read the bytes differently.
func compareWithStandard(t *testing.T, in *bufio.Reader, got heard) bool {
	t.Helper()
	h := got.head
	settled := h
	settled.Fields = slices.Clone(h.Fields)
	if settled.Settle() != nil {
		_, _ = http.ReadRequest(in) // it must not panic, no more
		return false
	}
	std, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("we accept %s, net/http says %v", got, err)
	}
	// net/http takes the host of an absolute target where there is one; we take the Host field, or the
	// target's where HTTP/1.0 sends no field, and refuse two that differ. So the canonical forms must
	// be equal, not the bytes.
	host, _, err := message.CanonicalAuthority(std.Host, h.Scheme)
	if std.Method != h.Method || std.RequestURI != h.Target || std.ContentLength != h.ContentLength ||
		host != settled.Authority && std.Host != h.Authority {
		t.Fatalf("we read %s for %s, net/http %s %s %d for %s (%v)", got, settled.Authority, std.Method, std.RequestURI, std.ContentLength, std.Host, err)
	}
	body, err := io.ReadAll(std.Body)
	if err != nil || string(body) != got.body {
		t.Fatalf("content is %q, net/http reads %q, %v", got.body, body, err)
	}
	for _, f := range h.Fields {
		if f.Name != strings.ToLower(f.Name) || !message.ValidName(f.Name) || !message.ValidValue(f.Value) {
			t.Fatalf("field %q: %q", f.Name, f.Value)
		}
		values := std.Header.Values(f.Name)
		if f.Name != "transfer-encoding" && f.Name != "trailer" && !strings.Contains(strings.Join(values, "\x00"), f.Value) {
			t.Fatalf("field %q is %q, net/http reads %q", f.Name, f.Value, values)
		}
	}
	return true
}
