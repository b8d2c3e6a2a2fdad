package wire

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Life is until when a request is worth anything: until its client has gone away, its
// handler has returned, or somebody has ended it. It is a [context.Context] that costs
// nothing until somebody waits for it. The zero Life goes on. It is safe for concurrent
// use and must not be copied.
type Life struct {
	over atomic.Bool

	mu    sync.Mutex // guards what follows
	cause error
	done  chan struct{} // nil until somebody asks
	told  func()
}

var _ context.Context = (*Life)(nil)

// End ends the life, once: of several causes the first counts; nil stands for
// [context.Canceled].
func (l *Life) End(cause error) {
	if cause == nil {
		cause = context.Canceled
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return
	}
	l.cause = cause
	l.over.Store(true)
	if l.done != nil {
		close(l.done)
	}
	if l.told != nil {
		go l.told()
		l.told = nil
	}
}

// Cause is why it ended; nil while it goes on.
func (l *Life) Cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// Notify has f called in a goroutine of its own when the life ends, at once if it has;
// nil takes the last f back. There is one f at a time. It says whether the one before
// was taken back in time; without one that is true.
func (l *Life) Notify(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.cause == nil:
		l.told = f
		return true
	case f != nil:
		go f()
	}
	return false
}

// Deadline is none.
func (l *Life) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is closed when the life ends.
func (l *Life) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.cause != nil {
			close(l.done)
		}
	}
	return l.done
}

// Err is [context.Canceled] once the life has ended; see [Life.Cause].
func (l *Life) Err() error {
	if !l.over.Load() {
		return nil
	}
	return context.Canceled
}

// Value is none.
func (l *Life) Value(any) any { return nil }

// Cause is why a context ended, a [Life] or another one; nil while it goes on.
func Cause(ctx context.Context) error {
	if l, ok := ctx.(*Life); ok {
		return l.Cause()
	}
	return context.Cause(ctx)
}

// Watch has f called when a context ends, and returns how to take that back, which
// says whether it was in time. For a [Life] it makes no goroutine and no garbage.
func Watch(ctx context.Context, f func()) Watching {
	if l, ok := ctx.(*Life); ok {
		l.Notify(f)
		return Watching{life: l}
	}
	if ctx.Done() == nil {
		return Watching{}
	}
	return Watching{stop: context.AfterFunc(ctx, f)}
}

// Watching is what [Watch] began. The zero Watching is nothing.
type Watching struct {
	life *Life
	stop func() bool
}

// Stop takes it back, and says whether that was in time. Later calls say true.
func (w *Watching) Stop() bool {
	life, stop := w.life, w.stop
	*w = Watching{}
	switch {
	case life != nil:
		return life.Notify(nil)
	case stop != nil:
		return stop()
	}
	return true
}
