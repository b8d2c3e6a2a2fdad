package h2

import (
	"errors"
	"strconv"

	"sallyport/proxy/message"
)

// tableSize is the size of the decoder's dynamic table. A peer may use the default of 4096 before
// it receives SETTINGS, and that is enough for a bearer token.
const tableSize = 4096

// perField is the overhead that a field counts besides its bytes (RFC 9113, section 6.5.2).
const perField = 32

// maxFragments limits the frames of a header block.
const maxFragments = 64

// blockReader decodes header blocks within limits. It does not keep the fields of a block that
// exceeds them, but decodes the block to its end to keep its table in sync with the peer's.
type blockReader struct {
	table table

	bytes, limit int // limits of the current block: decoded bytes, and fields

	fields    message.Fields // of the current block, with pseudo fields; overwritten by the next
	decoded   int            // their size
	raw       int            // bytes of the block so far
	fragments int
	updates   int    // table size updates in the block
	begun     bool   // a field has been read
	rest      []byte // an incomplete field at the end of a fragment
	excess    error  // why the block is too large: one of package message's

	text []byte // buffer for decoding strings
	seen [2]memo
}

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

func newBlockReader() *blockReader { return &blockReader{table: table{most: tableSize}} }

// begin begins a block of at most this many decoded bytes and fields.
func (b *blockReader) begin(bytes, rows int) {
	clear(b.fields)
	b.fields = b.fields[:0]
	b.bytes, b.limit, b.decoded, b.raw, b.fragments, b.updates, b.begun, b.rest, b.excess = bytes, rows, 0, 0, 0, 0, false, nil, nil
}

// add decodes a fragment. An error ends the connection: encoder and decoder tables are out
// of sync.
func (b *blockReader) add(fragment []byte) error {
	b.fragments++
	b.raw += len(fragment)
	if b.fragments > maxFragments || b.raw > b.bytes {
		return broken(enhanceYourCalm, "header block is too large")
	}
	p := fragment
	if len(b.rest) > 0 {
		p = append(b.rest, fragment...)
	}
	for len(p) > 0 {
		left, err := b.field(p)
		if err == errShort {
			b.rest = append([]byte(nil), p...)
			return nil
		}
		if err != nil {
			return err
		}
		p = left
	}
	b.rest = nil
	return nil
}

// end ends the block.
func (b *blockReader) end() error {
	if len(b.rest) > 0 {
		return broken(compressionError, "header block is cut off")
	}
	return nil
}

var errShort = errors.New("the rest is to come")

func badCode() error { return broken(compressionError, "header block cannot be decoded") }

// field reads one representation (RFC 7541, section 6) and returns the rest of p.
func (b *blockReader) field(p []byte) ([]byte, error) {
	switch c := p[0]; {
	case c&0x80 != 0:
		i, p, err := readInt(p, 7)
		if err != nil {
			return nil, err
		}
		f, ok := b.table.at(i)
		if !ok {
			return nil, badCode()
		}
		b.keep(*f)
		return p, nil
	case c&0xc0 == 0x40:
		return b.literal(p, 6, true)
	case c&0xe0 == 0x20:
		n, p, err := readInt(p, 5)
		if err != nil {
			return nil, err
		}
		// At most two are allowed: the smallest size since the last block, and the current one.
		if b.updates++; b.begun || b.updates > 2 || n > tableSize {
			return nil, badCode()
		}
		b.table.most = n
		b.table.shrink(n)
		return p, nil
	}
	return b.literal(p, 4, false)
}

// literal reads a field that is not indexed as a whole; only its name may be.
func (b *blockReader) literal(p []byte, bits int, index bool) ([]byte, error) {
	var f message.Field
	i, p, err := readInt(p, bits)
	if err != nil {
		return nil, err
	}
	wanted := index || b.excess == nil
	if i > 0 {
		named, ok := b.table.at(i)
		if !ok {
			return nil, badCode()
		}
		f.Name = named.Name
	} else if f.Name, p, err = b.string(p, wanted); err != nil {
		return nil, err
	}
	if f.Value, p, err = b.string(p, wanted); err != nil {
		return nil, err
	}
	if index {
		b.table.add(f)
	}
	b.keep(f)
	return p, nil
}

// keep adds a field to the block.
func (b *blockReader) keep(f message.Field) {
	b.begun = true
	if b.excess != nil {
		return
	}
	b.decoded += fieldSize(&f)
	switch {
	case b.decoded > b.bytes:
		b.excess = message.ErrHeadTooLarge
	case len(b.fields) == b.limit:
		b.excess = message.ErrTooManyLines
	default:
		b.fields = append(b.fields, f)
	}
}

// string reads a string literal (RFC 7541, section 5.2). It skips one that is not wanted.
func (b *blockReader) string(p []byte, wanted bool) (string, []byte, error) {
	if len(p) == 0 {
		return "", nil, errShort
	}
	coded := p[0]&0x80 != 0
	n, p, err := readInt(p, 7)
	switch {
	case err != nil:
		return "", nil, err
	case n > b.bytes:
		return "", nil, broken(enhanceYourCalm, "field is too large")
	case n > len(p):
		return "", nil, errShort
	}
	code, p := p[:n], p[n:]
	switch {
	case !wanted:
		return "", p, nil
	case !coded:
		return string(code), p, nil
	}
	s, err := b.decode(code)
	return s, p, err
}

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
