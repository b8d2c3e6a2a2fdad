package h2

import (
	"bytes"
	"io"

	"sallyport/proxy/wire"
)

// reader reads frames in place, through a pooled buffer.
type reader struct {
	conn   io.Reader
	bufs   *wire.Buffers
	before func() // runs before each read for the rest of a frame; may be nil

	buf  *wire.Buffer
	r, w int // buf.B[r:w] is unread
	// last is the size of the last frame in bytes. The next frame is likely as large, and a smaller
	// buffer would cost another read and a copy.
	last int
}

func (in *reader) buffered() int { return in.w - in.r }

func (in *reader) bytes() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.B[in.r:in.w]
}

// release returns an empty buffer to the pool.
func (in *reader) release() {
	if in.buf != nil && in.r == in.w {
		in.bufs.Put(in.buf)
		in.buf, in.r, in.w = nil, 0, 0
	}
}

// drop returns the buffer to the pool and discards its contents.
func (in *reader) drop() {
	in.r = in.w
	in.release()
}

// need reads until n bytes are buffered.
func (in *reader) need(n int) error {
	for in.buffered() < n {
		if err := in.fill(n); err != nil {
			return err
		}
	}
	return nil
}

// fill reads more into a buffer of at least n bytes.
func (in *reader) fill(n int) error {
	switch {
	case in.buf == nil:
		in.lend(n)
	case in.r == in.w:
		in.r, in.w = 0, 0
	}
	if in.r+n > len(in.buf.B) {
		old := in.buf
		if n > len(old.B) {
			in.buf = in.bufs.Get(n)
			in.buf.B = in.buf.B[:cap(in.buf.B)]
		}
		in.w = copy(in.buf.B, old.B[in.r:in.w])
		in.r = 0
		if in.buf != old {
			in.bufs.Put(old)
		}
	}
	if in.before != nil {
		in.before()
	}
	m, err := in.conn.Read(in.buf.B[in.w:])
	in.w += m
	if m > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// lend gets a buffer of at least n bytes.
func (in *reader) lend(n int) {
	in.buf = in.bufs.Get(max(n, in.last))
	in.buf.B = in.buf.B[:cap(in.buf.B)]
}

// whole reports whether the next frame can be read without waiting.
func (in *reader) whole() bool {
	n := in.buffered()
	return n >= frameHead && n-frameHead >= parseFrameHead(in.buf.B[in.r:]).size
}

// begins reports whether the unread bytes begin with text.
func (in *reader) begins(text string) bool {
	return bytes.HasPrefix(in.buf.B[in.r:in.w], []byte(text))
}

// next returns the next frame unchecked. The caller checks that the frame is allowed here, then
// calls [frame.validate].
func (in *reader) next() (frame, error) {
	if err := in.need(frameHead); err != nil {
		return frame{}, err
	}
	f := parseFrameHead(in.buf.B[in.r:])
	if f.size > maxFrame {
		return f, broken(frameSizeError, "frame is too large")
	}
	if err := in.need(frameHead + f.size); err != nil {
		return f, err
	}
	f.payload = in.buf.B[in.r+frameHead : in.r+frameHead+f.size]
	in.r += frameHead + f.size
	in.last = frameHead + f.size
	return f, nil
}

// unread puts a byte back in front of the input; the buffer must be empty.
func (in *reader) unread(b byte) {
	if in.buf == nil {
		in.lend(0)
	}
	in.buf.B[0] = b
	in.r, in.w = 0, 1
}
