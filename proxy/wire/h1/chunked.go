package h1

import (
	"bytes"
	"errors"
	"io"

	"sallyport/proxy/message"
)

// chunked reads chunked content (RFC 9112, section 7.1). It skips extensions within the line limit.
// Those of requests must follow the grammar, without white space after the size: a reader that
// stops elsewhere finds another chunk.
type chunked struct {
	lenient  bool  // of a server: white space after a size, and any extensions
	left     int64 // bytes left in the current chunk
	excess   int64 // by how much the extensions so far exceed twice the content
	state    chunkState
	trailers message.Fields // valid in state chunksOver; unfiltered
}

type chunkState uint8

const (
	chunkSize chunkState = iota // next: a size line, or content of the current chunk
	chunkEnd                    // next: the CRLF after a chunk
	chunkLast                   // next: the trailers
	chunksOver
)

// read reads content, from several chunks at once if they have arrived. It does not wait once it
// has some. It returns io.EOF after the trailers.
func (k *chunked) read(in *reader, p []byte) (n int, err error) {
	for n < len(p) {
		if k.left > 0 {
			if n > 0 && in.buffered() == 0 {
				return n, nil
			}
			m, err := in.read(p[n:min(int64(len(p)), int64(n)+k.left)])
			n += m
			if k.left -= int64(m); k.left == 0 {
				k.state = chunkEnd
			}
			if err != nil {
				return n, cut(err)
			}
			continue
		}
		if k.state == chunksOver {
			return n, io.EOF
		}
		if n > 0 && !k.ready(in.bytes()) {
			return n, nil
		}
		if err := k.next(in); err != nil {
			return n, cut(err)
		}
	}
	return n, nil
}

// ready reports whether next could proceed without waiting.
func (k *chunked) ready(b []byte) bool {
	switch k.state {
	case chunkEnd:
		return len(b) >= 2
	case chunkLast:
		return bytes.HasPrefix(b, []byte("\r\n")) || bytes.Contains(b, []byte("\r\n\r\n"))
	}
	return bytes.IndexByte(b, '\n') >= 0
}

// next reads what separates the content of two chunks: one line, or the trailers, per call.
func (k *chunked) next(in *reader) error {
	switch k.state {
	case chunkEnd:
		line, err := in.line(2)
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return malformed("chunk is longer than its size")
		}
		k.state = chunkSize
	case chunkSize:
		line, err := in.line(maxChunkLine)
		if err != nil {
			return err
		}
		var extensions int
		if k.left, extensions, err = parseChunkLine(line, k.lenient); err != nil {
			return err
		}
		// Limits on content do not count extensions: chunks of one byte could carry 250 times as much.
		if k.excess = max(k.excess+int64(extensions)-2*k.left, 0); k.excess > maxExtensions {
			return malformed("chunk extensions outweigh the content")
		}
		if k.left == 0 {
			k.state = chunkLast
		}
	case chunkLast:
		block, err := in.block(maxTrailers, maxTrailerRows, false)
		if err != nil {
			return err
		}
		k.trailers = nil
		if block.lines > 0 {
			k.trailers = block.fields(string(block.bytes), make(message.Fields, 0, block.lines))
		}
		k.state = chunksOver
	}
	return nil
}

// parseChunkLine reads the size of a chunk. It checks the extensions after the size and returns their
// length in bytes.
func parseChunkLine(line []byte, lenient bool) (size int64, extensions int, err error) {
	digits := 0
	for i, c := range line {
		d, ok := hexDigit(c)
		if !ok {
			if digits > 0 && soundExtensions(line[i:], lenient) {
				return size, len(line) - i, nil
			}
			return 0, 0, malformed("bad chunk size")
		}
		if digits++; digits > 15 {
			return 0, 0, malformed("chunk size is too long")
		}
		size = size<<4 | int64(d)
	}
	if digits == 0 {
		return 0, 0, malformed("chunk without a size")
	}
	return size, 0, nil
}

// soundExtensions checks what stands behind the size of a chunk, down to the letter
// (RFC 9112, section 7.1.1) but where a server sent it.
func soundExtensions(b []byte, lenient bool) bool {
	if message.HoldsControl(b) {
		return false
	}
	if lenient {
		b = bytes.TrimLeft(b, " \t")
		return len(b) == 0 || b[0] == ';'
	}
	for len(b) > 0 {
		if b[0] != ';' {
			return false
		}
		var ok bool
		if b, ok = token(bytes.TrimLeft(b[1:], " \t")); !ok {
			return false
		}
		rest := bytes.TrimLeft(b, " \t")
		if len(rest) > 0 && rest[0] == '=' {
			if b, ok = extensionValue(bytes.TrimLeft(rest[1:], " \t")); !ok {
				return false
			}
			rest = bytes.TrimLeft(b, " \t")
		}
		if len(rest) == 0 && len(b) > 0 {
			return false // blanks at the end
		}
		b = rest
	}
	return true
}

// token cuts a token off b, which must begin with one.
func token(b []byte) (rest []byte, ok bool) {
	i := 0
	for i < len(b) && nameByte[b[i]] != 0 {
		i++
	}
	return b[i:], i > 0
}

// extensionValue cuts a token or a quoted string off b, which must begin with one.
func extensionValue(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return token(b)
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[i+1:], true
		}
	}
	return nil, false
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// cut turns io.EOF within a message into io.ErrUnexpectedEOF.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
