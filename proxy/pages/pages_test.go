package pages_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/proxy/pages"
	"sallyport/proxy/setting"
)

func newPages(t *testing.T, c pages.Config) *pages.Pages {
	t.Helper()
	p, err := pages.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// all returns each kind of page, with what strangers can choose in every place that takes it.
func all(p *pages.Pages, text, url string) map[string]string {
	return map[string]string{
		"sign-in":    string(p.SignIn(text, []pages.Choice{{Title: text, URL: url}, {Title: "Corp", URL: "/.sallyport/sign-in?login=corp"}})),
		"sign-out":   string(p.SignOut(text, text, "/.sallyport/sign-out", url)),
		"nobody":     string(p.SignOut(text, "", "/.sallyport/sign-out", url)),
		"leaving":    string(p.Leaving(text, url)),
		"signed-out": string(p.SignedOut(text, url)),
		"refusal":    string(p.Refuse(text, &pages.Refusal{Reason: "forbidden", RequestID: text, Caller: text, SignIn: url, SignOut: url})),
	}
}

func TestPagesEscapeWhatStrangersChoose(t *testing.T) {
	for name, page := range all(newPages(t, pages.Config{Title: `<script>alert(1)</script>`}), `"><script>alert(2)</script><b onclick='x`, `javascript:alert(3)"><script>`) {
		for _, bad := range []string{"<script", "<b ", "href=\"javascript:", "url=javascript:"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s has %s:\n%s", name, bad, page)
			}
		}
	}
}

func TestPagesAskForNothingElse(t *testing.T) {
	p := newPages(t, pages.Config{})
	outside := regexp.MustCompile(`(?i)<(script|link [^>]*stylesheet|iframe|object)|url\(|@import|src="?http`)
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`)
	for name, page := range all(p, "models.test", "/") {
		if found := outside.FindString(page); found != "" {
			t.Errorf("%s has %s", name, found)
		}
		found := style.FindStringSubmatch(page)
		if found == nil {
			t.Fatalf("%s has no style", name)
		}
		hash := sha256.Sum256([]byte(found[1]))
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"; !strings.Contains(p.Policy(false), want) {
			t.Errorf("%s: the policy %s does not allow the style, %s", name, p.Policy(false), want)
		}
	}
	for _, want := range []string{"default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(p.Policy(false), want) {
			t.Errorf("the policy %s lacks %s", p.Policy(false), want)
		}
	}
}

func TestPagesCanBeReadAloudAndOnAPhone(t *testing.T) {
	for name, page := range all(newPages(t, pages.Config{}), "models.test", "/") {
		for _, want := range []string{`<html lang="en">`, "<main>", `<meta name="viewport"`, "prefers-color-scheme: dark", ":focus-visible"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		if n := strings.Count(page, "<h1>"); n != 1 {
			t.Errorf("%s has %d headings", name, n)
		}
	}
}

// textOf returns the paragraphs of a page.
func textOf(page string) string {
	var all []string
	for _, p := range regexp.MustCompile(`(?s)<p>(.*?)</p>`).FindAllStringSubmatch(page, -1) {
		all = append(all, html.UnescapeString(p[1]))
	}
	return strings.Join(all, " / ")
}

func TestRefusalTellsThePersonWhatToDo(t *testing.T) {
	p := newPages(t, pages.Config{Title: "Model lab"})
	for name, c := range map[string]struct {
		r       pages.Refusal
		heading string
		text    string
		actions []string
	}{
		"no right": {
			pages.Refusal{Reason: "forbidden", Caller: "alice", SignOut: "/out"}, "You may not do this",
			"You are signed in as alice, who may not do this. / Ask whoever runs Model lab, and give them the number below.", []string{"/out Use another account"},
		},
		"no right without a session": {pages.Refusal{Reason: "forbidden"}, "You may not do this", "This is not open to you. / Ask whoever runs Model lab, and give them the number below.", nil},
		"too much, with a time": {
			pages.Refusal{Reason: "rate_limited", Caller: "alice", Wait: 4200 * time.Millisecond, Again: "/a"}, "Too many requests",
			"You, or others who share your account or network, asked for too much at once. / You are signed in as alice. / " +
				"Wait 5 seconds, and then try again. If this goes on, tell whoever runs Model lab, and give them the number below.", []string{"/a Try again"},
		},
		"without a session": {pages.Refusal{Reason: "no_credential", NoCredential: true, SignIn: "/in"}, "Please sign in", "You are not signed in. / Sign in to go on.", []string{"/in Sign in"}},
		"without a session, where nobody signs in": {
			pages.Refusal{Reason: "no_credential", NoCredential: true}, "You cannot sign in here",
			"This part of Model lab is for programs, which prove who they are in another way. / Check the address. If you should be able to open this in a browser, ask whoever runs Model lab, and give them the number below.", nil,
		},
		"in a frame": {
			pages.Refusal{Reason: "session_expired", NoCredential: true, Framed: true, SignIn: "/in"}, "Please sign in again",
			"Your session has ended, because it was not used for a while or has lasted as long as it may. / Sign in, for which a new window opens. Then load this page again.", []string{"/in Sign in"},
		},
		"two cookies": {
			pages.Refusal{Reason: "bad_session", NoCredential: true, ForeignCookie: true, SignIn: "/in"}, "Please sign in again",
			"Your session cannot be used here. / First delete the cookies of models.test in your browser. Then sign in.", []string{"/in Sign in"},
		},
	} {
		c.r.RequestID = "0123abc"
		page := string(p.Refuse("models.test", &c.r))
		if got := textOf(page); got != c.text {
			t.Errorf("%s: the page says\n%s\nwant\n%s", name, got, c.text)
		}
		var actions []string
		for _, a := range regexp.MustCompile(`href="(/[^"]*)"([^>]*)>(.*?)</a>`).FindAllStringSubmatch(page, -1) {
			actions = append(actions, a[1]+" "+a[3])
			if opens := strings.Contains(a[2], `target="_blank" rel="noopener"`); opens != c.r.Framed {
				t.Errorf("%s: the link opens a new window: %v", name, opens)
			}
		}
		for _, want := range []string{"<h1>" + c.heading + "</h1>", "<dt>Number</dt><dd>0123abc</dd>", "<dt>Reason</dt><dd>" + c.r.Reason + "</dd>"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: the page lacks %s:\n%s", name, want, page)
			}
		}
		if !slices.Equal(actions, c.actions) {
			t.Errorf("%s: the page leads to %q; want %q", name, actions, c.actions)
		}
	}
}

