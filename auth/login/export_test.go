package login

import "time"

// Settle waits for the refreshes and revocations that run.
func (l *Login) Settle() { l.memory.work.Wait() }

// SetLeaving sets how long revocations wait for the issuer's own sign-out.
func (m *Memory) SetLeaving(d time.Duration) { m.leaving = d }
