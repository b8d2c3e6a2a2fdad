package h1

import (
	"encoding/binary"
	"strings"

	"sallyport/proxy/message"
)

// settleLine checks one field line and makes its name lower case in place.
func settleLine(line []byte) error {
	for i, c := range line {
		if c == ':' && i > 0 {
			return validValue(line[i+1:])
		}
		l := nameByte[c]
		if l == 0 {
			return malformed("bad field name")
		}
		line[i] = l
	}
	return malformed("line without a colon")
}

func validValue(v []byte) error {
	// Eight bytes at once, while none of them could be a control: a bearer token
	// has a thousand.
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

// nameByte maps the characters of a field name to lower case, all others to 0.
var nameByte = func() (t [256]byte) {
	for c := range t {
		if s := string([]byte{byte(c)}); message.ValidName(s) {
			t[c] = strings.ToLower(s)[0]
		}
	}
	return t
}()

// cutLine takes the first line off a block.
func cutLine(block string) (line, rest string) {
	i := strings.IndexByte(block, '\n')
	return block[:i-1], block[i+1:]
}

// cutField takes a settled line apart.
func cutField(line string) message.Field {
	i := strings.IndexByte(line, ':')
	return message.Field{Name: line[:i], Value: trimBlank(line[i+1:])}
}

// trimBlank takes the white space off both ends of a value.
func trimBlank(v string) string {
	for v != "" && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for v != "" && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// fields reads the lines of a settled block, which ends in an empty line.
func fields(block string, lines int) message.Fields {
	if lines == 0 {
		return nil
	}
	all := make(message.Fields, lines, lines+12) // room for what the gateway adds
	for i := range all {
		var line string
		line, block = cutLine(block)
		all[i] = cutField(line)
	}
	return all
}
