// Package browser drives a headless Chromium as people use one, for the stories about pages.
package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// Patience bounds every step in a browser.
const Patience = time.Minute

// Browser is a running Chromium, in which each person has cookies of their own.
type Browser struct {
	t        *testing.T
	ctx      context.Context
	pictures string
}

// Start starts a headless Chromium that ends with the test. The environment variable of this name says
// in which folder screenshots are kept; without it there are none.
func Start(t *testing.T, pictures string) *Browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.IgnoreCertErrors, chromedp.WindowSize(1100, 800))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return &Browser{t, ctx, os.Getenv(pictures)}
}

// Tab is a page of a person.
type Tab struct {
	t        *testing.T
	ctx      context.Context
	pictures string
	mu       sync.Mutex // guards messages
	messages []string
}

// NewPerson opens a tab of somebody who has no cookies.
func (b *Browser) NewPerson(t *testing.T) *Tab {
	t.Helper()
	return open(t, b.ctx, b.pictures, chromedp.WithNewBrowserContext())
}

// Another opens a second tab of the same person.
func (p *Tab) Another() *Tab {
	p.t.Helper()
	return open(p.t, p.ctx, p.pictures)
}

func open(t *testing.T, parent context.Context, pictures string, options ...chromedp.ContextOption) *Tab {
	t.Helper()
	p := &Tab{t: t, pictures: pictures}
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

// Do makes steps, and shows the page if one of them fails.
func (p *Tab) Do(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
		defer cancel()
		where, _ := chromedp.Run(ctx, chromedp.Location())
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.Picture("failed")
		p.t.Fatalf("%s: %v\nat %s:\n%.2000s\nconsole: %q", what, err, where, text, p.Console())
	}
}

// Eval returns what a script says; it may be a promise.
func Eval[T any](p *Tab, script string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// Waits waits until a script is true, on whatever page the tab is by then.
func Waits(script string) chromedp.Action[chromedp.Void] {
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

// Shows waits for text on the page.
func Shows(text string) chromedp.Action[chromedp.Void] {
	return Waits(fmt.Sprintf("document.body && document.body.innerText.includes(%q)", text))
}

// Press waits for an element and clicks it once, by a script, which hits it wherever the page has moved it meanwhile.
func Press(selector string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
		element := fmt.Sprintf("document.querySelector(%q)", selector)
		if _, err = Waits(element)(ctx, target); err == nil {
			_, err = chromedp.Evaluate[bool]("("+element+".click(), true)")(ctx, target)
		}
		return none, err
	}
}

// IsAt checks the address of the page.
func (p *Tab) IsAt(url string) {
	p.t.Helper()
	if at := Eval[string](p, "location.href"); at != url {
		p.t.Errorf("the page is %s, want %s", at, url)
	}
}

// Fetched is what a script of the page is answered.
type Fetched struct {
	Status     int
	Redirected bool
	Body       string
}

// Fetch makes a request as a script of the page does.
func (p *Tab) Fetch(path, options string) Fetched {
	p.t.Helper()
	return Eval[Fetched](p, fmt.Sprintf(`fetch(%q, %s).then(async r => ({Status: r.status, Redirected: r.redirected, Body: await r.text()}))`, path, options))
}

// Console returns the errors in the console since the last call.
func (p *Tab) Console() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.messages
	p.messages = nil
	return all
}

// Quiet checks that the console has no errors but those with one of these texts.
func (p *Tab) Quiet(but ...string) {
	p.t.Helper()
message:
	for _, m := range p.Console() {
		for _, text := range but {
			if strings.Contains(m, text) {
				continue message
			}
		}
		p.t.Errorf("console: %s", m)
	}
}

// Fits checks that a page of the gateway has the width of a phone and of a window, in the light
// and in the dark.
func (p *Tab) Fits(name string) {
	p.t.Helper()
	was := Eval[int64](p, "innerWidth")
	for _, scheme := range []string{"light", "dark"} {
		p.Do("choosing colours", prefers(scheme))
		for _, width := range []int64{375, 1100} {
			p.Do("resizing", chromedp.EmulateViewport(width, 700))
			if got := Eval[int64](p, "document.documentElement.scrollWidth"); got > width {
				p.t.Errorf("the page %s is %d wide in a window of %d", name, got, width)
			}
			p.Picture(fmt.Sprintf("%s-%s-%d", name, scheme, width))
		}
	}
	// A click that was aimed before the page has its width again would miss.
	p.Do("as before", chromedp.ResetViewport(), prefers(""), inFront, Waits(fmt.Sprintf("innerWidth === %d", was)))
}

// inFront brings the tab to the front.
func inFront(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
	_, err = cdp.Call(ctx, target, page.BringToFront, cdp.Empty{})
	return none, err
}

// prefers makes the browser say that the person prefers a colour scheme.
func prefers(scheme string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, target *chromedp.Target) (none chromedp.Void, err error) {
		_, err = cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return none, err
	}
}

// Picture keeps a screenshot in the folder of [Start]; without one it does nothing.
func (p *Tab) Picture(name string) {
	p.t.Helper()
	if p.pictures == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Errorf("picture %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(p.pictures, name+".png"), png, 0o600); err != nil {
		p.t.Error(err)
	}
}
