package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/login"
	"sallyport/proxy"
)

// stateOf returns the file with the ends of sessions of the login corp.
func stateOf(t *testing.T, l *lobby) string {
	t.Helper()
	cfg, err := proxy.LoadConfig(l.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(cfg.Logins["corp"].Session.State)
}

// blockEnds lets no more ends be stored: a folder takes the place of the file.
func blockEnds(t *testing.T, l *lobby) {
	t.Helper()
	state := stateOf(t, l)
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
}

// withCookie sends a request with the copy of somebody's cookie.
func (l *lobby) withCookie(path, cookie string) *reply {
	l.t.Helper()
	return l.do("GET", path, "", map[string]string{"Authorization": "", "Cookie": cookie})
}

// endBy tells the gateway by its back channel that sessions ended.
func (l *lobby) endBy(token string) *reply {
	l.t.Helper()
	return l.do("POST", login.BackChannelPath, url.Values{"logout_token": {token}}.Encode(), map[string]string{"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"})
}

// TestAttackSessionAfterRestart keeps copies of cookies of sessions that end in each way, restarts the
// gateway, and shows them again. Another gateway with the same file, as at an upgrade of the binary,
// refuses them too. The session of somebody else goes on over all that.
func TestAttackSessionAfterRestart(t *testing.T) {
	t.Parallel()
	l := openLobby(t, plan{routes: strings.Replace(loginRoutes, "issuer/corp:alice", "[issuer/corp:alice, issuer/corp:mallory]", 1)})
	first := l.house.addrs
	leaver := l.browser(false)
	left := leaver.signInWith("corp")
	const endedSID = "sid-of-the-ended"
	l.provider.Person("alice", map[string]any{"sid": endedSID})
	ended := l.browser(false).signInWith("corp")
	l.provider.Person("mallory", nil)
	fired := l.browser(false).signInWith("corp")
	l.provider.Person("alice", nil)
	victim := l.browser(false).signInWith("corp")

	second := *l
	second.house = l.house.in(t)
	second.house.restart() // beside the first one
	for name, cookie := range map[string]string{"left": left, "ended": ended, "fired": fired, "victim": victim} {
		if r := second.withCookie("/", cookie); r.StatusCode != 200 {
			t.Fatalf("%s at the second gateway: %d %s", name, r.StatusCode, r.body)
		}
	}
	if first.HTTPS[0].String() == second.house.addrs.HTTPS[0].String() {
		t.Fatal("there is one gateway")
	}
	leaver.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	for _, token := range []string{l.provider.LogoutToken(endedSID, "", nil), l.provider.LogoutToken("", "mallory", nil)} {
		if r := l.endBy(token); r.StatusCode != 200 {
			t.Fatalf("back channel: %d %s", r.StatusCode, r.body)
		}
	}
	all := map[string]string{"sign-out": left, "back channel by sid": ended, "back channel by sub": fired}
	for name, cookie := range all {
		for deadline := time.Now().Add(time.Minute); second.withCookie("/", cookie).StatusCode != 401; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the second gateway does not know it", name)
			}
		}
	}
	hits := l.model.hits.Load()
	for _, h := range []*house{l.house, second.house} {
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
	}
	l.restart()
	for name, cookie := range all {
		if r := l.withCookie("/", cookie); r.StatusCode != 401 || r.reason() != "session_ended" {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	if n := l.model.hits.Load(); n != hits {
		t.Errorf("the upstream saw %d requests", n-hits)
	}
	if r := l.withCookie("/", victim); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, r.body)
	}
	text, err := os.ReadFile(stateOf(t, l))
	if err != nil {
		t.Fatal(err)
	}
	mustNotHold(t, "the file", string(text), "alice", "mallory", endedSID, "corp", "gateway")
	if info, err := os.Stat(stateOf(t, l)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
}

