// Package realtime holds the story of WebSockets that pages of other origins open with a token in a
// subprotocol.
package realtime

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// patience bounds what a page does.
const patience = time.Minute

// house is everything that runs in the story.
type house struct {
	t          *testing.T
	gateway    *story.Gateway
	server     string         // host:port of the double
	double     *story.Process // which prints a line for each WebSocket
	page       context.Context
	key, token string
}

func start(t *testing.T) *house {
	t.Helper()
	story.Need(t, "node", "chromium")
	installed := story.Installed(t, "realtime", "realtime/package-lock.json")
	provider := story.StartProvider(t)
	h := &house{t: t, server: story.FreeAddress(t), token: provider.Token(t, "models.predict", "")}
	server := story.Node(t, installed, "server.mjs", provider.CA)
	server.Env = append(server.Env, "PORT="+h.server[strings.LastIndexByte(h.server, ':')+1:])
	h.double = story.Start(t, "server", server)
	h.double.Listens(t, h.server)
	keys, hashes := story.APIKeys(t, "page")
	h.key = keys[0]
	h.gateway = story.StartGateway(t, append(hashes,
		"https://localhost:9000", provider.URL, "../openid-provider/provider.crt", provider.CA, "http://127.0.0.1:7000", "http://"+h.server)...)
	h.open(installed)
	return h
}

// open opens the page, which has an origin of its own, in Chromium.
func (h *house) open(installed string) {
	h.t.Helper()
	site := http.NewServeMux()
	site.Handle("/openai/", http.FileServer(http.Dir(filepath.Join(installed, "node_modules"))))
	site.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "page.html") })
	pages := httptest.NewServer(site)
	h.t.Cleanup(pages.Close)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.IgnoreCertErrors)
	ctx, cancel := chromedp.NewExecAllocator(h.t.Context(), options...)
	h.t.Cleanup(cancel)
	h.page, cancel = chromedp.NewContext(ctx)
	h.t.Cleanup(cancel)
	if err := chromedp.Do(h.page, chromedp.Navigate(pages.URL+"/")); err != nil {
		h.t.Fatal(err)
	}
	if !evaluate[bool](h, `new Promise(done => { const wait = () => window.realtime ? done(true) : setTimeout(wait, 50); wait() })`) {
		h.t.Fatal("the page did not load")
	}
}

// evaluate returns what a script of the page promises.
func evaluate[T any](h *house, script string) T {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.page, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		h.t.Fatalf("%.60s: %v", script, err)
	}
	return v
}

// outcome is what came of a WebSocket.
type outcome struct {
	Failed   bool
	Protocol string
	Messages []string
}

// chat has the page open a WebSocket. protocols is a list in JavaScript.
func (h *house) chat(url, protocols string) outcome {
	h.t.Helper()
	return evaluate[outcome](h, fmt.Sprintf("chat(%q, %s)", url, protocols))
}

func (h *house) kubernetes(token string) string {
	return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// served checks a WebSocket that was opened: the server was told the caller, and nothing of the credential.
func (h *house) served(name string, o outcome, protocol, offered, principal string, secrets ...string) {
	h.t.Helper()
	if o.Failed || o.Protocol != protocol || len(o.Messages) != 2 {
		h.t.Errorf("%s: %+v", name, o)
		return
	}
	for _, want := range []string{fmt.Sprintf(`"sec-websocket-protocol",%q`, offered), fmt.Sprintf(`"x-sallyport-principal",%q`, principal), `"origin","http://127.0.0.1:`} {
		if !strings.Contains(strings.ToLower(o.Messages[0]), strings.ToLower(want)) {
			h.t.Errorf("%s: the server was not sent %s: %s", name, want, o.Messages[0])
		}
	}
	for _, secret := range secrets {
		if strings.Contains(o.Messages[0], secret) {
			h.t.Errorf("%s: the server was sent the credential: %s", name, o.Messages[0])
		}
	}
}

func TestPagesOfOtherOrigins(t *testing.T) {
	h := start(t)
	socket := func(path string) string { return strings.Replace(h.gateway.URL(path), "https://", "wss://", 1) }
	encoded := h.kubernetes(h.token)

	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) { // until the gateway has the issuer's keys
		if o := h.chat(socket("/chat"), fmt.Sprintf("[kubernetes(%q), 'chat', 'v2']", h.token)); !o.Failed || time.Now().After(end) {
			h.served("the form of Kubernetes", o, "chat", "chat, v2", "issuer/lab:batch", h.token, encoded)
			break
		}
	}
	o := evaluate[outcome](h, fmt.Sprintf("realtime(%q, %q)", h.gateway.URL("/v1"), h.key))
	h.served("OpenAI's SDK", o, "realtime", "realtime, openai-organization.org-1", "apikey:page", h.key)

	for name, o := range map[string]outcome{
		"no token":                  h.chat(socket("/chat"), "['chat']"),
		"a token cut short":         h.chat(socket("/chat"), fmt.Sprintf("['chat', kubernetes(%q)]", h.token[:len(h.token)-1])),
		"a token alone":             h.chat(socket("/chat"), fmt.Sprintf("kubernetes(%q)", h.token)),
		"the other form":            h.chat(socket("/chat"), fmt.Sprintf("['chat', 'openai-insecure-api-key.' + %q]", h.token)),
		"another key, by the SDK":   evaluate[outcome](h, fmt.Sprintf("realtime(%q, %q)", h.gateway.URL("/v1"), h.key+"x")),
		"a token in the query":      h.chat(socket("/chat?access_token="+h.token), "['chat']"),
		"a server without a choice": h.chat(socket("/chat/silent"), fmt.Sprintf("[kubernetes(%q), 'chat']", h.token)),
		"the same, without us":      h.chat("ws://"+h.server+"/silent", "['chat']"),
	} {
		if !o.Failed || len(o.Messages) > 0 {
			t.Errorf("%s: the page has a WebSocket: %+v", name, o)
		}
	}
	// Two were served, and two failed because the server chose nothing. Its last line may be under way.
	for end := time.Now().Add(time.Minute); strings.Count(h.double.Output(), "opened ") < 4 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if out := h.double.Output(); strings.Count(out, "opened ") != 4 || strings.Count(out, "silent") != 2 {
		t.Errorf("the server heard of refused requests:\n%s", out)
	}
	h.gateway.Process.Stop(t) // which writes the last records
	log := h.gateway.Process.Output()
	for _, secret := range []string{h.key, h.token, encoded, strings.Split(h.token, ".")[2]} {
		if strings.Contains(log, secret) {
			t.Error("the gateway's records and log hold a credential")
		}
	}
	for _, reason := range []string{`"no_credential"`, `"bad_credential"`, `"subprotocol_missing"`, `"unlisted_credential"`, `"api_key_unknown"`} {
		if !strings.Contains(log, reason) {
			t.Errorf("no record has the reason %s", reason)
		}
	}
}
