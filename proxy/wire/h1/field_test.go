package h1

import (
	"strings"
	"testing"
)

// plainValidValue is validValue a byte at a time.
func plainValidValue(v []byte) bool {
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// Every byte at every position, in values that the check reads in words of several sizes.
func TestValidValueFindsControlsAtEveryPosition(t *testing.T) {
	for _, length := range []int{1, 7, 8, 20, 31, 32, 33, 75} {
		for at := range length {
			for c := range 256 {
				for _, beside := range []string{"a", "\t", "é", "~"} {
					b := []byte(strings.Repeat("a", length))
					copy(b[min(at+1, length-1):], beside)
					b[at] = byte(c)
					if got, want := validValue(b) == nil, plainValidValue(b); got != want {
						t.Fatalf("%q: %v; want %v", b, got, want)
					}
				}
			}
		}
	}
}

// FuzzValidValue compares the check in words with the one in bytes.
func FuzzValidValue(f *testing.F) {
	f.Add([]byte(strings.Repeat("a", 40) + "\x7f"))
	f.Add([]byte(" é\t" + strings.Repeat("\xff", 33) + "\x1f"))
	f.Fuzz(func(t *testing.T, v []byte) {
		if got, want := validValue(v) == nil, plainValidValue(v); got != want {
			t.Errorf("%q: %v; want %v", v, got, want)
		}
	})
}