// TestSignOutThatIsNotStored signs out while the file cannot be written. The person is signed out, the
// answer and the record are honest, and metrics and readiness show it.
func TestSignOutThatIsNotStored(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(false)
	cookie := b.signInWith("corp")
	blockEnds(t, l)
	r := b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	var said struct {
		SignedOut bool `json:"signed_out"`
		Stored    *bool
	}
	if err := json.Unmarshal([]byte(r.body), &said); err != nil || r.StatusCode != 200 || !said.SignedOut || said.Stored == nil || *said.Stored {
		t.Errorf("got %d %s", r.StatusCode, r.body)
	}
	l.refused(l.withCookie("/", cookie), 401, "session_ended")
	l.refused(l.endBy(l.provider.LogoutToken("sid-x", "", nil)), 503, "session_unsaved")
	metrics := l.get("/metrics")
	ready := l.get("/readyz")
	for _, want := range []string{"sallyport_session_file_unsaved 2", "sallyport_session_file_write_failures_total 2", "sallyport_session_file_fault 1"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if !strings.Contains(ready, "sallyport-sessions: is not a regular file") {
		t.Errorf("readyz: %s", ready)
	}
	// A sign-out without a session is recorded with the reason.
	if r := l.do("POST", login.SignOutPath, "", map[string]string{"Authorization": "", "Cookie": cookie, "Sec-Fetch-Site": "same-origin"}); r.StatusCode != 200 {
		t.Errorf("again: %d %s", r.StatusCode, r.body)
	}
	if err := os.Remove(stateOf(t, l)); err != nil {
		t.Fatal(err)
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	events := map[string]string{}
	for _, record := range l.audit.records(t) {
		if event, _ := record["login_event"].(string); event != "" {
			events[event], _ = record["cause"].(string)
		}
	}
	if !strings.Contains(events["signed_out"], "session_unsaved: ") || !strings.HasPrefix(events["no_session"], "session_ended: ") {
		t.Errorf("events %q", events)
	}
}

// TestStateOfLoginsThatCannotBeUsed finds by check what serve would refuse, and refuses it at the start.
func TestStateOfLoginsThatCannotBeUsed(t *testing.T) {
	l := openLobby(t, plan{})
	state := stateOf(t, l)
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	remove := func() error { return os.RemoveAll(state) }
	for name, c := range map[string]struct {
		make func() error
		want string
	}{
		"a folder": {func() error { return os.Mkdir(state, 0o700) }, "is not a regular file; name another file"},
		"foreign":  {func() error { return os.WriteFile(state, []byte("a: b\n"), 0o600) }, "is not a file with ends of sessions; name another file"},
		"damaged": {func() error { return os.WriteFile(state, []byte(string(good)+"session x\n"), 0o600) },
			"is damaged; move the file away: all sessions end then, and people sign in again"},
		"writable": {func() error { return os.WriteFile(state, good, 0o600) }, "can be written by every user of this machine; chmod 600 " + state},
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		if name == "writable" {
			if err := os.Chmod(state, 0o602); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := proxy.LoadConfig(l.file)
		if err != nil {
			t.Fatal(err)
		}
		if err := cfg.CheckFiles(); err == nil || !strings.Contains(err.Error(), "logins.corp.session.state: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: check says %v", name, err)
		}
		if _, err := proxy.New(cfg, proxy.Options{}); err == nil || !strings.Contains(err.Error(), "login corp: session.state: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: serve says %v", name, err)
		}
	}
}

func TestReloadCannotChangeTheStateOfLogins(t *testing.T) {
	l := openLobby(t, plan{})
	cookie := l.browser(false).signInWith("corp")
	text, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"off", filepath.Join(t.TempDir(), "other")} {
		changed := strings.Replace(string(text), "session: {", "session: {state: '"+state+"', ", 1)
		if err := os.WriteFile(l.file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		r := l.gateway.Reload(t.Context())
		if len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Error(), "logins.corp.session.state: ") || !strings.Contains(r.Faults[0].Error(), "cannot change while the gateway runs") {
			t.Errorf("%s: %+v", state, r)
		}
	}
	if r := l.withCookie("/", cookie); r.StatusCode != http.StatusOK {
		t.Errorf("after the refused reload: %d %s", r.StatusCode, r.body)
	}
}
