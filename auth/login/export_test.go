package login

import (
	"maps"
	"slices"
	"time"
)

// Settle waits for the refreshes and revocations that run.
func (l *Login) Settle() { l.memory.work.Wait() }

// SetLeaving sets how long revocations wait for the issuer's own sign-out.
func (m *Memory) SetLeaving(d time.Duration) { m.leaving = d }

// OpenFiles returns the names of the open files with ends of sessions.
func (m *Memory) OpenFiles() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.files))
}
