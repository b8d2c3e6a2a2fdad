package proxy_test

import (
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"sallyport/auth/login"
)

// TestAttackTokenOfSignOut reads the answers to sign-out, as a script of the application can. The issuer
// gets the ID token at sign-out, and nobody else may: it can be a bearer token elsewhere.
func TestAttackTokenOfSignOut(t *testing.T) {
	l := openLobby(t, plan{})
	victim := l.browser(false)
	victim.signIn()
	for name, header := range map[string]map[string]string{
		"a script": {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Accept": "application/json"},
		"a form":   {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"},
	} {
		b := l.browser(true)
		b.signIn()
		r := b.request("POST", login.SignOutPath, "", header)
		if strings.Contains(r.body, "eyJ") || strings.Contains(r.body, "id_token") {
			t.Errorf("%s: the answer has the ID token: %s", name, r.body)
		}
		var said struct{ Next string }
		if found := regexp.MustCompile(`href="(/.sallyport/leave[^"]*)"`).FindStringSubmatch(r.body); found != nil {
			said.Next = html.UnescapeString(found[1])
		} else if err := json.Unmarshal([]byte(r.body), &said); err != nil {
			t.Fatalf("%s: %v in %s", name, err, r.body)
		}
		toIssuer := func(b *browser, at string) bool {
			to := b.request("GET", at, "", nil).Header.Get("Location")
			if !strings.HasPrefix(to, l.issuer.URL+"/logout?") && to != login.SignedOutPath {
				t.Errorf("%s: sent to %s", name, to)
			}
			return strings.Contains(to, "id_token_hint=eyJ")
		}
		for _, other := range []*browser{l.browser(false), victim} {
			if toIssuer(other, said.Next) {
				t.Errorf("%s: another browser gets the ID token", name)
			}
		}
		if toIssuer(b, strings.Replace(said.Next, "login=corp", "login=more", 1)) || toIssuer(b, said.Next[:len(said.Next)-3]) {
			t.Errorf("%s: what was changed opens", name)
		}
		b.signIn() // what was tried has taken the cookie
		_ = json.Unmarshal([]byte(b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}).body), &said)
		if !toIssuer(b, said.Next) {
			t.Errorf("%s: the browser itself does not reach the issuer", name)
		}
		if toIssuer(b, said.Next) {
			t.Errorf("%s: it opens twice", name)
		}
	}
	l.untouched()
	if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, r.body)
	}
}

// TestAttackSignOutWhileClientIsAnother gives the login another client and takes that back. Meanwhile one person
// signs out, and the issuer ends the session of another: copies of their cookies stay useless.
func TestAttackSignOutWhileClientIsAnother(t *testing.T) {
	l := openLobby(t, plan{more: unwatched + loginSections})
	leaves, stays, fired := l.browser(false), l.browser(false), l.browser(false)
	copyOf := map[*browser]string{leaves: leaves.signIn(), stays: stays.signIn()}
	l.provider.Person("mallory", nil)
	copyOf[fired] = fired.signIn()
	serves := func(b *browser) *reply {
		return l.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": copyOf[b]})
	}
	l.edit("client_id: gateway,", "client_id: gateway-2,")
	l.reload("changed")
	for b := range copyOf {
		if r := serves(b); r.StatusCode != 401 || r.reason() != "bad_session" {
			t.Errorf("for another client: %d %s", r.StatusCode, r.body)
		}
	}
	r := leaves.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin", "Accept": "application/json"})
	if r.StatusCode != 200 || !strings.Contains(r.body, `"signed_out":true`) {
		t.Errorf("signing out: %d %s", r.StatusCode, r.body)
	}
	r = l.do("POST", login.BackChannelPath, url.Values{"logout_token": {l.provider.LogoutToken("", "mallory", nil)}}.Encode(),
		map[string]string{"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"})
	if r.StatusCode != 200 {
		t.Errorf("the issuer's logout for the earlier client: %d %s", r.StatusCode, r.body)
	}
	l.edit("client_id: gateway-2,", "client_id: gateway,")
	l.reload("changed")
	for what, b := range map[string]*browser{"who has left": leaves, "whom the issuer ended": fired} {
		hits := l.model.hits.Load()
		if r := serves(b); r.StatusCode != 401 || r.reason() != "session_ended" || l.model.hits.Load() != hits {
			t.Errorf("%s comes back with the client: %d %s", what, r.StatusCode, r.body)
		}
	}
	if r := serves(stays); r.StatusCode != 200 {
		t.Errorf("who has stayed: %d %s", r.StatusCode, r.body)
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	for _, rec := range l.audit.records(t) {
		if rec["login_event"] == "signed_out" && rec["principal"] == "issuer/corp:alice" {
			return
		}
	}
	t.Error("no record of the sign-out")
}
