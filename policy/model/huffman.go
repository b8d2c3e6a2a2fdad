package model

import "math/bits"

const (
	maxCode  = 15 // bits of a code
	fastCode = 9  // bits of a code that one look-up decodes
)

// huffman is a Huffman code of RFC 1951.
type huffman struct {
	fast    [1 << fastCode]uint16 // by the next bits: symbol<<4 | length of its code; 0: longer
	count   [maxCode + 1]uint16   // codes of each length
	first   [maxCode + 1]uint16   // the first code of each length
	index   [maxCode + 1]uint16   // its symbol's place in symbols
	symbols [288]uint16           // in the order of their codes
}

// build builds the code from the length of each symbol's code. It returns false if no such
// code exists, or if some bits are no code. As zlib does, it takes a code that is not full if
// partial is true and no code has more than one bit.
func (h *huffman) build(lengths []uint8, partial bool) bool {
	clear(h.count[:])
	for _, n := range lengths {
		h.count[n]++
	}
	h.count[0] = 0
	left, longest := 1, 0
	var code, index uint16
	for n := 1; n <= maxCode; n++ {
		code <<= 1
		h.first[n], h.index[n] = code, index
		code += h.count[n]
		index += h.count[n]
		if left = left<<1 - int(h.count[n]); left < 0 {
			return false
		}
		if h.count[n] > 0 {
			longest = n
		}
	}
	if left > 0 && (!partial || longest > 1) {
		return false
	}
	next := h.first
	clear(h.fast[:])
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		code := next[n]
		next[n]++
		h.symbols[h.index[n]+code-h.first[n]] = uint16(symbol)
		if n <= fastCode {
			for i := bits.Reverse16(code) >> (16 - n); i < 1<<fastCode; i += 1 << n {
				h.fast[i] = uint16(symbol)<<4 | uint16(n)
			}
		}
	}
	return true
}

// decode returns the next symbol and the length of its code. Bits behind the input are zero, so
// the length may be more than there is; then the symbol means nothing. It is 0 if no code fits.
func (h *huffman) decode(next uint64) (symbol int, n uint) {
	if e := h.fast[next&(1<<fastCode-1)]; e != 0 {
		return int(e >> 4), uint(e & 15)
	}
	code := bits.Reverse16(uint16(next) << (16 - fastCode)) // the first bits, as a number
	for n := uint(fastCode + 1); n <= maxCode; n++ {
		code = code<<1 | uint16(next>>(n-1)&1)
		if i := code - h.first[n]; i < h.count[n] {
			return int(h.symbols[h.index[n]+i]), n
		}
	}
	return 0, 0
}

// fixedTables are the codes of blocks without codes of their own: literals and offsets.
var fixedTables = func() (t [2]huffman) {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144, i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	t[0].build(lengths[:], false)
	for i := range 32 {
		lengths[i] = 5
	}
	t[1].build(lengths[:32], false)
	return t
}()

// codeOrder is the order of the lengths of the codes for lengths (RFC 1951, section 3.2.7).
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// table reads the codes of a dynamic block.
func (z *inflater) table() (more bool, err error) {
	switch z.step {
	case tableStart:
		if z.have < 14 {
			return false, nil
		}
		z.literals, z.offsets, z.codes = int(z.take(5))+257, int(z.take(5))+1, int(z.take(4))+4
		if z.literals > 286 || z.offsets > 30 {
			return false, errInflate
		}
		clear(z.lengths[:len(codeOrder)])
		z.filled, z.step = 0, tableCodes
	case tableCodes:
		if z.have < 3 {
			return false, nil
		}
		z.lengths[codeOrder[z.filled]] = uint8(z.take(3))
		if z.filled++; z.filled < z.codes {
			return true, nil
		}
		if !z.tables[0].build(z.lengths[:len(codeOrder)], false) {
			return false, errInflate
		}
		z.filled, z.step = 0, tableLengths
	case tableLengths:
		return z.tableLengths()
	}
	return true, nil
}

func (z *inflater) tableLengths() (more bool, err error) {
	symbol, n := z.tables[0].decode(z.bits)
	if n == 0 {
		return false, errInflate
	}
	var extra uint
	if symbol >= 16 {
		extra = [...]uint{2, 3, 7}[symbol-16]
	}
	if n+extra > z.have {
		return false, nil
	}
	z.take(n)
	value, repeat := uint8(symbol), 1
	switch symbol {
	case 16:
		if z.filled == 0 {
			return false, errInflate
		}
		value, repeat = z.lengths[z.filled-1], 3
	case 17:
		value, repeat = 0, 3
	case 18:
		value, repeat = 0, 11
	}
	all := z.literals + z.offsets
	if repeat += int(z.take(extra)); repeat > all-z.filled {
		return false, errInflate
	}
	for range repeat {
		z.lengths[z.filled] = value
		z.filled++
	}
	if z.filled < all {
		return true, nil
	}
	const endOfBlock = 256
	if z.lengths[endOfBlock] == 0 || !z.tables[0].build(z.lengths[:z.literals], true) ||
		!z.tables[1].build(z.lengths[z.literals:all], true) {
		return false, errInflate
	}
	z.literal, z.offset = &z.tables[0], &z.tables[1]
	z.step = symbols
	return true, nil
}
