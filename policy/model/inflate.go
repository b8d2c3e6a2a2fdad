package model

import (
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"math/bits"
	"sync"
)

const (
	errEncoding  bodyError = "the message is compressed in a way that the gateway cannot read; it reads gzip and deflate"
	errInflate   bodyError = "the compressed message is not valid in its encoding"
	errInflated  bodyError = "the message is larger than permitted after decompression"
	errCompCut   bodyError = "the compressed message is incomplete"
	errCompMore  bodyError = "data follows the end of the compressed message; a second gzip member is refused too"
	errCompCheck bodyError = "the checksum of the compressed message is wrong"
)

// inflater decompresses gzip (RFC 1952) or deflate, which is zlib (RFC 1950) in gRPC and HTTP.
// The data comes in pieces, and the output leaves in pieces. The readers of package compress
// pull their input, so they would need a goroutine for each body, or the whole body in memory.
// An inflater needs neither: it stops where its input ends, and goes on with the next piece.
//
// It accepts what zlib accepts, and less: one gzip member, without the header fields that no
// encoder on the fly writes. Servers differ in what they do with a second member: C-core
// refuses it, Go and Java append it.
type inflater struct {
	out   func([]byte) error
	left  int64  // bytes of output that are still permitted
	size  uint32 // of the output, as gzip counts it
	sum   uint32 // checksum of the output
	gzip  bool
	flags uint64 // of the gzip header

	in   []byte // rest of the piece
	bits uint64 // bits of the input before in, the next one lowest
	have uint   // number of bits
	step inflateStep

	last                             bool   // no block follows
	stored                           uint64 // bytes of a stored block that follow
	literal                          *huffman
	offset                           *huffman
	tables                           [2]huffman
	lengths                          [286 + 30]uint8 // of the codes
	literals, offsets, codes, filled int

	window  [32 << 10]byte // output, circular
	at      int            // where the next byte goes
	flushed int            // bytes before it have left
	wrapped bool           // the whole window holds output of this stream
}

type inflateStep uint8

const (
	gzipStart inflateStep = iota
	gzipTime
	gzipOS
	gzipText // a name or a comment, to its zero byte
	zlibStart
	blockStart
	storedStart
	storedData
	tableStart
	tableCodes
	tableLengths
	symbols
	checksum
	gzipSize
	inflateEnd
)

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// newInflater returns an inflater that writes at most limit bytes to out, which must not keep
// them. [inflater.free] takes it back.
func newInflater(encoding string, limit int64, out func([]byte) error) (*inflater, error) {
	if encoding != "gzip" && encoding != "deflate" {
		return nil, errEncoding
	}
	z := inflaters.Get().(*inflater)
	z.out, z.left, z.size, z.gzip = out, limit, 0, encoding == "gzip"
	z.bits, z.have, z.last = 0, 0, false
	z.at, z.flushed, z.wrapped = 0, 0, false
	z.step, z.sum = gzipStart, 0
	if !z.gzip {
		z.step, z.sum = zlibStart, 1
	}
	return z, nil
}

// free lets another body have the memory. z may be nil.
func (z *inflater) free() {
	if z != nil {
		z.out, z.in = nil, nil
		inflaters.Put(z)
	}
}

// write takes the next piece, and has delivered the output of it when it returns.
func (z *inflater) write(p []byte) error {
	z.in = p
	for {
		more, err := z.next()
		if more && err == nil {
			continue
		}
		// Output before an error goes first, so that the size of the pieces does not decide
		// which error it is.
		if err := z.flush(); err != nil {
			return err
		}
		return err
	}
}

// end ends the input.
func (z *inflater) end() error {
	if z.step != inflateEnd {
		return errCompCut
	}
	return nil
}

