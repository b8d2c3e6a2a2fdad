//go:build unix

package login_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"sallyport/auth/login"
)

// TestAttackFileWhileGatewayRuns does something to the file of ends while two gateways use it. A session that
// ended before, and one that ends meanwhile, serve at neither of them, nor after restarts.
func TestAttackFileWhileGatewayRuns(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, harm := range map[string]func(file string){
		"removed":           func(file string) { must(os.Remove(file)) },
		"cut to nothing":    func(file string) { must(os.Truncate(file, 0)) },
		"cut within a line": func(file string) { must(os.Truncate(file, 60)) },
		"cut to its header": func(file string) {
			text, err := os.ReadFile(file)
			must(err)
			for i, c := range text {
				if c == '\n' {
					must(os.Truncate(file, int64(i+1)))
					return
				}
			}
		},
		"a pipe":          func(file string) { must(os.Remove(file)); must(syscall.Mkfifo(file, 0o600)) },
		"a folder":        func(file string) { must(os.Remove(file)); must(os.Mkdir(file, 0o700)) },
		"a link":          func(file string) { must(os.Rename(file, file+".else")); must(os.Symlink(file+".else", file)) },
		"another content": func(file string) { must(os.WriteFile(file, []byte("a: b\n"), 0o600)) },
		"zeros": func(file string) {
			info, err := os.Stat(file)
			must(err)
			must(os.WriteFile(file, make([]byte, info.Size()+100), 0o600))
		},
		"for others": func(file string) { must(os.Chmod(file, 0o606)) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, withState(t))
			other := d.beside()
			before, during := d.browser(), d.browser()
			left := before.signIn()
			staying := during.signIn()
			if err := endings(d)["sign-out"](left); err != nil {
				t.Fatal(err)
			}
			other.memory.Logins().Follow()
			d.clock.Add(time.Second)
			harm(d.config.State)
			if err := endings(d)["sign-out"](staying); err != nil {
				wantReason(t, "the end meanwhile", err, login.EndUnsaved)
			}
			d.memory.Logins().Follow()
			other.memory.Logins().Follow()
			for _, at := range []*desk{d, other} {
				before.on(at).refused(login.SessionEnded)
			}
			during.on(d).refused(login.SessionEnded)
			if info, err := os.Lstat(d.config.State); err != nil || !info.Mode().IsRegular() || name == "another content" || name == "zeros" { // as the fault says
				must(os.RemoveAll(d.config.State))
			}
			_ = os.Chmod(d.config.State, 0o600)
			d.clock.Add(20 * time.Second)
			for _, m := range []*login.Memory{d.memory.Logins(), other.memory.Logins()} {
				for m.Follow(); m.Files()[0].Unsaved > 0 || m.Files()[0].Fault != nil; time.Sleep(time.Millisecond) {
					m.Follow()
				}
			}
			other.memory.Logins().Follow() // what the first one has stored meanwhile
			d.clock.Add(time.Second)
			victim := d.browser()
			victim.signIn()
			for range 2 {
				for _, at := range []*desk{d, other} {
					before.on(at).refused(login.SessionEnded)
					during.on(at).refused(login.SessionEnded)
					victim.on(at).serves("issuer/corp:alice")
				}
				d.restart()
				other.restart()
			}
		})
	}
}
