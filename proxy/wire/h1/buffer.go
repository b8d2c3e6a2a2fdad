package h1

import "sync"

const (
	smallBuffer = 16 << 10
	largeBuffer = 72 << 10 // a head of the largest size, or content of 64 KiB behind a head
)

// Buffers lends buffers to the connections that share it, so that idle ones hold
// none. The zero value is ready for use. It is safe for concurrent use.
type Buffers struct{ small, large sync.Pool }

// Buffer is a lent buffer. B may be resliced and appended to; what has grown past
// the size of the pools is not kept.
type Buffer struct {
	B []byte

	rows []fieldAt // of the block that was last read into B
}

// Get lends a buffer with an empty B and room for n bytes.
func (p *Buffers) Get(n int) *Buffer {
	pool, size := &p.small, smallBuffer
	switch {
	case n > largeBuffer:
		return &Buffer{B: make([]byte, 0, n)}
	case n > smallBuffer:
		pool, size = &p.large, largeBuffer
	}
	if b, ok := pool.Get().(*Buffer); ok {
		return b
	}
	return &Buffer{B: make([]byte, 0, size)}
}

// Put takes a buffer back. It must not be used after; nil is ignored.
func (p *Buffers) Put(b *Buffer) {
	if b == nil {
		return
	}
	n := cap(b.B)
	b.B = b.B[:0]
	switch n {
	case smallBuffer:
		p.small.Put(b)
	case largeBuffer:
		p.large.Put(b)
	}
}
