package login_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
)

// withState keeps sessions over restarts, and their ends in a file.
func withState(t *testing.T) func(*desk) {
	file, keys := filepath.Join(t.TempDir(), "ends"), mustKeys(t)
	return func(d *desk) { d.config.Keys, d.config.State = keys, file }
}

// restart gives the desk the memory of another process.
func (d *desk) restart() {
	d.t.Helper()
	d.auth.Close()
	d.auth, d.memory = nil, newMemory(d)
	d.reload()
}

// beside returns a second gateway with the same keys and file.
func (d *desk) beside() *desk {
	d.t.Helper()
	other := *d
	other.auth, other.memory = nil, newMemory(d)
	other.reload()
	return &other
}

// on returns a browser with the same cookies at another gateway.
func (b *browser) on(d *desk) *browser { return &browser{d, b.cookies} }

// endings are the ways in which a session ends.
func endings(d *desk) map[string]func(s *login.Session) error {
	logout := func(sid, sub string) error {
		_, err := d.auth.BackChannel(d.t.Context(), request(host, ""), d.provider.LogoutToken(sid, sub, nil))
		return err
	}
	return map[string]func(s *login.Session) error{
		"sign-out": func(s *login.Session) error {
			_, err := d.login.End(d.t.Context(), s, login.Answer{Host: host, Origin: origin})
			return err
		},
		"back channel by sid": func(s *login.Session) error { return logout(s.SID(), "") },
		"back channel by sub": func(*login.Session) error { return logout("", "mallory") },
		"refused refresh": func(s *login.Session) error {
			d.provider.Forget()
			d.clock.Add(50 * time.Minute)
			p, err := s.Use(host, d.clock.Now(), true)
			if err == nil && p.Name == "" {
				d.t.Error("nobody")
			}
			d.login.Settle()
			return err
		},
	}
}

// TestAttackCookieAfterRestart uses the copy of a cookie whose session has ended, after a restart and at
// another gateway. The session of somebody else goes on.
func TestAttackCookieAfterRestart(t *testing.T) {
	for _, name := range []string{"sign-out", "back channel by sid", "back channel by sub", "refused refresh"} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, withState(t), func(d *desk) { d.config.Idle, d.config.Scopes = 4*time.Hour, []string{"offline_access"} })
			other := d.beside()
			d.provider.Person("mallory", nil)
			attacker := d.browser()
			s := attacker.signIn()
			d.clock.Add(time.Second)
			victim := d.browser()
			if name != "refused refresh" { // which withdraws all tokens
				d.provider.Person("victim", nil)
				victim.signIn()
			}
			attacker.on(other).serves("issuer/corp:mallory")
			if err := endings(d)[name](s); err != nil {
				t.Fatal(err)
			}
			attacker.refused(login.SessionEnded)
			attacker.on(other).serves("issuer/corp:mallory") // within a second
			other.memory.Logins().Follow()
			attacker.on(other).refused(login.SessionEnded)
			other.login.Settle()
			if name == "refused refresh" {
				d.provider.Person("victim", nil)
				victim.signIn()
			}
			d.restart()
			attacker.on(d).refused(login.SessionEnded)
			victim.on(d).serves("issuer/corp:victim")
			victim.on(other).serves("issuer/corp:victim")
		})
	}
}

// Ends of one login are not those of another client, though they share the file.
func TestLoginsShareTheFile(t *testing.T) {
	d := newDesk(t, withState(t))
	b := d.browser()
	s := b.signIn()
	if err := endings(d)["sign-out"](s); err != nil {
		t.Fatal(err)
	}
	d.clock.Add(time.Second)
	another := newDesk(t, func(n *desk) {
		n.config.Keys, n.config.State = d.config.Keys, d.config.State
		n.config.MaxAge = time.Hour
	})
	v := another.browser()
	v.signIn()
	v.serves("issuer/corp:alice")
	if n := len(another.memory.Logins().Files()); n != 1 {
		t.Errorf("%d files", n)
	}
}

// TestAttackLostFile removes the file with the end of a session. No session that began before it was made
// anew serves, but people sign in again.
func TestAttackLostFile(t *testing.T) {
	d := newDesk(t, withState(t))
	b, honest := d.browser(), d.browser()
	s := b.signIn()
	honest.signIn()
	if err := endings(d)["sign-out"](s); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.config.State); err != nil {
		t.Fatal(err)
	}
	d.clock.Add(time.Second)
	d.restart() // people sign in again in the same second
	b.on(d).refused(login.SessionEnded)
	honest.on(d).refused(login.SessionEnded)
	honest = d.browser()
	honest.signIn()
	honest.serves("issuer/corp:alice")
	d.restart()
	honest.on(d).serves("issuer/corp:alice")
}

