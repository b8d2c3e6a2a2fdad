package proxy_test

import (
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/pages"
)

// A browser with too many cookies for a head gets the page that says so, and a program gets JSON. Where the
// head ends before it says who asks, that is JSON too.
func TestTooManyCookiesAreExplained(t *testing.T) {
	l := openLobby(t, plan{})
	const window = "Host: models.test\r\nUpgrade-Insecure-Requests: 1\r\nAccept: text/html,*/*;q=0.8\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
	long := "Cookie: a=" + strings.Repeat("a", 70_000) + "\r\n"
	for name, c := range map[string]struct {
		head string
		page bool
	}{
		"a window":                       {window + long, true},
		"a window with many fields":      {window + strings.Repeat("Cookie: a=a\r\n", 200), true},
		"a browser without Sec-Fetch-*":  {"Host: MODELS.test\r\nAccept: text/html\r\n" + long, true},
		"a script":                       {strings.Replace(window, "navigate", "cors", 1) + long, false},
		"a window that is fetched ahead": {window + "Sec-Purpose: prefetch\r\n" + long, false},
		"curl":                           {"Host: models.test\r\nAccept: */*\r\n" + long, false},
		"cookies first":                  {"Host: models.test\r\n" + long + window[len("Host: models.test\r\n"):], false},
		"cookies before Host":            {long + window, false},
		"another host":                   {strings.Replace(window, "models.test", "nobody.test", 1) + long, false},
	} {
		got := l.raw("GET /a HTTP/1.1\r\n" + c.head + "\r\n")
		isPage := strings.Contains(got, "Content-Type: "+pages.Type) && strings.Contains(got, "Delete the cookies of models.test in your browser") && strings.Contains(got, "Content-Security-Policy: default-src 'none'")
		if !strings.HasPrefix(got, "HTTP/1.1 431 ") || isPage != c.page || !strings.Contains(got, "head_too_large") || !strings.Contains(got, "Connection: close") {
			t.Errorf("%s: want a page: %t, got %.600s", name, c.page, got)
		}
	}
	ask := func(mode, cookie string, count int) *framed {
		f := l.frames()
		f.headers(1, true, append([]string{":method: GET", ":scheme: https", ":authority: models.test", ":path: /a", "accept: text/html", "sec-fetch-mode: " + mode, "sec-fetch-dest: document"},
			slices.Repeat([]string{"cookie: " + cookie}, count)...)...)
		f.wait(1)
		return f.got[1]
	}
	for _, c := range []struct {
		mode, cookie string
		count        int
		page         bool
	}{
		{"navigate", "a=a", 2000, true}, {"navigate", "a=" + strings.Repeat("a", 4000), 20, true}, {"navigate", "a=" + strings.Repeat("a", 4000), 180, true}, {"cors", "a=a", 2000, false},
	} {
		if got := ask(c.mode, c.cookie, c.count); got.status != "431" || strings.Contains(got.body, "Delete the cookies of models.test in your browser") != c.page || !strings.Contains(got.body, "head_too_large") {
			t.Errorf("%d cookies over HTTP/2, %s: %+v", c.count, c.mode, got)
		}
	}
	l.untouched()
	b := l.browser(true)
	// The person without those cookies is served.
	b.signIn()
	if r := b.request("GET", "/a", "", nil); r.StatusCode != 200 {
		t.Errorf("got %d %s", r.StatusCode, r.body)
	}
}
