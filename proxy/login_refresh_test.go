package proxy_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
)

// TestRefusedRefreshIsRecorded: an issuer that refuses to refresh ends a session while no request asks
// about it. The record and the count of logins say so; another person's session goes on.
func TestRefusedRefreshIsRecorded(t *testing.T) {
	clock := &shiftedClock{}
	l := openLobby(t, plan{options: proxy.Options{Now: clock.now}})
	alice, victim := l.browser(true), l.browser(false)
	l.provider.Person("alice", map[string]any{"sid": "sid-of-alice"})
	alice.signIn()
	l.provider.Forget() // her refresh token, as at a changed password
	l.provider.Person("alice", nil)
	victim.signIn()
	l.provider.Change(func(claims map[string]any) { claims["exp"] = clock.now().Add(time.Hour).Unix() }, nil)
	clock.ahead.Add(int64(50 * time.Minute))
	eventually(t, "the end of the session", func() bool {
		r := alice.request("GET", "/", "", map[string]string{"Accept": "*/*"})
		return r.StatusCode == 401 && r.reason() == "session_ended"
	})
	var ended map[string]any
	eventually(t, "the record of the end", func() bool {
		for _, r := range l.audit.records(t) {
			if r["login_event"] == "ended" {
				ended = r
			}
		}
		return ended != nil
	})
	id, _ := ended["credential_id"].(string)
	if cause, _ := ended["cause"].(string); ended["principal"] != "issuer/corp:alice" || ended["login"] != "corp" || ended["sid"] != "sid-of-alice" ||
		ended["reason"] != "session_ended" || !strings.HasPrefix(id, "login-") || !strings.Contains(cause, "at its refresh: ") || !strings.Contains(cause, "invalid_grant") {
		t.Errorf("the record is %v", ended)
	}
	text := l.metrics()
	if want := `sallyport_logins_total{event="ended",login="corp",reason="session_ended"} 1`; !strings.Contains(text, want) {
		t.Errorf("the metrics lack %s", want)
	}
	if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, r.body)
	}
}
