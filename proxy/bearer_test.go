package proxy_test

import (
	"strings"
	"testing"
)

// TestEmptyBearerIsRefusedAlike checks that an Authorization field without a token is refused for
// the same reason over HTTP/1.1, whose readers drop blanks at the end of a value, and HTTP/2.
func TestEmptyBearerIsRefusedAlike(t *testing.T) {
	h := build(t, plan{})
	for _, value := range []string{"Bearer", "Bearer ", "Bearer \t ", "\tBearer "} {
		over1 := h.tell("GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: " + value + "\r\n\r\n")
		f := h.frames()
		f.headers(1, true, ":method: GET", ":scheme: https", ":authority: models.test", ":path: /", "authorization: "+value)
		over2 := f.wait(1)
		if statuses(over1) != "401" || over2 != "401" {
			t.Errorf("%q: %s over HTTP/1.1, %s over HTTP/2; want 401", value, statuses(over1), over2)
		}
		for _, answer := range []string{over1, f.got[1].body} {
			if !strings.Contains(answer, `"reason":"bad_credential"`) {
				t.Errorf("%q: got %s", value, answer)
			}
		}
	}
	f := h.frames() // a blank at the end of any other field is malformed still
	f.headers(1, true, h.usual("GET", "/", "x-other: a ")...)
	if got := f.wait(1); got != "400" {
		t.Errorf("another field with a blank at its end: %s, want 400", got)
	}
	if n := h.model.hits.Load(); n > 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}