// next does a step. It returns false, with nothing taken, if the step needs more input. No step
// needs more than 48 bits, and bits holds 56 if there are so many.
func (z *inflater) next() (more bool, err error) {
	z.fill()
	switch z.step {
	case gzipStart, gzipTime, gzipOS, gzipText:
		return z.gzipHeader()
	case zlibStart:
		if z.have < 16 {
			return false, nil
		}
		// A method of 8 with a window of 2^15 bytes at most, no dictionary, and a check.
		h := z.take(16)
		if h&0x0f != 8 || h&0xf0 > 0x70 || h&0x2000 != 0 || (h<<8&0xff00|h>>8)%31 != 0 {
			return false, errInflate
		}
		z.step = blockStart
	case blockStart:
		return z.blockStart()
	case storedStart:
		if z.have < 32+z.have%8 {
			return false, nil
		}
		z.take(z.have % 8)
		n := z.take(32)
		if n&0xffff != ^n>>16&0xffff {
			return false, errInflate
		}
		z.stored, z.step = n&0xffff, storedData
	case storedData:
		return z.storedData()
	case tableStart, tableCodes, tableLengths:
		return z.table()
	case symbols:
		return z.symbols()
	case checksum:
		return z.checksum()
	case gzipSize:
		if z.have < 32 {
			return false, nil
		}
		if uint32(z.take(32)) != z.size {
			return false, errCompCheck
		}
		z.step = inflateEnd
	case inflateEnd:
		if z.have > 0 {
			return false, errCompMore
		}
		return false, nil
	}
	return true, nil
}

// fill moves input into bits.
func (z *inflater) fill() {
	if len(z.in) >= 8 {
		n := (63 - z.have) / 8
		z.bits |= binary.LittleEndian.Uint64(z.in) << z.have
		z.have += n * 8
		z.bits &= 1<<z.have - 1
		z.in = z.in[n:]
		return
	}
	for z.have < 56 && len(z.in) > 0 {
		z.bits |= uint64(z.in[0]) << z.have
		z.have += 8
		z.in = z.in[1:]
	}
}

// take takes n bits, which must be there.
func (z *inflater) take(n uint) uint64 {
	v := z.bits & (1<<n - 1)
	z.bits >>= n
	z.have -= n
	return v
}

func (z *inflater) gzipHeader() (more bool, err error) {
	const text, name, comment = 1, 8, 16
	need := [...]uint{gzipStart: 32, gzipTime: 32, gzipOS: 16, gzipText: 8}[z.step]
	if z.have < need {
		return false, nil
	}
	v := z.take(need)
	switch z.step {
	case gzipStart:
		if v&0xffffff != 0x088b1f || v>>24&^(text|name|comment) != 0 {
			return false, errInflate
		}
		z.flags, z.step = v>>24&^text, gzipTime
	case gzipTime:
		z.step = gzipOS
	case gzipOS, gzipText:
		if z.step == gzipText && v == 0 {
			z.flags &= z.flags - 1
		}
		if z.step = gzipText; z.flags == 0 {
			z.step = blockStart
		}
	}
	return true, nil
}

func (z *inflater) blockStart() (more bool, err error) {
	if z.last {
		z.step = checksum
		return true, nil
	}
	if z.have < 3 {
		return false, nil
	}
	z.last = z.take(1) == 1
	switch z.take(2) {
	case 0:
		z.step = storedStart
	case 1:
		z.literal, z.offset = &fixedTables[0], &fixedTables[1]
		z.step = symbols
	case 2:
		z.step = tableStart
	default:
		return false, errInflate
	}
	return true, nil
}

func (z *inflater) storedData() (more bool, err error) {
	for ; z.stored > 0 && z.have > 0; z.stored-- {
		if err := z.put(byte(z.take(8))); err != nil {
			return false, err
		}
	}
	for z.stored > 0 {
		n := copy(z.window[z.at:], z.in[:min(uint64(len(z.in)), z.stored)])
		if n == 0 {
			return false, nil
		}
		z.in = z.in[n:]
		z.stored -= uint64(n)
		if err := z.advance(n); err != nil {
			return false, err
		}
	}
	z.step = blockStart
	return true, nil
}

