package model

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"iter"
	"sync"
)

const (
	errInflate   bodyError = "the compressed message is not valid in its encoding"
	errInflated  bodyError = "the message is larger than permitted after decompression"
	errCompCut   bodyError = "the compressed message is incomplete"
	errCompMore  bodyError = "data follows the end of the compressed message; a second gzip member is refused too"
	errCompCheck bodyError = "the checksum of the compressed message is wrong"
	errClosed    bodyError = "the scan has ended"
)

// inflater decompresses gzip (RFC 1952) or deflate, which is zlib (RFC 1950) in gRPC and HTTP, with the
// readers of the standard library. A reader pulls its input, and the data is pushed in pieces. So the
// reader runs as a coroutine, which waits where a piece ends and goes on with the next. Nothing runs
// beside the caller. A coroutine that is never ended stays for good, so [inflater.free] must be called.
//
// It accepts less than the readers do: one gzip member, without header fields that no encoder on the
// fly writes, and no zlib dictionary. Servers differ in what they do with a second member: C-core
// refuses it, Go and Java append it.
//
// However long the message, an inflater takes about 50 KiB: a window of 32 KiB, the tables of the
// codes, a buffer for output, and the coroutine's stack.
type inflater struct {
	out  func([]byte) error
	left int64 // bytes of output that are still permitted
	gzip bool

	next  func() (struct{}, bool) // runs the reader until it has used up the piece
	stop  func()                  // ends the reader
	yield func(struct{}) bool     // waits for the next piece
	over  bool                    // the reader has ended
	err   error                   // why it has; nil after the end of a valid stream

	in     []byte // what the reader gets next
	behind []byte // what it gets after that
	head   [4]byte
	last   bool // no piece follows
	freed  bool // and nobody wants the output

	unzip  gzip.Reader
	unzlib io.Reader // nil before its first use
	buffer [4 << 10]byte
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// newInflater returns an inflater that writes at most limit bytes to out, which must not keep
// them. [inflater.free] takes it back.
func newInflater(encoding string, limit int64, out func([]byte) error) (*inflater, error) {
	if encoding != "gzip" && encoding != "deflate" {
		return nil, errEncoding
	}
	z := inflaters.Get().(*inflater)
	z.out, z.left, z.gzip = out, limit, encoding == "gzip"
	z.over, z.err, z.last, z.freed = false, nil, false, false
	z.next, z.stop = iter.Pull(z.run)
	return z, nil
}

// free ends the coroutine, and lets another body have the memory. z may be nil.
func (z *inflater) free() {
	if z == nil {
		return
	}
	z.stop()
	z.out, z.next, z.stop, z.yield = nil, nil, nil, nil
	z.in, z.behind = nil, nil
	inflaters.Put(z)
}

// write takes the next piece.
func (z *inflater) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	z.in = p
	return z.resume()
}

// end ends the input. All output has been delivered when it returns nil.
func (z *inflater) end() error {
	z.last = true
	return z.resume()
}

func (z *inflater) resume() error {
	if !z.over {
		z.next()
	}
	if z.over && z.err == nil && len(z.in) > 0 {
		return errCompMore
	}
	return z.err
}

// run is the coroutine.
func (z *inflater) run(yield func(struct{}) bool) {
	z.yield = yield
	z.err = z.inflate()
	z.over = true
}

func (z *inflater) inflate() error {
	r, err := z.open()
	for err == nil {
		var n int
		n, err = r.Read(z.buffer[:])
		if z.freed {
			return nil
		}
		// What is permitted goes first, and so does the output before an error.
		permitted := min(int64(n), z.left)
		z.left -= permitted
		if permitted > 0 {
			if refused := z.out(z.buffer[:permitted]); refused != nil {
				return refused
			}
		}
		switch {
		case permitted < int64(n):
			return errInflated
		case err == io.EOF:
			return nil
		}
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errCompCut
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, zlib.ErrChecksum):
		return errCompCheck
	}
	return errInflate
}

// open returns a reader of the output. It looks at the flags in the head itself, because the readers
// ignore some of them, and take a dictionary of no bytes.
func (z *inflater) open() (io.Reader, error) {
	const text, name, comment, dictionary = 1, 8, 16, 0x20
	head, at, permitted := z.head[:4], 3, byte(text|name|comment)
	if !z.gzip {
		head, at, permitted = z.head[:2], 1, ^byte(dictionary)
	}
	if _, err := io.ReadFull(z, head); err != nil {
		return nil, err
	}
	if head[at]&^permitted != 0 {
		return nil, errInflate
	}
	z.in, z.behind = head, z.in
	if z.gzip {
		err := z.unzip.Reset(z)
		z.unzip.Multistream(false)
		return &z.unzip, err
	}
	if r, ok := z.unzlib.(zlib.Resetter); ok {
		return z.unzlib, r.Reset(z, nil)
	}
	r, err := zlib.NewReader(z)
	if err == nil {
		z.unzlib = r
	}
	return r, err
}

// Read implements [io.Reader] for the reader.
func (z *inflater) Read(p []byte) (int, error) {
	if !z.more() {
		return 0, io.EOF
	}
	n := copy(p, z.in)
	z.in = z.in[n:]
	return n, nil
}

// ReadByte implements [io.ByteReader]. The readers take no byte behind the end of the stream from an
// input that has it.
func (z *inflater) ReadByte() (byte, error) {
	if !z.more() {
		return 0, io.EOF
	}
	c := z.in[0]
	z.in = z.in[1:]
	return c, nil
}

// more waits for input, and reports whether there is some.
func (z *inflater) more() bool {
	for len(z.in) == 0 {
		switch {
		case len(z.behind) > 0:
			z.in, z.behind = z.behind, nil
		case z.last:
			return false
		case !z.yield(struct{}{}):
			z.last, z.freed = true, true
		}
	}
	return true
}
