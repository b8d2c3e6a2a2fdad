package h1

import (
	"bytes"
	"io"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// reader reads a connection through a pooled buffer.
type reader struct {
	conn   io.Reader
	bufs   *wire.Buffers
	before func() error // runs before each read of the connection, to set its deadline

	buf  *wire.Buffer
	r, w int // buf.B[r:w] is unread
}

func (in *reader) buffered() int { return in.w - in.r }

func (in *reader) bytes() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.B[in.r:in.w]
}

// unread puts a byte back in front of the input; the buffer must be empty.
func (in *reader) unread(b byte) {
	if in.buf == nil {
		in.buf = in.bufs.Get(wire.SmallBuffer)
		in.buf.B = in.buf.B[:cap(in.buf.B)]
	}
	in.buf.B[0] = b
	in.r, in.w = 0, 1
}

// release returns the buffer to the pool and discards its contents.
func (in *reader) release() {
	in.bufs.Put(in.buf)
	in.buf, in.r, in.w = nil, 0, 0
}

// fill reads more into the buffer, and enlarges a full one. Callers limit what they wait for to
// less than the largest buffer.
func (in *reader) fill() error {
	switch {
	case in.buf == nil:
		in.buf = in.bufs.Get(wire.SmallBuffer)
		in.buf.B = in.buf.B[:cap(in.buf.B)]
	case in.r == in.w:
		in.r, in.w = 0, 0
	case in.w < len(in.buf.B):
	case in.r > 0:
		in.w = copy(in.buf.B, in.buf.B[in.r:in.w])
		in.r = 0
	default:
		in.grow()
	}
	if err := in.before(); err != nil {
		return err
	}
	n, err := in.conn.Read(in.buf.B[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

func (in *reader) grow() {
	old := in.buf
	in.buf = in.bufs.Get(max(wire.LargeBuffer, 2*len(old.B)))
	in.buf.B = in.buf.B[:cap(in.buf.B)]
	in.w = copy(in.buf.B, old.B[in.r:in.w])
	in.r = 0
	in.bufs.Put(old)
}

// direct is the smallest read that bypasses the buffer.
const direct = 4 << 10

// read returns buffered bytes, or else reads the connection.
func (in *reader) read(p []byte) (int, error) {
	if in.buffered() == 0 {
		if len(p) >= direct {
			if err := in.before(); err != nil {
				return 0, err
			}
			n, err := in.conn.Read(p)
			if n > 0 {
				err = nil // the next read returns it again
			}
			return n, err
		}
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buf.B[in.r:in.w])
	in.r += n
	return n, nil
}

// line reads a line of at most limit bytes and returns it without its CRLF. It is
// valid until the next read.
func (in *reader) line(limit int) ([]byte, error) {
	for seen := 0; ; {
		b := in.bytes()
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			i += seen
			if i == 0 || b[i-1] != '\r' {
				return nil, malformed("line does not end in CRLF")
			}
			if i+1 > limit {
				return nil, malformed("line is too long")
			}
			in.r += i + 1
			return b[:i-1], nil
		}
		if seen = len(b); seen >= limit {
			return nil, malformed("line is too long")
		}
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
}

// block is a head or trailer section as read: lines that end in CRLF, then an empty line.
type block struct {
	bytes []byte
	start int              // the length of the start line; 0 if there is none
	lines int              // number of lines, without the empty one
	rows  []wire.FieldMark // positions of the fields
}

// fields converts the rows of a block, whose text is given, to fields.
func (k *block) fields(text string, into message.Fields) message.Fields {
	for i := range k.rows {
		f := &k.rows[i]
		into = append(into, message.Field{Name: text[f.Name:f.Colon], Value: text[f.Value:f.End]})
	}
	return into
}

// block reads lines up to and including the first empty one, at most limit bytes and rows field
// lines. It checks names and values and makes names lower case in place. With start, the first line
// is a start line, which the caller parses. The block is valid until the next read.
func (in *reader) block(limit, rows int, start bool) (k block, err error) {
	if start {
		rows++
	}
	var found []wire.FieldMark
	pos, scanned := 0, 0 // start of the current line; how far its end was searched for
	for {
		b := in.bytes()
		i := bytes.IndexByte(b[scanned:], '\n')
		if i < 0 {
			if scanned = len(b); scanned >= limit {
				return k, tooLong
			}
			if err := in.fill(); err != nil {
				return k, err
			}
			continue
		}
		end := scanned + i
		if end == pos || b[end-1] != '\r' {
			return k, malformed("line does not end in CRLF")
		}
		if end+1 > limit {
			return k, tooLong
		}
		line := b[pos : end-1]
		if len(line) == 0 {
			in.r += end + 1
			in.buf.Marks = found
			k.bytes, k.rows = b[:end+1], found
			return k, nil
		}
		if k.lines++; k.lines > rows {
			return k, tooMany
		}
		if start && k.lines == 1 {
			k.start = len(line)
			found = in.buf.Marks[:0]
		} else {
			if found == nil {
				found = in.buf.Marks[:0]
			}
			f, err := settleLine(line)
			if err != nil {
				return k, err
			}
			at := int32(pos)
			found = append(found, wire.FieldMark{Name: at + f.Name, Colon: at + f.Colon, Value: at + f.Value, End: at + f.End})
		}
		pos, scanned = end+1, end+1
	}
}
