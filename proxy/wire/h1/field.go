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
	// Check eight bytes at a time while none can be a control: a bearer token has a thousand.
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for len(v) >= 8 {
		x := binary.LittleEndian.Uint64(v)
		del := x ^ 0x7f*ones
		if ((x-' '*ones)&^x|(del-ones)&^del)&highs != 0 {
			break
		}
		v = v[8:]
	}
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return malformed("bad field value")
		}
	}
	return nil
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
