package local

import (
	"testing"
	"time"
)

// startConfig is what a store that has begun is made from.
type startConfig struct {
	Nonces, PerKey int
	Window, Skew   time.Duration
	State          string
	Now            func() time.Time
}

// started makes a store and begins it.
func started(c startConfig) (*Replay, error) {
	r, err := New(Config{Bounds{c.Nonces, c.PerKey, c.Window, c.Skew}, c.Now})
	if err != nil {
		return nil, err
	}
	if err := r.Begin(c.State); err != nil {
		return nil, err
	}
	return r, nil
}

// crash does what the end of the process does to the lock.
func (r *Replay) crash(t testing.TB) {
	t.Helper()
	if r.lock == nil {
		return
	}
	if err := r.lock.Close(); err != nil {
		t.Error(err)
	}
}
