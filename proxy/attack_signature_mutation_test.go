package proxy_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// TestEveryMutationOfASignedRequestIsRefused mutates a signed request at every position. Each
// mutant is refused, or differs from the original only in unsigned parts.
func TestEveryMutationOfASignedRequestIsRefused(t *testing.T) {
	t.Parallel()
	j := newJudge(t, nil)
	h := signed(t, plan{
		listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}", // far faster than TLS and parsed the same way
		more:   "trusted_proxies: 127.0.0.1\n",
		routes: strings.ReplaceAll(signedRoute, "%s", j.URL),
	})
	replace := func(c byte) func(s string, i int) string {
		return func(s string, i int) string { return s[:i] + string(c) + s[i+1:] }
	}
	insert := func(more string) func(s string, i int) string {
		return func(s string, i int) string { return s[:i] + more + s[i:] }
	}
	all := []struct {
		name   string
		change func(s string, i int) string
	}{
		{"a bit", func(s string, i int) string { return replace(s[i]^1)(s, i) }},
		{"the case", func(s string, i int) string { return replace(s[i]^0x20)(s, i) }},
		{"the high bit", func(s string, i int) string { return s[:i] + string([]byte{s[i] ^ 0x80}) + s[i+1:] }},
		{"deleted", func(s string, i int) string { return s[:i] + s[i+1:] }},
		{"doubled", func(s string, i int) string { return s[:i+1] + s[i:] }},
		{"swapped with the next", func(s string, i int) string {
			if i+1 == len(s) {
				return s[1:]
			}
			return s[:i] + s[i+1:i+2] + s[i:i+1] + s[i+2:]
		}},
		{"a space before", insert(" ")}, {"a comma before", insert(",")}, {"a semicolon before", insert(";")},
		{"a line before", insert("\r\n")}, {"a line feed before", insert("\n")}, {"a zero before", insert("0")},
		{"a quote before", insert(`"`)}, {"NUL before", insert("\x00")}, {"a percent before", insert("%")},
		{"cut here", func(s string, i int) string { return s[:i] }},
	}
	passed := 0
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			h := h.in(t)
			length := 0
			for i := 0; i == 0 || i < length; i++ {
				e := errand{fields: httpsig.Lines{{Name: "User-Agent", Value: "mutant"}, {Name: "Content-Type", Value: "application/json"}, {Name: "Accept", Value: "*/*"}}}.signed(t)
				raw := strings.Replace(e.raw(), "Connection: close\r\n", "", 1)
				length = len(raw)
				mutant := m.change(raw, i)
				if h.mutated(j, e, mutant) {
					passed++
				}
				if t.Failed() {
					t.Fatalf("at %d: %q", i, mutant)
				}
			}
		})
	}
	if passed < 200 {
		t.Errorf("only %d passed: the test does not see what it is for", passed)
	}
	h.arrived(j)
}

// mutated sends a mutant of a signed request and checks the outcome. It reports whether the mutant
// was accepted.
func (h *house) mutated(j *judge, e *errand, mutant string) bool {
	h.t.Helper()
	c := h.connect(h.addrs.Plain, mutant)
	defer c.Close()
	_ = c.(*net.TCPConn).CloseWrite()
	all, _ := io.ReadAll(c)
	got := statuses(string(all))
	up := j.taken()
	first, _, _ := strings.Cut(got, " ")
	switch {
	case first != "200" && len(up) > 0:
		h.t.Errorf("answered %s, and the upstream got %s", got, targets(up))
	case first != "200":
		return false
	case len(up) != 1:
		h.t.Errorf("answered %s, and the upstream got %d requests", got, len(up))
	default:
		r := up[0]
		saw := fmt.Sprintln(r.Method, r.Target, r.get("x-forwarded-host"), r.Body, r.get("content-type"), r.get("content-digest"), r.get("x-sallyport-principal"), r.Trailers)
		want := fmt.Sprintln(e.method, e.target, "models.test", e.body, "application/json", e.digest, "key:acme", [][2]string(nil))
		if saw != want {
			h.t.Errorf("the upstream got %s, and signed was %s", saw, want)
		}
		return true
	}
	return false
}
