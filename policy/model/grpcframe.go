package model

import (
	"encoding/binary"
	"math"
)

const (
	errFrameFlag   bodyError = "the flag byte of a gRPC message is neither 0 nor 1"
	errFrameCut    bodyError = "the body ends within a gRPC message"
	errFrameNone   bodyError = "the body holds no gRPC message"
	errFrameSecond bodyError = "the call has a second message, and its method takes one"
	errFramePlain  bodyError = "a message is compressed, and grpc-encoding does not say how"

	errEncoding     UnreadEncoding = "the message is compressed in a way that the gateway cannot read; it reads gzip and deflate"
	errFrameInflate UnreadEncoding = "compressed messages are not accepted here, as the gateway must read them (limits.inflated is 0)"
)

// frameScanner is a [Scanner] of a gRPC request body: messages, each behind a flag byte and a
// length of four bytes (PROTOCOL-HTTP2.md of gRPC, "Length-Prefixed-Message").
type frameScanner struct {
	streams bool
	options ScanOptions
	err     error

	head     [5]byte
	have     int    // bytes of head; 5 within a message
	left     uint32 // bytes of the message still to come
	messages bool   // one has begun

	message  protoScanner
	inflate  *inflater // of the message, if it is compressed
	inflated func([]byte) error
}

// longMessage is the size in bytes above which a message is worth an early decision.
const longMessage = 32 << 10

// newFrameScanner returns a scanner of a request whose messages have a shape. If it does not
// stream, the body holds exactly one message.
func newFrameScanner(s shape, streams bool, o ScanOptions) Scanner {
	memory := o.Memory
	if memory == nil {
		memory = new(ScanMemory)
	}
	f := &memory.frames
	last := f.message.names()
	*f = frameScanner{streams: streams, options: o, message: protoScanner{shape: s, decide: o.Decide, previous: last}}
	return f
}

// Write takes the next piece of the body.
func (s *frameScanner) Write(p []byte) (int, error) {
	if s.err == nil {
		if err := s.take(p); err != nil {
			s.fail(err)
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

// Check ends the body.
func (s *frameScanner) Check() error {
	switch {
	case s.err != nil:
	case s.have > 0:
		s.fail(errFrameCut)
	case !s.messages && !s.streams:
		s.fail(errFrameNone)
	}
	return s.err
}

// Close ends a scan that was abandoned within a message.
func (s *frameScanner) Close() {
	if s.err == nil {
		s.fail(errClosed)
	}
}

// fail makes an error final.
func (s *frameScanner) fail(err error) {
	s.err = err
	s.inflate.free()
	s.inflate = nil
}

func (s *frameScanner) take(p []byte) error {
	for {
		if s.have == len(s.head) {
			n := min(uint64(len(p)), uint64(s.left))
			if err := s.piece(p[:n]); err != nil {
				return err
			}
			p = p[n:]
			if s.left -= uint32(n); s.left > 0 {
				return nil
			}
			if err := s.end(); err != nil {
				return err
			}
		}
		if len(p) == 0 {
			return nil
		}
		if s.have == 0 && s.messages && !s.streams {
			return errFrameSecond
		}
		n := copy(s.head[s.have:], p)
		s.have += n
		p = p[n:]
		if s.have == len(s.head) {
			if err := s.begin(); err != nil {
				return err
			}
		}
	}
}

// begin begins a message.
func (s *frameScanner) begin() (err error) {
	s.messages = true
	s.left = binary.BigEndian.Uint32(s.head[1:])
	switch s.head[0] {
	case 0:
		if s.message.early = nil; s.left > longMessage {
			s.message.early = s.options.Early
		}
		s.message.begin(uint64(s.left))
		if c := s.options.count; c != nil {
			c.begin(uint64(s.left))
		}
		return nil
	case 1:
	default:
		return errFrameFlag
	}
	switch {
	case s.options.Encoding == "" || s.options.Encoding == "identity":
		return errFramePlain
	case s.options.Inflate <= 0:
		return errFrameInflate
	}
	if s.inflated == nil {
		s.inflated = s.plain
	}
	s.message.begin(math.MaxUint64) // the end of the compressed data will tell
	if c := s.options.count; c != nil {
		c.begin(math.MaxUint64)
	}
	s.inflate, err = newInflater(s.options.Encoding, s.options.Inflate, s.inflated)
	return err
}

// piece takes a piece of a message.
func (s *frameScanner) piece(p []byte) error {
	if s.inflate != nil {
		return s.inflate.write(p)
	}
	return s.plain(p)
}

// plain takes a piece of a message as it is without compression.
func (s *frameScanner) plain(p []byte) error {
	if c := s.options.count; c != nil {
		if err := c.write(p); err != nil {
			return err
		}
	}
	return s.message.write(p)
}

// end ends a message.
func (s *frameScanner) end() error {
	s.have = 0
	if s.inflate != nil {
		if err := s.inflate.end(); err != nil {
			return err
		}
		s.inflate.free()
		s.inflate = nil
	}
	if c := s.options.count; c != nil {
		if err := c.end(); err != nil {
			return err
		}
	}
	return s.message.end()
}
