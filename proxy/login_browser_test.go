package proxy_test

import (
	"testing"

	"sallyport/auth/login"
)

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
