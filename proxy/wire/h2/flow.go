package h2

// sending is the window of what may be sent (RFC 9113, section 5.2). It may be
// negative: a peer can take back what it granted.
type sending int64

// grant widens the window; false: it would be wider than there is.
func (w *sending) grant(n uint32) bool {
	*w += sending(n)
	return *w <= maxWindow
}

// receiving is the window of what the peer may send. Updates are sent once half of
// it is used up, so that small messages cost none, and it doubles, up to a bound,
// while whoever reads is faster than what arrives: large uploads are then not held up
// by the way there and back.
type receiving struct {
	left int // what the peer may still send
	owed int // what was read and is not granted again yet
	size int // what left is, with nothing owed
	most int // what size may grow to
	// widen asks whether it may grow by so much; nil: it may.
	widen func(int) bool
}

// arrive takes n bytes off the window; false: there were not so many.
func (w *receiving) arrive(n int) bool {
	if n > w.left {
		return false
	}
	w.left -= n
	return true
}

// read gives back n bytes that were read or thrown away. starving says that nothing
// was left to read behind them. It returns what to grant the peer now, mostly 0.
func (w *receiving) read(n int, starving bool) uint32 {
	w.owed += n
	if w.owed < w.size/2 {
		return 0
	}
	if more := min(w.size, w.most-w.size); starving && more > 0 && (w.widen == nil || w.widen(more)) {
		w.owed += more
		w.size += more
	}
	n, w.owed = w.owed, 0
	w.left += n
	return uint32(n)
}

// causes is how many frames so many bytes of content, sent to a peer, give it cause
// for: some grant windows again, of stream and connection, for every 4 KiB they read.
func causes(n int) int { return 2 + n/(2<<10) }
