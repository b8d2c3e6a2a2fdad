package message_test

import (
	"errors"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// Every byte at every position: the check tests eight bytes at a time.
func TestValidValueFindsControlsAtEveryPosition(t *testing.T) {
	for c := range 256 {
		want := c >= ' ' && c != 0x7f || c == '\t'
		for at := range 20 {
			b := []byte(strings.Repeat("a", 20))
			b[at] = byte(c)
			if at == 0 || at == len(b)-1 {
				want = want && c != ' ' && c != '\t'
			} else {
				want = c >= ' ' && c != 0x7f || c == '\t'
			}
			if got := message.ValidValue(string(b)); got != want {
				t.Errorf("byte %#x at %d: %v; want %v", c, at, got, want)
			}
		}
	}
	if !message.ValidValue("") {
		t.Error("the empty value is refused")
	}
}

// Non-ASCII letters that Unicode folds onto ASCII letters are different letters.
func TestEqualFoldIgnoresTheCaseOfASCIIOnly(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"chunked", "Chunked", true}, {"chunked", "chun\u212aed", false}, {"close", "clo\u017fe", false}, {"a", "ab", false}, {"", "", true},
	} {
		if got := message.EqualFold(c.a, c.b); got != c.want {
			t.Errorf("EqualFold(%q, %q) is %v", c.a, c.b, got)
		}
	}
	h := message.Head{Version: message.HTTP11, Method: "GET", Scheme: "https", Authority: "a", Target: "/", Fields: message.Fields{{Name: "connection", Value: "Upgrade"}, {Name: "upgrade", Value: "Websoc\u212aet"}}}
	if err := h.Settle(); err != nil || h.Upgrade != "websoc\u212aet" {
		t.Errorf("Upgrade is %q, %v", h.Upgrade, err)
	}
	h.Fields = message.Fields{{Name: "connection", Value: "\u212aeep-alive"}}
	if err := h.Settle(); !errors.Is(err, message.ErrConnection) {
		t.Errorf("Connection names another field than keep-alive: %v", err)
	}
}
