package h1

import (
	"encoding/binary"
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
			return wire.FieldMark{Colon: int32(i), Value: int32(v), End: int32(end)}, validValue(line[v:end])
		}
		l := nameByte[c]
		if l == 0 {
			return f, malformed("bad field name")
		}
		line[i] = l
	}
	return f, malformed("line without a colon")
}

func validValue(v []byte) error {
	for len(v) >= 32 {
		if odd(v)|odd(v[8:])|odd(v[16:])|odd(v[24:]) != 0 && holdsControl(v[:32]) {
			return malformed("bad field value")
		}
		v = v[32:]
	}
	for len(v) >= 8 {
		if odd(v) != 0 && holdsControl(v[:8]) {
			return malformed("bad field value")
		}
		v = v[8:]
	}
	if holdsControl(v) {
		return malformed("bad field value")
	}
	return nil
}

// holdsControl reports whether v contains a control other than the tab.
func holdsControl(v []byte) bool {
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// odd tests the first eight bytes of v at once, because bearer tokens and sessions are long. It is 0 if
// all are printable ASCII: neither byte-' ' nor byte+1 then has the highest bit.
func odd(v []byte) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	x := binary.LittleEndian.Uint64(v)
	return ((x - ' '*ones) | (x + ones)) & highs
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
