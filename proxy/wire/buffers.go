package wire

import "sync"

const (
	// SmallBuffer is the size in bytes of the buffers for most heads and pieces of content.
	SmallBuffer = 16 << 10
	// LargeBuffer holds a head of the maximum size, or a head and 64 KiB of content.
	LargeBuffer = 72 << 10
)

// Buffers pools buffers for the connections that share it, so that idle connections hold none. The
// zero value is ready for use. It is safe for concurrent use.
type Buffers struct{ small, large sync.Pool }

// Buffer is a buffer from a pool. Its holder may reslice B and append to it; a B that has grown
// past [LargeBuffer] is not pooled again.
type Buffer struct {
	B []byte
	// Marks is scratch memory for a parser of B. It is pooled with the buffer.
	Marks []FieldMark
}

// FieldMark says where one field line stands in a [Buffer]: offsets into B of the first
// byte of the name, of the colon, of the first byte of the value and of the byte behind
// the value, white space around it excluded.
type FieldMark struct{ Name, Colon, Value, End int32 }

// Get lends a buffer whose B is empty and has room for n bytes.
func (p *Buffers) Get(n int) *Buffer {
	pool, size := &p.small, SmallBuffer
	switch {
	case n > LargeBuffer:
		return &Buffer{B: make([]byte, 0, n)}
	case n > SmallBuffer:
		pool, size = &p.large, LargeBuffer
	}
	if b, ok := pool.Get().(*Buffer); ok {
		return b
	}
	return &Buffer{B: make([]byte, 0, size)}
}

// Put takes a buffer back, which must not be used afterwards. Nil is ignored.
func (p *Buffers) Put(b *Buffer) {
	if b == nil {
		return
	}
	n := cap(b.B)
	b.B = b.B[:0]
	switch n {
	case SmallBuffer:
		p.small.Put(b)
	case LargeBuffer:
		p.large.Put(b)
	}
}