func TestRefusalSaysHowLongToWait(t *testing.T) {
	p := newPages(t, pages.Config{})
	for wait, want := range map[time.Duration]string{
		0: "Wait a minute,", time.Millisecond: "Wait a second,", 5 * time.Second: "Wait 5 seconds,", 45 * time.Second: "Wait 45 seconds,", 46 * time.Second: "Wait a minute,",
		time.Minute: "Wait a minute,", 61 * time.Second: "Wait 2 minutes,", 90 * time.Minute: "Wait 90 minutes,", 3 * time.Hour: "Wait 3 hours,", -time.Second: "Wait a minute,",
	} {
		if got := textOf(string(p.Refuse("models.test", &pages.Refusal{Reason: "rate_limited", Wait: wait}))); !strings.Contains(got, want) {
			t.Errorf("%s: the page says %q; want %q", wait, got, want)
		}
	}
}

// Names come from issuers and from titles. What turns text around, or is seen by nobody, is written as
// an escape, and what is written from right to left turns nothing else.
func TestNamesAreShownSafely(t *testing.T) {
	p := newPages(t, pages.Config{})
	for name, want := range map[string]string{
		"alice":                    "as alice,",
		"\u202eadmin":              `as \u202eadmin,`,
		"a\u2066b\u2069\u200fc":    `as a\u2066b\u2069\u200fc,`,
		"a\x00b\r\nc\x1b[31m":      `as a\u0000b\u000d\u000ac\u001b[31m,`,
		"a\u200bdmin":              `as a\u200bdmin,`,
		"a\xffb":                   `as a\ufffdb,`,
		"\u05d0\u05d1\u05d2":       "as <bdi>\u05d0\u05d1\u05d2</bdi>,",
		"\U000e0041":               `as \ue0041,`,
		strings.Repeat("x", 10000): "as <bdi>" + strings.Repeat("x", 80) + "…</bdi>,",
		"</bdi><b>x":               "as &lt;/bdi&gt;&lt;b&gt;x,",
	} {
		page := string(p.Refuse("models.test", &pages.Refusal{Reason: "forbidden", Caller: name}))
		if !strings.Contains(page, want) {
			t.Errorf("%q: the page lacks %q:\n%s", name, want, page)
		}
		for _, r := range page {
			if r != '\n' && r != '…' && r != '·' && r != utf8.RuneError && !unicode.IsPrint(r) {
				t.Errorf("%q: the page has %U", name, r)
			}
		}
		out := string(p.SignOut("models.test", name, "/out", "/"))
		if !strings.Contains(out, strings.TrimSuffix(want, ",")+".") {
			t.Errorf("%q: the page for sign-out lacks %q:\n%s", name, want, out)
		}
	}
	in := string(p.SignIn("models.test", []pages.Choice{{Title: "\u202eproc", URL: "/"}, {Title: "\u05d0", URL: "/"}}))
	for _, want := range []string{`Sign in with \u202eproc<`, "Sign in with <bdi>\u05d0</bdi><"} {
		if !strings.Contains(in, want) {
			t.Errorf("the choice lacks %q:\n%s", want, in)
		}
	}
}

