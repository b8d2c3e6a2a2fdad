package h2

import (
	"strconv"

	"sallyport/proxy/message"
)

// tableSize is the size of the decoder's dynamic table. A peer may use the default of 4096 before
// it receives SETTINGS, and that is enough for a bearer token.
const tableSize = 4096

// perField is the overhead that a field counts besides its bytes (RFC 9113, section 6.5.2).
const perField = 32

// memo caches the last decoded string. Clients do not index secrets (RFC 7541, section 7.1.3), and
// most do not index paths. So each request repeats its bearer token as a thousand bytes of Huffman
// code.
type memo struct {
	code []byte
	text string
}

// These limits apply to cached strings.
const (
	memoLeast = 16
	memoLong  = 128 // strings at least this long have a slot of their own
	memoMost  = 2 << 10
)

// decode decodes Huffman code, or returns the cached string.
func (b *blockReader) decode(code []byte) (string, error) {
	m := &b.seen[0]
	if len(code) >= memoLong {
		m = &b.seen[1]
	}
	if len(code) > 0 && string(m.code) == string(code) {
		return m.text, nil
	}
	var ok bool
	if b.text, ok = appendHuffman(b.text[:0], code); !ok {
		return "", badCode()
	}
	s := string(b.text)
	if cap(b.text) > memoMost {
		b.text = nil
	}
	if len(code) >= memoLeast && len(code) <= memoMost {
		m.code, m.text = append(m.code[:0], code...), s
	}
	return s, nil
}

// readInt reads an integer that begins in the low bits of the first byte (RFC 7541, section 5.1).
func readInt(p []byte, bits int) (int, []byte, error) {
	most := 1<<bits - 1
	n := int(p[0]) & most
	p = p[1:]
	if n < most {
		return n, p, nil
	}
	for shift := 0; shift < 28; shift += 7 {
		if len(p) == 0 {
			return 0, nil, errShort
		}
		c := p[0]
		p = p[1:]
		n += int(c&0x7f) << shift
		if c < 0x80 {
			return n, p, nil
		}
	}
	return 0, nil, badCode()
}

// nameByte holds the characters of a field name over HTTP/2: a token without
// capitals (RFC 9113, section 8.2.1).
var nameByte = func() (t [256]bool) {
	for c := range t {
		t[c] = message.ValidName(string([]byte{byte(c)})) && (c < 'A' || c > 'Z')
	}
	return t
}()

// validName reports whether s is a valid name of a regular field.
func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !nameByte[s[i]] {
			return false
		}
	}
	return s != ""
}

// noTable sets the dynamic table size to 0 before the first block. The encoder uses only the static
// table. So its output depends on no earlier output, needs no order and no memory, and the peer
// cannot influence it.
const noTable = 0x20

// appendStatus writes the pseudo field of an answer.
func appendStatus(b []byte, status int) []byte {
	switch status {
	case 200:
		return append(b, 0x80|8)
	case 204:
		return append(b, 0x80|9)
	case 206:
		return append(b, 0x80|10)
	case 304:
		return append(b, 0x80|11)
	case 400:
		return append(b, 0x80|12)
	case 404:
		return append(b, 0x80|13)
	case 500:
		return append(b, 0x80|14)
	}
	return strconv.AppendInt(append(b, 8, 3), int64(status), 10)
}

// appendField writes a field, which must be valid. It marks secrets as never indexed (RFC 7541,
// section 7.1.3).
func appendField(b []byte, name, value string) []byte {
	at, mark := staticName(name), byte(0)
	switch name {
	case "authorization", "cookie", "set-cookie", "proxy-authorization":
		mark = 0x10
	}
	if at > 0 {
		b = appendInt(b, mark, 4, at)
	} else {
		b = append(appendInt(append(b, mark), 0, 7, len(name)), name...)
	}
	return append(appendInt(b, 0, 7, len(value)), value...)
}

// appendLength writes the field content-length.
func appendLength(b []byte, n int64) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], n, 10)
	return append(append(b, 0x0f, 28-15, byte(len(d))), d...)
}

// appendInt writes an integer after the mark in the high bits of its first byte (RFC 7541, section
// 5.1).
func appendInt(b []byte, mark byte, bits, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(b, mark|byte(n))
	}
	b = append(b, mark|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// staticName returns the index of a name in the static table (RFC 7541, appendix A); 0 if absent.
func staticName(name string) int {
	switch name {
	case ":authority":
		return 1
	case ":method":
		return 2
	case ":path":
		return 4
	case ":scheme":
		return 6
	case ":status":
		return 8
	case "accept-charset":
		return 15
	case "accept-encoding":
		return 16
	case "accept-language":
		return 17
	case "accept-ranges":
		return 18
	case "accept":
		return 19
	case "access-control-allow-origin":
		return 20
	case "age":
		return 21
	case "allow":
		return 22
	case "authorization":
		return 23
	case "cache-control":
		return 24
	case "content-disposition":
		return 25
	case "content-encoding":
		return 26
	case "content-language":
		return 27
	case "content-length":
		return 28
	case "content-location":
		return 29
	case "content-range":
		return 30
	case "content-type":
		return 31
	case "cookie":
		return 32
	case "date":
		return 33
	case "etag":
		return 34
	case "expect":
		return 35
	case "expires":
		return 36
	case "from":
		return 37
	case "host":
		return 38
	case "if-match":
		return 39
	case "if-modified-since":
		return 40
	case "if-none-match":
		return 41
	case "if-range":
		return 42
	case "if-unmodified-since":
		return 43
	case "last-modified":
		return 44
	case "link":
		return 45
	case "location":
		return 46
	case "max-forwards":
		return 47
	case "proxy-authenticate":
		return 48
	case "proxy-authorization":
		return 49
	case "range":
		return 50
	case "referer":
		return 51
	case "refresh":
		return 52
	case "retry-after":
		return 53
	case "server":
		return 54
	case "set-cookie":
		return 55
	case "strict-transport-security":
		return 56
	case "transfer-encoding":
		return 57
	case "user-agent":
		return 58
	case "vary":
		return 59
	case "via":
		return 60
	case "www-authenticate":
		return 61
	}
	return 0
}
