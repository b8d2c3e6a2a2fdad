package proxy

import (
	"errors"
	"io"

	"sallyport/proxy/limit"
	"sallyport/proxy/message"
)

// held is content that was read before anything acts on it: in blocks, which count
// against one budget for the whole gateway. The zero held holds nothing. It must be
// released; it is not safe for concurrent use.
type held struct {
	memory *limit.Bytes
	blocks []*[]byte // all full but the last
	one    [1]*[]byte
	size   int64
	at     int64 // how much of it was read
	rest   io.Reader
}

// blockBytes is the size of a block: one of buffers.
const blockBytes = 32 << 10

// blocksOf is how much of the budget content of a length takes, the least that it can
// where that is not known.
func blocksOf(length int64) int64 { return (max(length, 0)/blockBytes + 1) * blockBytes }

var (
	errMemory  = errors.New("integrity.memory is spent")
	errTooLong = errors.New("content is longer than what is held")
)

// fill reads src to its end. It returns [errTooLong] where more than most bytes come,
// with what was read still there, and [errMemory] where no block is left.
func (h *held) fill(memory *limit.Bytes, src io.Reader, most int64) error {
	h.memory = memory
	h.blocks = h.one[:0]
	for {
		at := int(h.size % blockBytes)
		if at == 0 && int(h.size/blockBytes) == len(h.blocks) {
			if !memory.Take(blockBytes) {
				return errMemory
			}
			h.blocks = append(h.blocks, buffers.Get().(*[]byte))
		}
		block := *h.blocks[len(h.blocks)-1]
		n, err := src.Read(block[at:])
		h.size += int64(n)
		switch {
		case err == io.EOF && h.size <= most:
			return nil
		case err != nil && err != io.EOF:
			return err
		case h.size > most:
			return errTooLong
		}
	}
}

// writeTo writes what is held to w, whose writes must not fail.
func (h *held) writeTo(w io.Writer) {
	left := h.size
	for _, b := range h.blocks {
		n := min(left, blockBytes)
		_, _ = w.Write((*b)[:n])
		left -= n
	}
}

// block returns the content where it is of one block at most, and else false.
func (h *held) block() ([]byte, bool) {
	switch len(h.blocks) {
	case 0:
		return nil, true
	case 1:
		return (*h.blocks[0])[:h.size], true
	}
	return nil, false
}

// Read reads what is held, then what follows it.
func (h *held) Read(p []byte) (int, error) {
	if h.at == h.size {
		if h.rest != nil {
			return h.rest.Read(p)
		}
		return 0, io.EOF
	}
	block := (*h.blocks[h.at/blockBytes])[h.at%blockBytes:]
	n := copy(p, block[:min(int64(len(block)), h.size-h.at)])
	h.at += int64(n)
	return n, nil
}

// Trailers are none: content that is held has a length, and no trailers go with that.
func (h *held) Trailers() message.Fields { return nil }

// release gives the memory back. Nothing may be read any more.
func (h *held) release() {
	for _, b := range h.blocks {
		buffers.Put(b)
		h.memory.Give(blockBytes)
	}
	*h = held{}
}
