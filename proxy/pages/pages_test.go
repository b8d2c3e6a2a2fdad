package pages_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
		"refusal":    string(p.Refuse(text, &pages.Refusal{Status: 403, Text: text, Reason: "forbidden", RequestID: text, Caller: text, SignIn: url, SignOut: url})),
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
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"; !strings.Contains(p.Policy(), want) {
			t.Errorf("%s: the policy %s does not allow the style, %s", name, p.Policy(), want)
		}
	}
	for _, want := range []string{"default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(p.Policy(), want) {
			t.Errorf("the policy %s lacks %s", p.Policy(), want)
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

func TestRefusalTellsThePersonWhatToDo(t *testing.T) {
	p := newPages(t, pages.Config{})
	for status, want := range map[int]string{401: "Please sign in", 403: "ask for it", 404: "Check the address", 405: "Go back", 429: "Wait a minute", 503: "Wait a minute", 400: "Go back"} {
		page := string(p.Refuse("models.test", &pages.Refusal{Status: status, Text: "What is wrong.", Reason: "its_reason", RequestID: "0123abc", Caller: "alice", SignOut: "/out"}))
		for _, want := range []string{want, "What is wrong.", "its_reason", "0123abc", "alice", `href="/out"`} {
			if !strings.Contains(page, want) {
				t.Errorf("%d: the page lacks %s:\n%s", status, want, page)
			}
		}
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
