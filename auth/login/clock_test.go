package login_test

import (
	"testing"
	"time"

	"sallyport/auth/login"
	"sallyport/auth/login/endfile"
)

// TestSignInAfterClockIsSetBack starts a gateway whose clock is ahead, as that of a machine before its time
// service answers. What ended by that clock must not end the sign-ins of the time that is right.
func TestSignInAfterClockIsSetBack(t *testing.T) {
	d := newDesk(t, withState(t))
	early := d.browser()
	s := early.signIn()
	early.serves("issuer/corp:alice")
	d.clock.Add(-3 * time.Hour)
	b := d.browser()
	again := b.signIn()
	b.serves("issuer/corp:alice")
	d.clock.Add(2 * time.Minute)
	all, err := revocations(t, "principal issuer/corp:alice before "+d.clock.Now().UTC().Format(time.RFC3339))
	if err != nil {
		t.Fatal(err)
	}
	d.auth.Revoke(all)
	b.refused("revoked")
	d.auth.Revoke(nil)
	for _, s := range []*login.Session{s, again} {
		if err := endings(d)["sign-out"](s); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		early.on(d).refused(login.SessionEnded)
		b.on(d).refused(login.SessionEnded)
		d.restart()
	}
	b = d.browser()
	b.signIn()
	b.serves("issuer/corp:alice")
}

// TestEndsOutliveAClockAhead moves the clock beyond what ends are kept for, and back.
func TestEndsOutliveAClockAhead(t *testing.T) {
	d := newDesk(t, withState(t))
	b := d.browser()
	s := b.signIn()
	d.clock.Add(time.Minute)
	if err := endings(d)["sign-out"](s); err != nil {
		t.Fatal(err)
	}
	b.refused(login.SessionEnded)
	d.clock.Add(time.Minute)
	victim := d.browser()
	victim.signIn()
	d.clock.Add(2 * login.MaxAbsolute)
	d.memory.Logins().Sweep()
	d.clock.Add(-2 * login.MaxAbsolute)
	for range 2 {
		b.on(d).refused(login.SessionEnded)
		victim.on(d).serves("issuer/corp:alice")
		d.restart()
	}
}

// TestEndOfASessionThatBeganAhead signs out after the clock was set back, and then more people do than have an end of
// their own.
func TestEndOfASessionThatBeganAhead(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	s := b.signIn()
	d.clock.Add(-3 * time.Minute)
	if err := endings(d)["sign-out"](s); err != nil {
		t.Fatal(err)
	}
	d.clock.Add(10 * time.Second)
	d.login.EndOthers(endfile.MaxEnds + 1)
	b.refused(login.SessionEnded)
	d.clock.Add(4 * time.Minute)
	victim := d.browser()
	victim.signIn()
	victim.serves("issuer/corp:alice")
}
