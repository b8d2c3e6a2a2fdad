package h2

// sending is a send window (RFC 9113, section 5.2). It may be negative: SETTINGS can shrink it.
type sending int64

// grant widens the window; false if it would exceed the maximum.
func (w *sending) grant(n uint32) bool {
	*w += sending(n)
	return *w <= maxWindow
}

// receiving is a receive window. Updates are sent once half of it is used, so that small messages
// cost none. It doubles, up to a limit, while the reader is faster than the arriving data, so that
// the round trip does not limit large uploads.
type receiving struct {
	left int // bytes the peer may still send
	owed int // bytes read but not yet granted again
	size int // left when owed is 0 and nothing is unread
	most int // limit of size
	// widen asks whether size may grow by n bytes; nil means yes.
	widen func(int) bool
}

// arrive subtracts n bytes from the window; false if the peer exceeded it.
func (w *receiving) arrive(n int) bool {
	if n > w.left {
		return false
	}
	w.left -= n
	return true
}

// read counts n bytes that were read or discarded. starving means that no unread bytes are left. It
// returns the increment to grant the peer now, usually 0.
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

// updates counts the WINDOW_UPDATE frames that content justifies from its receiver, and that have
// not come yet. They have a budget of their own: a receiver with large windows may send those for
// all content in flight at once, long after it was sent.
type updates int

// maxUpdates is what 128 MiB in flight justify.
const maxUpdates = 1 << 16

// sent counts n bytes of content: some receivers open the windows of stream and connection again
// for every 4 KiB.
func (u *updates) sent(n int) { *u = min(*u+updates(n/(2<<10)), maxUpdates) }

// take reports whether a WINDOW_UPDATE is justified, and counts it.
func (u *updates) take() bool {
	if *u == 0 {
		return false
	}
	*u--
	return true
}
