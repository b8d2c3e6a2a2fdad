package login_test

import (
	"slices"
	"testing"
	"time"

	"sallyport/auth/login"
)

// TestLongerIdleTimeKeepsSessions makes the idle lifetime longer. Nobody has used the session since, so
// that it is of the old configuration.
func TestLongerIdleTimeKeepsSessions(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Memory, d.config.Idle = true, time.Hour })
	b := d.browser()
	b.signIn()
	d.config.Idle = 4 * time.Hour
	d.reload()
	d.clock.Add(2 * time.Hour)
	d.memory.Logins().Sweep()
	b.serves("issuer/corp:alice")
	d.clock.Add(4 * time.Hour)
	d.memory.Logins().Sweep()
	if n := d.login.Live(); n != 0 {
		t.Errorf("%d sessions live on", n)
	}
}

// TestRevocationHasTheNewSecret replaces the client's secret while a revocation waits. The issuer no longer takes
// the old one.
func TestRevocationHasTheNewSecret(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.memory.Logins().SetLeaving(time.Second) })
	b := d.browser()
	b.signOut(b.signIn())
	d.provider.Replace("new-secret-of-client")
	d.config.ClientSecret = "new-secret-of-client"
	d.reload()
	d.login.Settle()
	if n, left, failed := d.provider.Revocations(), d.provider.RefreshTokens(), d.memory.Logins().Unrevoked(); n != 1 || left != 0 || failed != 0 {
		t.Errorf("%d revocations, %d tokens are left, %d failed", n, left, failed)
	}
}

// TestRevocationThatIsNoLongerWanted turns revocations off while one waits.
func TestRevocationThatIsNoLongerWanted(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.memory.Logins().SetLeaving(time.Second) })
	b := d.browser()
	b.signOut(b.signIn())
	d.config.KeepTokens = true
	d.reload()
	d.login.Settle()
	if n, failed := d.provider.Revocations(), d.memory.Logins().Unrevoked(); n != 0 || failed != 0 {
		t.Errorf("%d revocations, %d failed", n, failed)
	}
}

// TestReloadDuringRefresh: a refresh that began under the configuration before brings new groups, and the tokens that
// the new one passes on, without another refresh.
func TestReloadDuringRefresh(t *testing.T) {
	for _, of := range append(everyPassed, login.Passed{}) {
		for _, memory := range []bool{false, true} {
			d := newDesk(t, passing(login.Passed{}, memory), func(d *desk) { d.config.Keys = mustKeys(t) })
			d.provider.Person("alice", map[string]any{"groups": []string{"old"}})
			b := d.browser()
			b.signIn()
			g := d.givesOf(func(claims map[string]any) { claims["groups"] = []string{"new"} }, nil)
			hold, held := d.holdTokens()
			d.clock.Add(4 * time.Minute)
			b.serves("issuer/corp:alice")
			<-held
			d.config.Passed = of
			d.reload()
			close(hold)
			d.login.Settle()
			b.passed("refreshed meanwhile", g)
			if p, err := b.ask(); err != nil || !slices.Equal(p.Caller.Groups, []string{"new"}) {
				t.Errorf("in memory %t, passes %+v: got the groups %q, %v", memory, of, p.Caller.Groups, err)
			}
			d.settle(1)
		}
	}
}
