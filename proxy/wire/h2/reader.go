package h2

import (
	"bytes"
	"io"

	"sallyport/proxy/wire"
)

// reader reads frames from a connection, in place, through a lent buffer.
type reader struct {
	conn   io.Reader
	bufs   *wire.Buffers
	before func() // runs before each read that is for the rest of a frame; nil: none

	buf  *wire.Buffer
	r, w int // what is in buf and not yet read
}

func (in *reader) buffered() int { return in.w - in.r }

func (in *reader) bytes() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf.B[in.r:in.w]
}

// release gives the buffer back if nothing is in it.
func (in *reader) release() {
	if in.buf != nil && in.r == in.w {
		in.bufs.Put(in.buf)
		in.buf, in.r, in.w = nil, 0, 0
	}
}

// drop gives the buffer back; what is in it is lost.
func (in *reader) drop() {
	in.r = in.w
	in.release()
}

// need waits until n bytes are there.
func (in *reader) need(n int) error {
	for in.buffered() < n {
		if err := in.fill(n); err != nil {
			return err
		}
	}
	return nil
}

// fill reads more into a buffer of room for n bytes.
func (in *reader) fill(n int) error {
	switch {
	case in.buf == nil:
		in.buf = in.bufs.Get(n)
		in.buf.B = in.buf.B[:cap(in.buf.B)]
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

// whole says whether the next frame can be read without waiting.
func (in *reader) whole() bool {
	n := in.buffered()
	return n >= frameHead && n-frameHead >= parseFrameHead(in.buf.B[in.r:]).size
}

// begins says whether what has come and is not read yet begins with text.
func (in *reader) begins(text string) bool {
	return bytes.HasPrefix(in.buf.B[in.r:in.w], []byte(text))
}

// next reads a frame as it came; [frame.validate] checks it, once it is known to stand
// where such a frame may.
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
	return f, nil
}

// unread puts a byte before what is to be read next; nothing may be buffered.
func (in *reader) unread(b byte) {
	if in.buf == nil {
		in.buf = in.bufs.Get(0)
		in.buf.B = in.buf.B[:cap(in.buf.B)]
	}
	in.buf.B[0] = b
	in.r, in.w = 0, 1
}
