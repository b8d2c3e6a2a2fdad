package h1

import (
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// settleLine validates one field line and makes its name lower case in place. It returns the
// positions of name and value.
func settleLine(line []byte) (f wire.FieldMark, err error) {
	for i, c := range line {
		if c == ':' && i > 0 {
			v, end := i+1, len(line)
			for v < end && (line[v] == ' ' || line[v] == '\t') {
				v++
			}
			for v < end && (line[end-1] == ' ' || line[end-1] == '\t') {
				end--
			}
			if message.HoldsControl(line[v:end]) {
				return f, malformed("bad field value")
			}
			return wire.FieldMark{Colon: int32(i), Value: int32(v), End: int32(end)}, nil
		}
		l := nameByte[c]
		if l == 0 {
			return f, malformed("bad field name")
		}
		line[i] = l
	}
	return f, malformed("line without a colon")
}

// nameByte maps field name characters to lower case, and all other bytes to 0.
var nameByte = func() (t [256]byte) {
	for c := range t {
		if s := string([]byte{byte(c)}); message.ValidName(s) {
			t[c] = strings.ToLower(s)[0]
		}
	}
	return t
}()
