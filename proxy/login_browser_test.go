package proxy_test

import (
	"strings"
	"testing"

	"sallyport/auth/login"
)

// TestPeopleSignInBehindServiceWorkers signs in where the application has a service worker that passes all
// requests on, as those of installable applications do. The fields are those of Chromium 156: the window is no
// destination any more, but the mode stays, and the issuer is still the site that sent the browser.
func TestPeopleSignInBehindServiceWorkers(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(true)
	worker := func(site string) map[string]string {
		return map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": site, "Accept": "text/html,*/*;q=0.8"}
	}
	begun := b.request("GET", "/app", "", worker("same-origin"))
	if to := begun.Header.Get("Location"); begun.StatusCode != 303 || !strings.HasPrefix(to, login.SignInPath+"?") {
		t.Fatalf("the page: %d to %q; want to sign in", begun.StatusCode, to)
	}
	asked := b.request("GET", begun.Header.Get("Location"), "", worker("cross-site")) // as from a link of a mail
	if asked.StatusCode != 303 {
		t.Fatalf("sign-in: %d %s", asked.StatusCode, asked.body)
	}
	back := b.request("GET", asked.Header.Get("Location"), "", nil).Header.Get("Location")
	if r := b.request("GET", back, "", worker("cross-site")); r.StatusCode != 303 || r.Header.Get("Location") != "/app" {
		t.Fatalf("the answer of the issuer: %d to %q: %s", r.StatusCode, r.Header.Get("Location"), r.body)
	}
	if r := b.request("GET", "/app", "", worker("same-origin")); r.StatusCode != 200 {
		t.Errorf("the page after sign-in: %d %s", r.StatusCode, r.body)
	}
}

// TestSignOutLeavesNoPages signs out, after which the key for the page before must show nobody what the person saw:
// browsers keep whole pages for it, whatever their answers say about caches.
func TestSignOutLeavesNoPages(t *testing.T) {
	l := openLobby(t, plan{})
	const field, cache = "Clear-Site-Data", `"cache"`
	for name, header := range map[string]map[string]string{
		"a script":             {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Accept": "application/json"},
		"a form":               {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"},
		"a page of elsewhere":  {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site", "Accept": "text/html"},
		"a session that ended": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"},
	} {
		b := l.browser(true)
		b.signIn()
		if name == "a session that ended" {
			b.request("POST", login.SignOutPath, "", header)
		}
		want := cache
		if name == "a page of elsewhere" {
			want = "" // it would cost the victim all that its browser has fetched
		}
		if r := b.request("POST", login.SignOutPath, "", header); r.Header.Get(field) != want {
			t.Errorf("%s: %d with %s %q; want %q", name, r.StatusCode, field, r.Header.Get(field), want)
		}
		for _, path := range []string{login.SignOutPath, login.SignedOutPath, login.SessionPath, login.SignInPath} {
			if r := b.request("GET", path, "", nil); r.Header.Get(field) != "" {
				t.Errorf("%s: GET %s clears %s", name, path, r.Header.Get(field))
			}
		}
	}
}
