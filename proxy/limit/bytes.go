package limit

import "sync/atomic"

// Bytes is a memory budget shared by many users. It is safe for concurrent use.
type Bytes struct{ total, used atomic.Int64 }

// NewBytes returns a budget of total bytes; zero or less allows none.
func NewBytes(total int64) *Bytes {
	b := &Bytes{}
	b.Resize(total)
	return b
}

// Resize changes the budget. Bytes already taken stay taken. If they exceed the new budget, Take
// fails until enough bytes are returned.
func (b *Bytes) Resize(total int64) { b.total.Store(total) }

// Take takes n bytes and reports whether they were available. The caller must [Bytes.Give]
// them back.
func (b *Bytes) Take(n int64) bool {
	if b.used.Add(n) > b.total.Load() {
		b.used.Add(-n)
		return false
	}
	return true
}

// Give returns n bytes to the budget.
func (b *Bytes) Give(n int64) { b.used.Add(-n) }

// Left returns how many bytes can be taken now. It is negative while more bytes are taken than a
// smaller new budget allows.
func (b *Bytes) Left() int64 { return b.total.Load() - b.used.Load() }

// Used returns how many bytes are taken.
func (b *Bytes) Used() int64 { return b.used.Load() }

// Total returns the size of the budget.
func (b *Bytes) Total() int64 { return b.total.Load() }
