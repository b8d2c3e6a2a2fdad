package keycloak

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story"
)

// password is Alice's, as in realm.json.
const password = "a password of this test"

// terminal is where Alice types commands: she has a cache of her own, and no display.
type terminal struct {
	h     *house
	cache string
}

// token runs sallyport token with a flag, and others.
func (a *terminal) token(t *testing.T, flags ...string) *story.Process {
	t.Helper()
	cmd := exec.Command(os.Getenv("SALLYPORT"), append([]string{"token", "--url", a.h.issuer, "--ca", a.h.file("clients-ca/ca.pem"), "--client-id", "terminal"}, flags...)...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+a.cache, "DISPLAY=", "WAYLAND_DISPLAY=")
	return story.Start(t, "sallyport token", cmd)
}

// page waits for the page that the command names.
func page(t *testing.T, p *story.Process, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		found := re.FindString(p.Output())
		switch {
		case found != "":
			return found
		case strings.Contains(p.Output(), "sallyport: ") || time.Now().After(end):
			t.Fatalf("no page %s in %s", pattern, p.Output())
		}
	}
}

// printed returns the last line of a command that succeeds: the token.
func printed(t *testing.T, p *story.Process) string {
	t.Helper()
	if status := p.Wait(t, time.Minute); status != 0 {
		t.Fatalf("status %d: %s", status, p.Output())
	}
	lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
	return lines[len(lines)-1]
}

// browser is a headless Chromium without cookies.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.IgnoreCertErrors)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// within runs steps in a browser for two minutes at most.
func within(ctx context.Context, steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

// signIn is what Alice does on Keycloak's page.
func signIn(page string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.Navigate(page),
		chromedp.WaitVisible("#username"),
		chromedp.SendKeys("#username", "alice"),
		chromedp.SendKeys("#password", password),
		chromedp.Click("#kc-login"),
	)
}

// people: Alice signs in with a browser, and by a code, and calls with her tokens. Her cached token is
// used until --logout ends it.
func (h *house) people(t *testing.T, g *story.Gateway) {
	story.Need(t, "chromium")
	a := &terminal{h: h, cache: t.TempDir()}
	var tokens []string
	for _, c := range []struct {
		name, flag, pattern string
		then                chromedp.Action[chromedp.Void]
		last                string // what the last page says
	}{
		{"browser", "--device=false", `https://\S+/auth\?\S+`, chromedp.Steps(), "You can close this window"},
		{"code", "--device", `https://\S+user_code=\S+`, chromedp.Click("button[name=accept]"), "Device Login Successful"},
	} {
		p := a.token(t, "--login", c.flag)
		ctx := browser(t)
		last := chromedp.WaitVisible(fmt.Sprintf("//*[self::p or self::h1][contains(., %q)]", c.last))
		if err := within(ctx, signIn(page(t, p, c.pattern)), c.then, last); err != nil {
			html, _ := chromedp.Run(ctx, chromedp.OuterHTML("html"))
			t.Fatalf("%s: %v: %s", c.name, err, html)
		}
		token := printed(t, p)
		answer := g.Curl(t, "/people"+rest, "--json", "{}", "-H", "Authorization: Bearer "+token)
		if answer.Status != 200 || answer.Body != "issuer/people:alice" {
			t.Errorf("%s: %d %s", c.name, answer.Status, answer.Body)
		}
		if again := printed(t, a.token(t, "--login")); again != token {
			t.Errorf("%s: the cached token was not used", c.name)
		}
		tokens = append(tokens, token)
		if said := printed(t, a.token(t, "--logout")); said != "The token is removed here and revoked at the issuer." {
			t.Errorf("%s: --logout says %q", c.name, said)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(a.cache, "sallyport", "tokens", "*.json")); len(names) > 0 {
		t.Errorf("after --logout there is %v", names)
	}
	for _, token := range tokens {
		if strings.Contains(g.Process.Output(), token) {
			t.Error("a log holds a token")
		}
	}
}