// A picture can have a script inside. The page shows it where browsers run none, and no policy would
// let it ask for anything.
func TestLogoRunsNoScript(t *testing.T) {
	logo := filepath.Join(t.TempDir(), "logo.svg")
	if err := os.WriteFile(logo, []byte(`<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(2)</script><image href="https://evil.example/x"/></svg>`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPages(t, pages.Config{Logo: setting.Path(logo)})
	page := string(p.SignedOut("models.test", "/"))
	if strings.Contains(page, "alert") || strings.Contains(page, "evil") || strings.Contains(page, "<svg") || strings.Count(page, "<img ") != 1 {
		t.Errorf("the page has the picture outside of an img element:\n%s", page)
	}
	if policy := p.Policy(false); !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "img-src data:;") || strings.Contains(policy, "script-src") {
		t.Errorf("the policy is %s", policy)
	}
}

func TestOnlyRefusalsStandInFrames(t *testing.T) {
	p := newPages(t, pages.Config{})
	if got := p.Policy(false); !strings.HasSuffix(got, "; frame-ancestors 'none'") {
		t.Errorf("the policy of pages is %s", got)
	}
	if got := p.Policy(true); !strings.HasSuffix(got, "; frame-ancestors 'self'") {
		t.Errorf("the policy in a frame is %s", got)
	}
}

func TestLeavingGoesOnByItself(t *testing.T) {
	const next = "https://login.example.com/logout?client_id=a&post_logout_redirect_uri=https%3A%2F%2Fmodels.test%2F"
	page := string(newPages(t, pages.Config{}).Leaving("models.test", next))
	for _, want := range []string{`http-equiv="refresh"`, "client_id=a&amp;post_logout", `href="https://login.example.com/logout?`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s:\n%s", want, page)
		}
	}
}

func TestTitleAndLogo(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) setting.Path {
		full := filepath.Join(dir, name)
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return setting.Path(full)
	}
	page := string(newPages(t, pages.Config{Title: "Model lab", Logo: write("logo.svg", `<svg xmlns="http://www.w3.org/2000/svg"/>`)}).SignedOut("models.test", "/"))
	for _, want := range []string{"<span>Model lab</span>", `<img src="data:image/svg&#43;xml;base64,`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s:\n%s", want, page)
		}
	}
	for name, text := range map[string]string{"a text": "hello", "empty": "", "too large": "\x89PNG\r\n\x1a\n" + strings.Repeat("x", 64<<10), "a page": "<!doctype html>"} {
		if _, err := pages.New(&pages.Config{Logo: write("logo", text)}); err == nil {
			t.Errorf("%s was taken for a logo", name)
		}
	}
	if _, err := pages.New(&pages.Config{Logo: setting.Path(dir)}); err == nil {
		t.Error("a folder was taken for a logo")
	}
	for _, title := range []string{strings.Repeat("x", 81), "two\nlines", " space", "\xff"} {
		var f setting.Faults
		c := pages.Config{Title: title}
		if c.Check("pages", &f); len(f) != 1 {
			t.Errorf("title %q: faults %v; want one", title, f)
		}
	}
}

func ExamplePages() {
	p, err := pages.New(&pages.Config{Title: "Model lab"})
	if err != nil {
		fmt.Println(err)
		return
	}
	page := string(p.SignedOut("models.example.com", "/.sallyport/sign-in?to=/"))
	fmt.Println(strings.Contains(page, "<h1>You are signed out</h1>"))
	// Output: true
}
