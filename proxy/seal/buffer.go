package seal

import (
	"errors"
	"io"
	"sync"

	"sallyport/auth/httpsig"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
)

// BlockBytes is the size of a block in [Blocks].
const BlockBytes = 32 << 10

// Blocks pools buffers of [BlockBytes] for copying content, so that ended streams keep no memory.
var Blocks = sync.Pool{New: func() any { b := make([]byte, BlockBytes); return &b }}

// BlocksOf returns how much of the budget content of this length takes. For an unknown (negative)
// length it returns the minimum.
func BlocksOf(length int64) int64 { return (max(length, 0)/BlockBytes + 1) * BlockBytes }

// These errors end [Buffer.Fill] early.
var (
	ErrMemory  = errors.New("integrity.memory is spent")
	ErrTooLong = errors.New("content is longer than what is held")
)

// Buffer holds content that is read completely before it is used. Its blocks count against one
// budget for the whole process. The zero Buffer is empty. It must be released; it is not safe for
// concurrent use.
type Buffer struct {
	budget *limit.Bytes
	blocks []*[]byte // all full except the last
	one    [1]*[]byte
	size   int64
	at     int64 // read position
	rest   io.Reader
}

// Fill reads src to its end. If more than most bytes come it returns [ErrTooLong] and keeps the
// bytes read; if the budget is exhausted it returns [ErrMemory].
func (h *Buffer) Fill(budget *limit.Bytes, src io.Reader, most int64) error {
	h.budget = budget
	h.blocks = h.one[:0]
	for {
		block, err := h.room()
		if err != nil {
			return err
		}
		n, err := src.Read(block)
		h.size += int64(n)
		switch {
		case err == io.EOF && h.size <= most:
			return nil
		case err != nil && err != io.EOF:
			return err
		case h.size > most:
			return ErrTooLong
		}
	}
}

// Lead reads src until enough returns true after a read, or more than most bytes are held; then it
// returns nil, and [Buffer.Follow] continues with src. It returns io.EOF at the end of src, and else
// the errors of [Buffer.Fill].
func (h *Buffer) Lead(budget *limit.Bytes, src io.Reader, most int64, enough func() bool) error {
	h.budget = budget
	h.blocks = h.one[:0]
	for h.size <= most && !enough() {
		block, err := h.room()
		if err != nil {
			return err
		}
		n, err := src.Read(block)
		h.size += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// room returns the free part of the last block, after adding one if it is full.
func (h *Buffer) room() ([]byte, error) {
	at := int(h.size % BlockBytes)
	if at == 0 && int(h.size/BlockBytes) == len(h.blocks) {
		if !h.budget.Take(BlockBytes) {
			return nil, ErrMemory
		}
		h.blocks = append(h.blocks, Blocks.Get().(*[]byte))
	}
	return (*h.blocks[len(h.blocks)-1])[at:], nil
}

// Size returns the number of bytes held.
func (h *Buffer) Size() int64 { return h.size }

// Follow makes reads continue with src after the buffered content.
func (h *Buffer) Follow(src io.Reader) { h.rest = src }

// Each calls f with each piece of the content, in order, until f returns an error.
func (h *Buffer) Each(f func([]byte) error) error {
	left := h.size
	for _, b := range h.blocks {
		n := min(left, BlockBytes)
		if err := f((*b)[:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// writeTo writes the content to a hash, whose writes do not fail.
func (h *Buffer) writeTo(w io.Writer) {
	_ = h.Each(func(p []byte) error { _, err := w.Write(p); return err })
}

// Match compares the content with digests.
func (h *Buffer) Match(d httpsig.Digests) error {
	if block, ok := h.block(); ok {
		return d.Match(block)
	}
	checker := d.NewChecker()
	h.writeTo(checker)
	return checker.Check()
}

// Digest returns the value of Content-Digest for the content.
func (h *Buffer) Digest() string {
	if block, ok := h.block(); ok {
		return httpsig.ContentDigest(block)
	}
	d := httpsig.NewDigester()
	h.writeTo(d)
	return d.Value()
}

// block returns the content if it fits one block, and otherwise false.
func (h *Buffer) block() ([]byte, bool) {
	switch len(h.blocks) {
	case 0:
		return nil, true
	case 1:
		return (*h.blocks[0])[:h.size], true
	}
	return nil, false
}

// Read reads the buffered content, then the reader set by Follow.
func (h *Buffer) Read(p []byte) (int, error) {
	if h.at == h.size {
		if h.rest != nil {
			return h.rest.Read(p)
		}
		return 0, io.EOF
	}
	block := (*h.blocks[h.at/BlockBytes])[h.at%BlockBytes:]
	n := copy(p, block[:min(int64(len(block)), h.size-h.at)])
	h.at += int64(n)
	return n, nil
}

// Arrived implements [message.Arrived].
func (h *Buffer) Arrived() (n int, whole bool) {
	if whole = true; h.rest != nil {
		n, whole = message.ArrivedOf(h.rest)
	}
	return n + int(h.size-h.at), whole
}

// Trailers returns nil: held content is sent with a length, and so without trailers.
func (h *Buffer) Trailers() message.Fields { return nil }

// Release frees the memory. The buffer must not be read afterwards.
func (h *Buffer) Release() {
	for _, b := range h.blocks {
		Blocks.Put(b)
		h.budget.Give(BlockBytes)
	}
	*h = Buffer{}
}
