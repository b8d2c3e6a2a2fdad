package message_test

import (
	"errors"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// plainValidValue is ValidValue a byte at a time.
func plainValidValue(s string) bool {
	for i, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f || (i == 0 || i == len(s)-1) && (c == ' ' || c == '\t') {
			return false
		}
	}
	return true
}

// Every byte at every position, in values that the check reads in words of several sizes.
func TestValidValueFindsControlsAtEveryPosition(t *testing.T) {
	for _, length := range []int{0, 1, 7, 8, 20, 31, 32, 33, 75} {
		for at := range length {
			for c := range 256 {
				for _, beside := range []string{"a", "\t", "é", "~"} {
					b := []byte(strings.Repeat("a", length))
					copy(b[min(at+1, length-1):], beside)
					b[at] = byte(c)
					if got, want := message.ValidValue(string(b)), plainValidValue(string(b)); got != want {
						t.Fatalf("%q: %v; want %v", b, got, want)
					}
					if message.HoldsControl(b) != message.HoldsControl(string(b)) {
						t.Fatalf("%q: the bytes are judged otherwise than the text", b)
					}
				}
			}
		}
	}
	if !message.ValidValue("") {
		t.Error("the empty value is refused")
	}
}

// BenchmarkHoldsControl checks what both engines check: a length of a bearer token.
func BenchmarkHoldsControl(b *testing.B) {
	text := strings.Repeat("x", 800)
	bytes, found := []byte(text), false
	b.Run("text", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			found = found || message.HoldsControl(text)
		}
	})
	b.Run("bytes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			found = found || message.HoldsControl(bytes)
		}
	})
	if found {
		b.Error("a control was found")
	}
}

// FuzzValidValue compares the check in words with the one in bytes.
func FuzzValidValue(f *testing.F) {
	f.Add(strings.Repeat("a", 40) + "\x7f")
	f.Add(" é\t" + strings.Repeat("\xff", 33) + "\x1f")
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := message.ValidValue(s), plainValidValue(s); got != want {
			t.Errorf("%q: %v; want %v", s, got, want)
		}
	})
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
