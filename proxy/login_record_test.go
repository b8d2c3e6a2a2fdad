package proxy_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"sallyport/auth/login"
)

// Every login and logout has a record that says whose it is, by which login, from which address.
func TestRecordsOfLoginsAndLogouts(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(false)
	l.provider.Person("alice", map[string]any{"sid": "sid-1"})
	b.signIn()
	b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	l.provider.Person("alice", map[string]any{"sid": "sid-2"})
	b.signIn()
	end := func(sid, sub string) {
		token := l.provider.LogoutToken(sid, sub, func(claims map[string]any) { claims["jti"] = "jti-" + sid + sub })
		r := l.do("POST", login.BackChannelPath, url.Values{"logout_token": {token}}.Encode(), map[string]string{"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"})
		if r.StatusCode != 200 {
			t.Fatalf("back-channel logout: %d %s", r.StatusCode, r.body)
		}
	}
	end("sid-2", "")
	end("", "alice")
	l.provider.Refuse("access_denied")
	b.request("GET", b.answer("/"), "", nil)
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rec := range l.audit.records(t) {
		if rec["login_event"] == nil {
			continue
		}
		line := fmt.Sprint(rec["login_event"], " ", rec["login"])
		for _, name := range []string{"principal", "sid", "credential_id", "reason", "cause"} {
			if v := rec[name]; v != nil {
				line += fmt.Sprintf(" %s=%v", name, v)
			}
		}
		if got = append(got, line); rec["client"] != "127.0.0.1" || rec["id"] == "" {
			t.Errorf("the record has no address or number: %v", rec)
		}
	}
	want := `begun corp
signed_in corp principal=issuer/corp:alice sid=sid-1
signed_out corp principal=issuer/corp:alice sid=sid-1
begun corp
signed_in corp principal=issuer/corp:alice sid=sid-2
ended corp sid=sid-2 credential_id=jti-sid-2 cause=the session with this sid
ended corp credential_id=jti-alice cause=all sessions of sub "alice"
begun corp
refused corp reason=login_refused cause=the issuer says "access_denied"`
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("the records are\n%s\nwant\n%s", got, want)
	}
}
