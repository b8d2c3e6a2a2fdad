package h2

import "sync"

// crew runs handlers in goroutines that are kept for the next ones: a handler needs
// a stack that must grow first in a new one. The zero value is ready for use. It is
// safe for concurrent use.
type crew struct {
	mu   sync.Mutex // guards what follows
	free []chan *stream
	all  int // goroutines
	low  int // how few were free since the last thinning
}

// run serves a stream in some goroutine.
func (w *crew) run(s *stream) {
	w.mu.Lock()
	n := len(w.free) - 1
	if n < 0 {
		w.low = 0
		w.all++
		w.mu.Unlock()
		go w.work(s)
		return
	}
	next := w.free[n]
	w.free = w.free[:n]
	w.low = min(w.low, n)
	w.mu.Unlock()
	next <- s
}

// work serves streams until thin ends it.
func (w *crew) work(s *stream) {
	next := make(chan *stream, 1)
	for ; s != nil; s = <-next {
		s.serve()
		w.mu.Lock()
		w.free = append(w.free, next)
		w.mu.Unlock()
	}
}

// thin ends the goroutines that were free ever since it was last called, or all that
// are free, and says whether any are left.
func (w *crew) thin(all bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.low
	if all {
		n = len(w.free)
	}
	for _, next := range w.free[:n] { // the longest free come first
		next <- nil
	}
	left := copy(w.free, w.free[n:])
	clear(w.free[left:])
	w.free = w.free[:left]
	w.all -= n
	w.low = left
	return w.all > 0
}