// An end that the disk does not take counts at once, and the caller is told that it may not last.
func TestEndThatIsNotStored(t *testing.T) {
	d := newDesk(t, withState(t))
	d.provider.Person("mallory", nil)
	first, second, third := d.browser(), d.browser(), d.browser()
	s := first.signIn()
	bySID := second.signIn()
	third.signIn()
	kept, err := os.ReadFile(d.config.State)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.config.State); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.config.State, 0o700); err != nil {
		t.Fatal(err)
	}
	ends := endings(d)
	wantReason(t, "sign-out", ends["sign-out"](s), login.EndUnsaved)
	first.refused(login.SessionEnded)
	wantReason(t, "by sid", ends["back channel by sid"](bySID), login.EndUnsaved)
	second.refused(login.SessionEnded)
	wantReason(t, "by sub", ends["back channel by sub"](nil), login.EndUnsaved)
	third.refused(login.SessionEnded)
	wantReason(t, "again", ends["back channel by sub"](nil), login.EndUnsaved)
	files := d.memory.Logins().Files()
	if len(files) != 1 || files[0].Unsaved != 3 || files[0].Failures != 4 || files[0].Fault == nil || !strings.Contains(files[0].Fault.Error(), "is not a regular file") {
		t.Errorf("status %+v", files)
	}

	if err := os.Remove(d.config.State); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.config.State, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ends["back channel by sub"](nil); err != nil { // the issuer tries again
		t.Error(err)
	}
	if files = d.memory.Logins().Files(); files[0].Unsaved != 0 || files[0].Fault != nil || files[0].Lines != 3 {
		t.Errorf("status %+v", files)
	}
	d.restart()
	for _, b := range []*browser{first, second, third} {
		b.on(d).refused(login.SessionEnded)
	}
}

// A configuration that never serves ends nobody's session by its new file, and a file cannot be changed.
func TestReloadOfState(t *testing.T) {
	d := newDesk(t, withState(t), func(d *desk) { d.config.State = "" })
	b := d.browser()
	b.signIn()
	path := filepath.Join(t.TempDir(), "ends")
	build := func(state string) (*auth.Auth, error) {
		c := d.config
		c.State = state
		return auth.New(auth.Config{Issuers: map[string]auth.IssuerConfig{"corp": d.rules}, Logins: map[string]login.Config{"corp": c}}, d.memory)
	}
	a, err := build(path)
	if err != nil {
		t.Fatal(err)
	}
	b.serves("issuer/corp:alice")
	if err := os.Remove(path); err != nil { // until then the file is of no use
		t.Fatal(err)
	}
	d.memory.Logins().Follow()
	if _, err := os.Stat(path); err == nil || len(d.memory.Logins().Files()) != 0 {
		t.Errorf("the file of a configuration that does not serve is used: %v", d.memory.Logins().Files())
	}
	a.Activate()
	t.Cleanup(a.Close)
	b.refused(login.SessionEnded)
	if got := d.memory.Logins().StatePath("corp", "gateway"); got != path {
		t.Errorf("the file is %q", got)
	}
	if _, err := build(path + "2"); err == nil || !strings.Contains(err.Error(), "session.state cannot change while the gateway runs, which holds "+path) {
		t.Errorf("got %v", err)
	}
	if _, err := build("/dev/null"); err == nil || !strings.Contains(err.Error(), "session.state: /dev/null: is not a regular file; name another file") {
		t.Errorf("got %v", err)
	}
}

// Ends of a time without the file are stored when there is one.
func TestEndsOfBeforeAreStored(t *testing.T) {
	d := newDesk(t, withState(t))
	file := d.config.State
	d.clock.Add(time.Second)
	d.config.State = "" // the file exists, and this process does not use it yet
	d.restart()
	b := d.browser()
	s := b.signIn()
	if err := endings(d)["sign-out"](s); err != nil {
		t.Fatal(err)
	}
	d.config.State = file
	d.reload()
	d.restart()
	b.on(d).refused(login.SessionEnded)
}

// The file of a configuration that was refused is open no longer than until the next one that counts.
func TestFilesOfRefusedConfigurationsAreClosed(t *testing.T) {
	d := newDesk(t, withState(t))
	b := d.browser()
	b.signIn()
	build := func(state string) *auth.Auth {
		c := d.config
		other := c
		other.ClientID, other.State = "other", state
		a, err := auth.New(auth.Config{Issuers: map[string]auth.IssuerConfig{"corp": d.rules}, Logins: map[string]login.Config{"corp": c, "other": other}}, d.memory)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, name := range []string{"1", "2", "3"} {
		build(d.config.State + name).Close() // something else in it was at fault
	}
	a := build(d.config.State + "4")
	a.Activate()
	t.Cleanup(a.Close)
	if got := d.memory.Logins().OpenFiles(); len(got) != 2 || got[0] != d.config.State || got[1] != d.config.State+"4" {
		t.Errorf("open: %v", got)
	}
	b.serves("issuer/corp:alice")
}
