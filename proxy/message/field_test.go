package message_test

import (
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// Every byte, at every place of a value: the check looks at eight at a time.
func TestValidValue(t *testing.T) {
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
