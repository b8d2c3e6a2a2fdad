package h2

import (
	"errors"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
)

// tableSize is that of the dynamic table for what we read: the size that a peer may
// use before it knows better, and enough for a bearer token.
const tableSize = 4096

// perField is what a field counts besides its bytes (RFC 9113, section 6.5.2).
const perField = 32

// maxFragments is how many frames a header block may come in.
const maxFragments = 64

// blockReader decodes header blocks within bounds. The fields of a block that
// passes them are not kept, but the block is decoded to its end, so that the table
// stays in step with the peer's.
type blockReader struct {
	hpack *hpack.Decoder

	bytes, rows int // the bounds of the current block

	fields    message.Fields // of the current block, pseudo fields too; overwritten by the next
	decoded   int            // their size
	raw       int            // bytes of the block so far
	fragments int
	excess    error // why the block is too large: one of package message's
}

func newBlockReader() *blockReader {
	b := &blockReader{}
	b.hpack = hpack.NewDecoder(tableSize, b.take)
	return b
}

// begin begins a block of at most so many bytes, decoded, and rows.
func (b *blockReader) begin(bytes, rows int) {
	clear(b.fields)
	b.fields = b.fields[:0]
	b.bytes, b.rows, b.decoded, b.raw, b.fragments, b.excess = bytes, rows, 0, 0, 0, nil
	b.hpack.SetEmitEnabled(true)
	b.hpack.SetMaxStringLength(bytes)
}

func (b *blockReader) take(f hpack.HeaderField) {
	b.decoded += len(f.Name) + len(f.Value) + perField
	switch {
	case b.decoded > b.bytes:
		b.excess = message.ErrHeadTooLarge
	case len(b.fields) == b.rows:
		b.excess = message.ErrTooManyLines
	default:
		b.fields = append(b.fields, message.Field{Name: f.Name, Value: f.Value})
		return
	}
	b.hpack.SetEmitEnabled(false)
}

// add decodes a fragment. Its error ends the connection: the tables have parted.
func (b *blockReader) add(fragment []byte) error {
	b.fragments++
	b.raw += len(fragment)
	if b.fragments > maxFragments || b.raw > b.bytes {
		return broken(enhanceYourCalm, "header block is too large")
	}
	if _, err := b.hpack.Write(fragment); err != nil {
		if errors.Is(err, hpack.ErrStringLength) {
			return broken(enhanceYourCalm, "field is too large")
		}
		return broken(compressionError, "header block cannot be decoded")
	}
	return nil
}

// end ends the block.
func (b *blockReader) end() error {
	if b.hpack.Close() != nil {
		return broken(compressionError, "header block is cut off")
	}
	return nil
}

// nameByte holds the characters of a field name over HTTP/2: a token without
// capitals (RFC 9113, section 8.2.1).
var nameByte = func() (t [256]bool) {
	for c := range t {
		t[c] = message.ValidName(string([]byte{byte(c)})) && (c < 'A' || c > 'Z')
	}
	return t
}()

// validName says whether s is a field name, and no pseudo field's.
func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !nameByte[s[i]] {
			return false
		}
	}
	return s != ""
}

// noTable is what a sender says before its first block that refers to no dynamic
// table: that it has none. We write fields by the static table alone. What is
// written depends then on nothing that was written before, needs no order and no
// memory, and a peer can change nothing about it.
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

// appendField writes a field, which must be valid. Secrets are marked as never to be
// indexed (RFC 7541, section 7.1.3).
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

// appendInt writes an integer behind the mark in the upper bits of its first byte
// (RFC 7541, section 5.1).
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

// staticName is the index of a name in the static table (RFC 7541, appendix A), 0 if
// it is not there.
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
