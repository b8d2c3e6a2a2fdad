package model

import (
	"errors"
	"fmt"
	"math/bits"
)

// Most limits what the body of a request, or each message of a gRPC stream, asks a server to compute.
// Zero is no limit.
type Most struct {
	// Batch limits the entries that are computed together: instances, examples, rows, texts, or the leading
	// dimension of a tensor. It is the largest of all inputs, by shape and by content.
	Batch int64
	// Tensor limits the bytes of one input: of its content as it is encoded, and for TensorFlow Serving
	// also of what its shape takes in memory. A shape may be far larger than its content there.
	Tensor int64
}

// TooMuch is the error of a [Scanner] for a body that exceeds [Most].
type TooMuch struct {
	Tensor bool  // Most.Tensor, and not Most.Batch
	Has    int64 // entries or bytes, as far as they have been counted
	Most   int64
}

// Error says what there is of what.
func (e *TooMuch) Error() string {
	if e.Tensor {
		return fmt.Sprintf("an input of %d bytes or more", e.Has)
	}
	return fmt.Sprintf("a batch of %d or more", e.Has)
}

// ErrUncounted is the error of a [Scanner] for a body in which it cannot count what [Most] limits.
var ErrUncounted = errors.New("the body cannot be counted")

// uncounted is an error that wraps ErrUncounted.
type uncounted string

func (e uncounted) Error() string { return string(e) }

func (e uncounted) Unwrap() error { return ErrUncounted }

func (m *Most) batch(n uint64) error {
	if m.Batch > 0 && n > uint64(m.Batch) {
		return &TooMuch{Has: clipped(n), Most: m.Batch}
	}
	return nil
}

func (m *Most) tensor(n uint64) error {
	if m.Tensor > 0 && n > uint64(m.Tensor) {
		return &TooMuch{Tensor: true, Has: clipped(n), Most: m.Tensor}
	}
	return nil
}

// clipped returns n, or the largest number of 63 bits.
func clipped(n uint64) int64 { return int64(min(n, 1<<63-1)) }

// times multiplies. What is too large for 64 bits is the largest number.
func times(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	if high > 0 {
		return 1<<64 - 1
	}
	return low
}

// plus adds in the same way.
func plus(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry > 0 {
		return 1<<64 - 1
	}
	return sum
}

// shaped is what is known of one tensor.
type shaped struct {
	dims     int
	lead     uint64 // its first dimension
	rest     uint64 // product of the others
	elements uint64 // in its content
}

// dim adds a dimension. One that is negative is unknown: it counts as 1, so that the content decides.
func (t *shaped) dim(size int64) {
	n := uint64(max(size, 1))
	if size == 0 {
		n = 0
	}
	switch t.dims++; t.dims {
	case 1:
		t.lead, t.rest = n, 1
	default:
		t.rest = times(t.rest, n)
	}
}

// volume is the number of elements by shape.
func (t *shaped) volume() uint64 {
	if t.dims == 0 {
		return 1
	}
	return times(t.lead, t.rest)
}

// batch is the larger one of the first dimension and of the entries that the content has.
func (t *shaped) batch() uint64 {
	lead := uint64(1)
	if t.dims > 0 {
		lead = t.lead
	}
	return max(lead, t.entries(t.elements))
}

// entries is how many entries of a batch some elements make.
func (t *shaped) entries(elements uint64) uint64 {
	if elements == 0 {
		return 0
	}
	return (elements-1)/max(t.rest, 1) + 1
}

// awaited are the inputs of a V2 request whose binary content comes behind them all. Its memory is
// bounded by mostAwaited.
type awaited struct {
	inputs []awaitedInput
	taken  int // of inputs

	strings stringCount // of the input whose content is read
	input   awaitedInput
}

type awaitedInput struct {
	shape shaped
	width uint64 // bytes of an element; 0: strings, each with its length
	size  uint64 // bytes of the content, over REST
}

// mostAwaited limits the inputs of one request whose content is binary.
const mostAwaited = 256

const (
	errManyInputs uncounted = "the body has more than 256 inputs with binary content, which the gateway does not count"
	errRawFirst   uncounted = "the body has binary content that belongs to none of the inputs before it"
)

func (a *awaited) reset() { a.inputs, a.taken = a.inputs[:0], 0 }

func (a *awaited) add(in awaitedInput) error {
	if len(a.inputs) == mostAwaited {
		return errManyInputs
	}
	a.inputs = append(a.inputs, in)
	return nil
}

// next begins the content of the next input.
func (a *awaited) next() error {
	if a.taken == len(a.inputs) {
		return errRawFirst
	}
	a.input, a.strings = a.inputs[a.taken], stringCount{}
	a.taken++
	return nil
}

// write takes a piece of the content that next has begun. Servers compare the size of numbers with the
// shape, but MLServer takes strings as they come.
func (a *awaited) write(p []byte, most *Most) error {
	if a.input.width > 0 {
		return nil
	}
	a.strings.write(p)
	return most.batch(a.input.shape.entries(a.strings.n))
}

// widthOf returns the bytes of an element of V2's data types; 0 for strings. Those of another type have at
// least one.
func widthOf(datatype []byte) uint64 {
	switch string(datatype) {
	case "BYTES":
		return 0
	case "INT16", "UINT16", "FP16", "BF16":
		return 2
	case "INT32", "UINT32", "FP32":
		return 4
	case "INT64", "UINT64", "FP64":
		return 8
	}
	return 1
}

// stringCount counts strings of which each has its length before it, in four bytes with the lowest first.
type stringCount struct {
	n    uint64
	head uint32
	have int
	left uint32 // bytes of the string still to come
}

func (s *stringCount) write(p []byte) {
	for len(p) > 0 {
		if s.left > 0 {
			n := min(uint64(s.left), uint64(len(p)))
			s.left -= uint32(n)
			p = p[n:]
			continue
		}
		if s.have == 0 {
			s.n++
			s.head = 0
		}
		s.head |= uint32(p[0]) << (8 * s.have)
		p = p[1:]
		if s.have++; s.have == 4 {
			s.have, s.left = 0, s.head
		}
	}
}
