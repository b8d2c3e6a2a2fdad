package limit

import "sync/atomic"

// Bytes is a budget of memory that many share. It is safe for concurrent use.
type Bytes struct{ total, used atomic.Int64 }

// NewBytes allows total bytes at once; zero or less allows none.
func NewBytes(total int64) *Bytes {
	b := &Bytes{}
	b.Resize(total)
	return b
}

// Resize changes how many bytes are allowed at once. What is taken stays taken: after the
// budget was made smaller than that, nobody gets more until enough was given back.
func (b *Bytes) Resize(total int64) { b.total.Store(total) }

// Take takes n bytes and says whether there were as many. Who got them must
// [Bytes.Give] them back.
func (b *Bytes) Take(n int64) bool {
	if b.used.Add(n) > b.total.Load() {
		b.used.Add(-n)
		return false
	}
	return true
}

// Give gives n bytes back.
func (b *Bytes) Give(n int64) { b.used.Add(-n) }

// Left is how many can be taken now; below zero after the budget was made smaller than
// what is taken.
func (b *Bytes) Left() int64 { return b.total.Load() - b.used.Load() }

// Used is how many are taken.
func (b *Bytes) Used() int64 { return b.used.Load() }

// Total is how many there are in all.
func (b *Bytes) Total() int64 { return b.total.Load() }
