package login

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience bounds every step in a browser.
const patience = time.Minute

// startBrowser starts a headless Chromium, in which each person has a context of their own.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.IgnoreCertErrors)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// tab is a page of a person.
type tab struct {
	t        *testing.T
	ctx      context.Context
	mu       sync.Mutex // guards messages
	messages []string
}

// newPerson opens a tab of somebody who has no cookies.
func newPerson(t *testing.T, browser context.Context) *tab {
	t.Helper()
	return open(t, browser, chromedp.WithNewBrowserContext())
}

// another opens a second tab of the same person.
func (p *tab) another() *tab {
	p.t.Helper()
	return open(p.t, p.ctx)
}

func open(t *testing.T, parent context.Context, options ...chromedp.ContextOption) *tab {
	t.Helper()
	p := &tab{t: t}
	var cancel context.CancelFunc
	p.ctx, cancel = chromedp.NewContext(parent, options...)
	t.Cleanup(cancel)
	if err := chromedp.Do(p.ctx); err != nil {
		t.Fatal(err)
	}
	console := chromedp.Console(p.ctx)
	go func() {
		for m, err := range console {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleError || m.IsException() {
				p.mu.Lock()
				p.messages = append(p.messages, m.Text+" "+m.URL)
				p.mu.Unlock()
			}
		}
	}()
	return p
}

// do makes steps, and shows the page if one of them fails.
func (p *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
		defer cancel()
		where, _ := chromedp.Run(ctx, chromedp.Location())
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.picture("failed")
		p.t.Fatalf("%s: %v\nat %s:\n%.2000s\nconsole: %q", what, err, where, text, p.console())
	}
}

// eval returns what a script says; it may be a promise.
func eval[T any](p *tab, script string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// waits waits until a script is true, on whatever page the tab is by then.
func waits(script string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
		for {
			asked, cancel := context.WithTimeout(ctx, 2*time.Second) // a page that goes away may not answer
			holds, err := chromedp.Evaluate[bool](fmt.Sprintf("Boolean(%s)", script))(asked, target)
			cancel()
			if err == nil && holds {
				return none, nil
			}
			select {
			case <-ctx.Done():
				return none, fmt.Errorf("waiting for %s: %w", script, ctx.Err())
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// shows waits for text on the page.
func shows(text string) chromedp.Action[chromedp.Void] {
	return waits(fmt.Sprintf("document.body && document.body.innerText.includes(%q)", text))
}

// signIn is what a person does on Keycloak's page.
func signIn(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.WaitVisible("#username"),
		chromedp.SendKeys("#username", name),
		chromedp.SendKeys("#password", "a password of "+name),
		chromedp.Click("#kc-login"),
	)
}

// isAt checks the address of the page.
func (p *tab) isAt(url string) {
	p.t.Helper()
	if at := eval[string](p, "location.href"); at != url {
		p.t.Errorf("the page is %s, want %s", at, url)
	}
}

// fetched is what a script of the page is answered.
type fetched struct {
	Status     int
	Redirected bool
	Body       string
}

// fetch makes a request as a script of the page does.
func (p *tab) fetch(path, options string) fetched {
	p.t.Helper()
	return eval[fetched](p, fmt.Sprintf(`fetch(%q, %s).then(async r => ({Status: r.status, Redirected: r.redirected, Body: await r.text()}))`, path, options))
}

// console returns the errors in the console since the last call.
func (p *tab) console() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.messages
	p.messages = nil
	return all
}

// quiet checks that the console has no errors but those with one of these texts.
func (p *tab) quiet(but ...string) {
	p.t.Helper()
message:
	for _, m := range p.console() {
		for _, text := range but {
			if strings.Contains(m, text) {
				continue message
			}
		}
		p.t.Errorf("console: %s", m)
	}
}

// fits checks that a page of the gateway has the width of a phone and of a window.
func (p *tab) fits(name string) {
	p.t.Helper()
	for _, width := range []int64{375, 1100} {
		p.do("resizing", chromedp.EmulateViewport(width, 700))
		if got := eval[int64](p, "document.documentElement.scrollWidth"); got > width {
			p.t.Errorf("the page %s is %d wide in a window of %d", name, got, width)
		}
		p.picture(fmt.Sprintf("%s-%d", name, width))
	}
	p.do("resizing", chromedp.ResetViewport())
}

// picture keeps a screenshot where $LOGIN_PICTURES says; without it there is none.
func (p *tab) picture(name string) {
	p.t.Helper()
	dir := os.Getenv("LOGIN_PICTURES")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Errorf("picture %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		p.t.Error(err)
	}
}
