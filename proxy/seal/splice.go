package seal

// At returns the byte at a position of the content that is held.
func (h *Buffer) At(i int64) byte { return (*h.blocks[i/BlockBytes])[i%BlockBytes] }

// Splice replaces n bytes of the content at a position by others, which must be as many or more. It
// must not be called once the content has been read. It returns [ErrMemory], and changes nothing, if the
// budget has no block left for it.
func (h *Buffer) Splice(at int64, n int, with []byte) error {
	grown := int64(len(with) - n)
	for h.size+grown > int64(len(h.blocks))*BlockBytes {
		if !h.budget.Take(BlockBytes) {
			return ErrMemory
		}
		h.blocks = append(h.blocks, Blocks.Get().(*[]byte))
	}
	for end := h.size; grown > 0 && end > at+int64(n); { // from the end, in pieces that cross no block
		size := min(end-at-int64(n), (end-1)%BlockBytes+1, (end+grown-1)%BlockBytes+1)
		end -= size
		copy(h.from(end + grown)[:size], h.from(end)[:size])
	}
	h.size += grown
	for len(with) > 0 {
		moved := copy(h.from(at), with)
		at, with = at+int64(moved), with[moved:]
	}
	return nil
}

// from returns the block that holds a position, from there on.
func (h *Buffer) from(i int64) []byte { return (*h.blocks[i/BlockBytes])[i%BlockBytes:] }
