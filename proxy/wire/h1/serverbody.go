package h1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"sallyport/proxy/message"
	"sallyport/proxy/wire/socket"
)

// serverBody is the content of a request.
type serverBody struct {
	s        *stream
	mode     bodyMode
	left     int64
	chunks   chunked
	trailers message.Fields
	trailed  atomic.Int32
	started  bool
	err      error // sticky; io.EOF at the clean end
}

func (b *serverBody) Trailers() message.Fields { return b.trailers }

// Trailed implements [message.Trailed].
func (b *serverBody) Trailed() int { return int(b.trailed.Load()) }

func (b *serverBody) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if !b.started {
		b.started = true
		if b.s.expects {
			if err := b.s.invite(); err != nil {
				b.err = gone(err)
				return 0, b.err
			}
		}
	}
	n, err := b.read(p)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF:
		b.trailed.Store(int32(len(b.chunks.trailers)))
		b.trailers = message.KeptTrailers(b.chunks.trailers, b.s.head.Fields)
		b.err = err
		b.s.c.bodyEnded()
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, err // the rest can still be read or skipped
	case errors.As(err, new(malformed)):
	default:
		err = gone(err)
		b.s.life.End(err)
	}
	b.err = err
	return n, err
}

// Arrived implements [message.Arrived].
func (b *serverBody) Arrived() (n int, whole bool) {
	n = b.s.c.in.buffered()
	switch {
	case b.err != nil:
		return 0, b.err == io.EOF
	case b.mode == bodyLength && int64(n) >= b.left:
		return int(b.left), true
	case b.mode == bodyChunked:
		return int(min(int64(n), b.chunks.left)), false
	}
	return n, false
}

// Coming implements [message.Coming].
func (b *serverBody) Coming() bool {
	if b.err != nil || b.s.c.in.buffered() > 0 {
		return b.err == nil
	}
	quiet, known := socket.Quiet(b.s.c.conn)
	return known && !quiet
}

func (b *serverBody) read(p []byte) (n int, err error) {
	in := &b.s.c.in
	if b.mode == bodyChunked {
		return b.chunks.read(in, p)
	}
	n, err = in.read(p[:min(int64(len(p)), b.left)])
	if b.left -= int64(n); b.left == 0 {
		return n, io.EOF
	}
	return n, cut(err)
}

// gone turns a lost connection within a request into io.ErrUnexpectedEOF, whatever the cause.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
}
