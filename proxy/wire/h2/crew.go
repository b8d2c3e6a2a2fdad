package h2

import "sync"

// crew runs handlers in reused goroutines: the stack of a new one would first have to grow. The
// zero value is ready for use. It is safe for concurrent use.
type crew struct {
	mu   sync.Mutex // guards the fields below
	free []chan *stream
	all  int // number of goroutines
	low  int // minimum number free since the last call of thin
}

// run serves a stream in a free or new goroutine.
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

// thin ends the goroutines that were free since its last call, or with all every free one. It
// reports whether any goroutine is left.
func (w *crew) thin(all bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.low
	if all {
		n = len(w.free)
	}
	for _, next := range w.free[:n] { // those free longest come first
		next <- nil
	}
	left := copy(w.free, w.free[n:])
	clear(w.free[left:])
	w.free = w.free[:left]
	w.all -= n
	w.low = left
	return w.all > 0
}