// Bases and numbers of extra bits of lengths and offsets (RFC 1951, section 3.2.5).
var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	offsetBase  = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	offsetExtra = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// symbols reads the content of a block. A literal, or a length with its offset, is taken as a
// whole or not at all.
func (z *inflater) symbols() (more bool, err error) {
	for {
		z.fill()
		symbol, n := z.literal.decode(z.bits)
		switch {
		case n > z.have:
			return false, nil
		case n == 0 || symbol > 285:
			return false, errInflate
		case symbol < 256:
			z.take(n)
			if err := z.put(byte(symbol)); err != nil {
				return false, err
			}
			continue
		case symbol == 256:
			z.take(n)
			z.step = blockStart
			return true, nil
		}
		symbol -= 257
		extra := uint(lengthExtra[symbol])
		if n+extra > z.have {
			return false, nil
		}
		length := int(lengthBase[symbol]) + int(z.bits>>n&(1<<extra-1))
		n += extra
		code, m := z.offset.decode(z.bits >> n)
		switch {
		case n+m > z.have:
			return false, nil
		case m == 0 || code > 29:
			return false, errInflate
		}
		n += m
		extra = uint(offsetExtra[code])
		if n+extra > z.have {
			return false, nil
		}
		offset := int(offsetBase[code]) + int(z.bits>>n&(1<<extra-1))
		z.take(n + extra)
		if offset > z.at && !z.wrapped {
			return false, errInflate
		}
		if err := z.repeat(length, offset); err != nil {
			return false, err
		}
	}
}

// repeat puts length bytes that stand offset bytes before. The bytes may include those it puts.
func (z *inflater) repeat(length, offset int) error {
	for length > 0 {
		from := (z.at - offset) & (len(z.window) - 1)
		end := min(z.at+length, len(z.window))
		if from > z.at { // beyond the wrap
			end = min(end, z.at+len(z.window)-from)
		}
		to := z.at
		if from < to {
			for to < end {
				to += copy(z.window[to:end], z.window[from:to]) // twice as much each time
			}
		} else {
			to += copy(z.window[to:end], z.window[from:])
		}
		length -= to - z.at
		if err := z.advance(to - z.at); err != nil {
			return err
		}
	}
	return nil
}

// put puts a byte of output.
func (z *inflater) put(c byte) error {
	z.window[z.at] = c
	return z.advance(1)
}

// advance adds n bytes in the window to the output.
func (z *inflater) advance(n int) error {
	if z.at += n; z.at < len(z.window) {
		return nil
	}
	err := z.flush()
	z.at, z.flushed, z.wrapped = 0, 0, true
	return err
}

// flush delivers output.
func (z *inflater) flush() error {
	p := z.window[z.flushed:z.at]
	z.flushed = z.at
	if len(p) == 0 {
		return nil
	}
	if z.left < int64(len(p)) {
		// What is permitted still goes first, as in write.
		if err := z.out(p[:z.left]); err != nil {
			return err
		}
		return errInflated
	}
	z.left -= int64(len(p))
	z.size += uint32(len(p))
	if z.gzip {
		z.sum = crc32.Update(z.sum, crc32.IEEETable, p)
	} else {
		z.sum = adler(z.sum, p)
	}
	return z.out(p)
}

// adler goes on with the checksum of RFC 1950. [adler32.Checksum] begins at 1, so what it
// gives for p is added to the sum before: see adler32_combine of zlib.
func adler(sum uint32, p []byte) uint32 {
	const mod = 65521
	next := adler32.Checksum(p)
	n := uint32(len(p)) % mod // len(p) is at most the window's
	a := (sum&0xffff + next&0xffff + mod - 1) % mod
	b := (uint32(uint64(n)*uint64(sum&0xffff)%mod) + sum>>16 + next>>16 + mod - n) % mod
	return b<<16 | a
}

// checksum reads what follows the last block.
func (z *inflater) checksum() (more bool, err error) {
	pad := z.have % 8
	if z.have < 32+pad {
		return false, nil
	}
	if err := z.flush(); err != nil {
		return false, err
	}
	z.take(pad)
	sum := uint32(z.take(32))
	z.step = gzipSize
	if !z.gzip {
		sum = bits.ReverseBytes32(sum)
		z.step = inflateEnd
	}
	if sum != z.sum {
		return false, errCompCheck
	}
	return true, nil
}
