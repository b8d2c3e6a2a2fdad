package proxy_test

import (
	"maps"
	"net/http"
	"testing"
)

// TestPeopleSignInBehindServiceWorker signs in where a service worker of the server asks for every page in the
// browser's stead, by fetch(event.request). The heads are those that Chromium 156 sent.
func TestPeopleSignInBehindServiceWorker(t *testing.T) {
	l := openLobby(t, plan{})
	b := l.browser(true)
	worker := map[string]string{"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
	fromIssuer := maps.Clone(worker)
	fromIssuer["Sec-Fetch-Site"] = "cross-site"
	at := func(header map[string]string, target string) string {
		t.Helper()
		r := b.request("GET", target, "", header)
		if r.StatusCode != http.StatusSeeOther {
			t.Fatalf("%s: got %d %s", target, r.StatusCode, r.body)
		}
		return r.Header.Get("Location")
	}
	issuer := at(worker, at(worker, "/a?b=c"))
	page := at(fromIssuer, b.request("GET", issuer, "", nil).Header.Get("Location"))
	if page != "/a?b=c" {
		t.Errorf("the person is sent to %s", page)
	}
	if r := b.request("GET", page, "", fromIssuer); r.StatusCode != 200 {
		t.Errorf("the page: %d %s", r.StatusCode, r.body)
	}
	out := maps.Clone(worker)
	out["Origin"] = "https://models.test"
	if r := b.request("POST", "/.sallyport/sign-out", "", out); r.StatusCode != http.StatusSeeOther && r.StatusCode != 200 {
		t.Errorf("sign-out: %d %s", r.StatusCode, r.body)
	}
}
