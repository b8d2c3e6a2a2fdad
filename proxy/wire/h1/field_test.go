package h1

import (
	"strings"
	"testing"
)

// A control in the value of a line is refused wherever it stands; white space around the value is not.
func TestControlsInFieldLinesAreRefused(t *testing.T) {
	value := strings.Repeat("a", 75)
	for at := range value {
		for c := range 256 {
			b := byte(c)
			line := []byte("X-Name: \t" + value[:at] + string([]byte{b}) + value[at+1:] + " ")
			control := b < ' ' && b != '\t' || b == 0x7f
			if f, err := settleLine(line); (err != nil) != control || err == nil && (f.End > int32(len(line)) || string(line[:f.Colon]) != "x-name") {
				t.Fatalf("%q: %v, %+v", line, err, f)
			}
		}
	}
}
