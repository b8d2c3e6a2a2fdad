package local

import (
	"testing"
	"time"
)

// startConfig configures a started store.
type startConfig struct {
	Nonces, PerKey int
	Window, Skew   time.Duration
	State          string
	Now            func() time.Time
}

// started returns a store after Begin.
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

// crash releases the lock, as the end of a process does.
func (r *Replay) crash(t testing.TB) {
	t.Helper()
	if r.lock == nil {
		return
	}
	if err := r.lock.Close(); err != nil {
		t.Error(err)
	}
}
