package h2

import (
	"errors"

	"sallyport/proxy/message"
)

// These limits of a header block end its connection. A head that is too large costs only its stream, and
// is decoded to its end without being stored, because a proxy in front may send the requests of many
// callers over one connection. But that must not go on for ever (CVE-2023-45288, CVE-2024-27316,
// CVE-2024-28182, CVE-2024-30255). A browser keeps up to 180 cookies of 4 KiB for a host. Envoy reads on
// for 512 frames; Go and nghttp2 end the connection soon after their limits.
const (
	// maxBlock limits the bytes of a block as sent; twice the size of a head if that is larger.
	maxBlock = 1 << 20
	// maxFragments limits the frames of a block: 1 MiB has 64 of full size.
	maxFragments = 128
)

// maxCode is the longest string, as sent, that the table can hold: no code has more than 30 bits.
const maxCode = tableSize * 30 / 8

// keptFields limits the fields for which an idle connection keeps room.
const keptFields = 256

// blockReader decodes header blocks within limits. It does not keep the fields of a block that
// exceeds them, but decodes the block to its end to keep its table in sync with the peer's.
type blockReader struct {
	table table

	bytes, limit int // limits of the current block: decoded bytes, and fields

	fields    message.Fields // of the current block, with pseudo fields; until release
	decoded   int            // their size
	rows      int            // their number; all cookies count as one
	cookie    bool           // there is a cookie among them
	raw       int            // bytes of the block so far
	fragments int
	updates   int    // table size updates in the block
	begun     bool   // a field has been read
	rest      []byte // an incomplete field at the end of a fragment
	skip      int    // how much of a string that is skipped is still to come
	skipValue bool   // a value follows the skipped name, and is skipped too
	excess    error  // why the block is too large: one of package message's

	text []byte // buffer for decoding strings
	seen [2]memo
}

func newBlockReader() *blockReader { return &blockReader{table: table{most: tableSize}} }

// begin begins a block of at most this many decoded bytes and fields.
func (b *blockReader) begin(bytes, rows int) {
	b.release()
	b.bytes, b.limit = bytes, rows
	b.decoded, b.rows, b.cookie, b.excess = 0, 0, false, nil
	b.raw, b.fragments, b.updates, b.begun = 0, 0, 0, false
	b.rest, b.skip, b.skipValue = nil, 0, false
}

// release forgets the fields.
func (b *blockReader) release() {
	clear(b.fields)
	b.fields = b.fields[:0]
	if cap(b.fields) > keptFields {
		b.fields = nil
	}
}

// add decodes a fragment. An error ends the connection: encoder and decoder tables are out
// of sync, or the block is endless.
func (b *blockReader) add(fragment []byte) error {
	b.fragments++
	b.raw += len(fragment)
	if b.fragments > maxFragments || b.raw > max(maxBlock, 2*b.bytes) {
		return broken(enhanceYourCalm, "header block is too large")
	}
	p, copied := fragment, len(b.rest) > 0
	if copied {
		p = append(b.rest, fragment...)
	}
	for len(p) > 0 {
		left, err := b.next(p)
		if err == errShort {
			if !copied {
				p = append([]byte(nil), p...)
			}
			b.rest = p
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

// next reads a field, or skips a part of one, and returns the rest of p.
func (b *blockReader) next(p []byte) ([]byte, error) {
	switch {
	case b.skip > 0:
		n := min(b.skip, len(p))
		b.skip -= n
		return p[n:], nil
	case b.skipValue:
		n, _, p, err := readLength(p)
		if err == nil {
			b.skip, b.skipValue = n, false
		}
		return p, err
	}
	return b.field(p)
}

// end ends the block.
func (b *blockReader) end() error {
	if len(b.rest) > 0 || b.skip > 0 || b.skipValue {
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

// literal reads a field that is not indexed as a whole; only its name may be. It decodes no string
// before the whole field has arrived.
func (b *blockReader) literal(p []byte, bits int, index bool) ([]byte, error) {
	var f message.Field
	var name []byte
	var nameCoded bool
	i, p, err := readInt(p, bits)
	if err != nil {
		return nil, err
	}
	if i > 0 {
		named, ok := b.table.at(i)
		if !ok {
			return nil, badCode()
		}
		f.Name = named.Name
	} else {
		var n int
		if n, nameCoded, p, err = readLength(p); err != nil {
			return nil, err
		}
		switch {
		case b.skips(n, index):
			b.skip, b.skipValue = n, true
			return p, nil
		case n > len(p):
			return nil, errShort
		}
		name, p = p[:n], p[n:]
	}
	n, coded, p, err := readLength(p)
	switch {
	case err != nil:
		return nil, err
	case b.skips(n, index):
		b.skip = n
		return p, nil
	case n > len(p):
		return nil, errShort
	}
	if i == 0 {
		if f.Name, err = b.string(name, nameCoded); err != nil {
			return nil, err
		}
	}
	if f.Value, err = b.string(p[:n], coded); err != nil {
		return nil, err
	}
	if index {
		b.table.add(f)
	}
	b.keep(f)
	return p[n:], nil
}

// skips reports whether a field with a string of n bytes, as sent, is skipped: the block is too large, and
// the table cannot hold the field.
func (b *blockReader) skips(n int, index bool) bool {
	if n > b.bytes && b.excess == nil {
		b.excess = message.ErrHeadTooLarge
	}
	if b.excess == nil || index && n <= maxCode {
		return false
	}
	b.begun = true
	if index {
		b.table.shrink(0) // as for every field that the table cannot hold (RFC 7541, section 4.4)
	}
	return true
}

// keep adds a field to the block. Cookies count as one field, because clients may send each in a field
// of its own (RFC 9113, section 8.2.3), and more of them than there may be fields.
func (b *blockReader) keep(f message.Field) {
	b.begun = true
	if b.excess != nil {
		return
	}
	if b.decoded += fieldSize(&f); b.decoded > b.bytes {
		b.excess = message.ErrHeadTooLarge
		return
	}
	if cookie := f.Name == "cookie"; !cookie || !b.cookie {
		b.cookie = b.cookie || cookie
		if b.rows == b.limit {
			b.excess = message.ErrTooManyLines
			return
		}
		b.rows++
	}
	b.fields = append(b.fields, f)
}

// readLength reads what precedes a string (RFC 7541, section 5.2): its length, and whether it is in
// Huffman code.
func readLength(p []byte) (n int, coded bool, rest []byte, err error) {
	if len(p) == 0 {
		return 0, false, nil, errShort
	}
	n, rest, err = readInt(p, 7)
	return n, p[0]&0x80 != 0, rest, err
}

// string returns the text of a string literal.
func (b *blockReader) string(code []byte, coded bool) (string, error) {
	if !coded {
		return string(code), nil
	}
	return b.decode(code)
}
