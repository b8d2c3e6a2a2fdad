package wire

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Life is the context of a request. It ends when the client goes away, the handler returns or
// somebody calls End. It implements [context.Context] and allocates nothing until somebody waits on
// it. The zero Life has not ended. It is safe for concurrent use and must not be copied.
type Life struct {
	over atomic.Bool

	mu    sync.Mutex // guards the fields below
	cause error
	done  chan struct{} // nil until Done is called
	told  func()
}

var _ context.Context = (*Life)(nil)

// End ends the life. Only the first call counts; a nil cause means [context.Canceled].
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

// Cause returns why the life ended, or nil if it has not.
func (l *Life) Cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// Notify calls f in a new goroutine when the life ends, or at once if it has ended. There is one f
// at a time; nil removes it. Notify returns false if the life has ended.
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

// Deadline reports that a Life has no deadline.
func (l *Life) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done returns a channel that is closed when the life ends.
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

// Err returns [context.Canceled] once the life has ended; [Life.Cause] returns the reason.
func (l *Life) Err() error {
	if !l.over.Load() {
		return nil
	}
	return context.Canceled
}

// Value returns nil: a Life carries no values.
func (l *Life) Value(any) any { return nil }

// Cause returns why a context ended, be it a [Life] or another context; nil if it has not.
func Cause(ctx context.Context) error {
	if l, ok := ctx.(*Life); ok {
		return l.Cause()
	}
	return context.Cause(ctx)
}

// Watch calls f when ctx ends, until the returned Watching is stopped. For a [Life] it starts no
// goroutine and allocates nothing.
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

// Watching is a registration made by [Watch]. The zero Watching watches nothing.
type Watching struct {
	life *Life
	stop func() bool
}

// Stop removes the registration and returns whether f was still to be called. Later calls return
// true.
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
