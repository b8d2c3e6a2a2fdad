// Package dex holds the story of people who sign in at Dex.
package dex

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

const patience = time.Minute

// house is everything that runs in the story.
type house struct {
	dir       string
	dex       string       // the program
	at        string       // where Dex listens
	issuer    *story.Relay // in front of Dex: the address that the issuer's URL has
	server    *story.Relay // in front of the page
	gateway   *story.Gateway
	transport *http.Transport // to the gateway, whatever the host
}

func start(t *testing.T) (*house, *story.Process) {
	t.Helper()
	story.Need(t, "python3")
	h := &house{dir: t.TempDir(), at: story.FreeAddress(t)}
	h.dex = filepath.Join(story.Installed(t, "dex", "dex/server/go.mod", "dex/server/go.sum"), "dex")
	h.issuer = story.StartRelay(t, h.at)
	page := story.FreeAddress(t)
	h.server = story.StartRelay(t, page)
	_, port, _ := net.SplitHostPort(page)
	cmd := exec.Command("python3", "-m", "http.server", "--bind", "127.0.0.1", port)
	cmd.Dir = t.TempDir()
	story.Start(t, "page", cmd).Listens(t, page)

	h.write(t, "session-keys", keygen(t))
	h.write(t, "login-secret", "a secret of this test")
	h.gateway = story.StartGateway(t, "127.0.0.1:5556", h.issuer.Address, "127.0.0.1:5000", h.server.Address,
		"{file: login-secret}", "{file: "+h.file("login-secret")+"}", "{file: session-keys}", "{file: "+h.file("session-keys")+"}")
	text, err := os.ReadFile("dex.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(h.gateway.Address)
	h.write(t, "dex.yaml", strings.NewReplacer("issuer: http://127.0.0.1:5556", "issuer: http://"+h.issuer.Address, "127.0.0.1:5556", h.at,
		"localhost:8443", "localhost:"+port).Replace(string(text)))
	pem, err := os.ReadFile(h.gateway.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	h.transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.Contains(address, ".localhost:") { // not every system knows these names
			address = h.gateway.Address
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	t.Cleanup(h.transport.CloseIdleConnections)
	return h, h.startDex(t)
}

func (h *house) startDex(t *testing.T) *story.Process {
	t.Helper()
	p := story.Start(t, "dex", exec.Command(h.dex, "serve", h.file("dex.yaml")))
	p.Listens(t, h.at)
	return p
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }

func (h *house) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(h.file(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func keygen(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(os.Getenv("SALLYPORT"), "keygen", "--session").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// browser does what a browser does without scripts: it follows redirects and keeps cookies.
type browser struct {
	t      *testing.T
	origin string // of the gateway
	client *http.Client
}

func (h *house) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	return &browser{t, "https://pages.localhost:" + port, &http.Client{Transport: h.transport, Jar: jar, Timeout: patience}}
}

// page is an answer with its content.
type page struct {
	*http.Response
	text string
}

// open asks for a page as a person does: by a link, or with a form by its button.
func (b *browser) open(target string, form url.Values) page {
	b.t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	if strings.HasPrefix(target, "/") {
		target = b.origin + target
	}
	r, err := http.NewRequest(method, target, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html,*/*;q=0.8")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Site", "none")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return b.send(r)
}

func (b *browser) send(r *http.Request) page {
	b.t.Helper()
	answer, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return page{answer, string(text)}
}

// choose opens the page of the gateway, and at Dex the way to sign in.
func (b *browser) choose(connector string) page {
	b.t.Helper()
	p := b.open("/", nil)
	link := regexp.MustCompile(`href="([^"]*/auth/` + connector + `[^"]*)"`).FindStringSubmatch(p.text)
	if link == nil {
		b.t.Fatalf("Dex offers no %s: %d %s %s", connector, p.StatusCode, p.Request.URL.Path, p.text)
	}
	to, err := p.Request.URL.Parse(html.UnescapeString(link[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.open(to.String(), nil)
}

// fill fills in Dex's form.
func (b *browser) fill(p page, user, password string) page {
	b.t.Helper()
	action := regexp.MustCompile(`<form method="post" action="([^"]*)"`).FindStringSubmatch(p.text)
	if action == nil {
		b.t.Fatalf("no form: %d %s", p.StatusCode, p.text)
	}
	to, err := p.Request.URL.Parse(html.UnescapeString(action[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.open(to.String(), url.Values{"login": {user}, "password": {password}})
}

// session is the answer of /.sallyport/session.
type session struct {
	Principal string
	Groups    []string
}

func (b *browser) session() (session, int) {
	b.t.Helper()
	p := b.fetch("/.sallyport/session")
	var s session
	if p.StatusCode == http.StatusOK {
		if err := json.Unmarshal([]byte(p.text), &s); err != nil {
			b.t.Fatal(err)
		}
	}
	return s, p.StatusCode
}

// fetch asks for a path as a script of a page does.
func (b *browser) fetch(path string) page {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodGet, b.origin+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Mode", "cors")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.send(r)
}

// until uses the session again and again, as a page does, until something holds.
func (b *browser) until(what string, holds func(s session, status int) bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		b.fetch("/") // asking for the session does not count as use
		if holds(b.session()) {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// refreshTokens returns the refresh tokens that the gateway has sent to Dex since the last call.
func (h *house) refreshTokens() (all []string) {
	for _, x := range h.issuer.Take() {
		_, body, _ := strings.Cut(string(x.Request), "\r\n\r\n")
		if form, err := url.ParseQuery(body); err == nil && form.Get("grant_type") == "refresh_token" {
			all = append(all, form.Get("refresh_token"))
		}
	}
	return all
}

func TestPeopleSignInAtDex(t *testing.T) {
	h, dex := start(t)
	kilgore, bob := h.browser(t), h.browser(t)
	p := kilgore.choose("mock")
	if p.StatusCode != 200 || !strings.Contains(p.text, "Directory listing") || p.Request.URL.String() != kilgore.origin+"/" {
		t.Fatalf("after sign-in: %d %s %s", p.StatusCode, p.Request.URL, p.text)
	}
	if s, status := kilgore.session(); status != 200 || s.Principal != "issuer/lab:kilgore@kilgore.trout" || !slices.Equal(s.Groups, []string{"authors"}) {
		t.Errorf("the session is %d %+v", status, s)
	}

	form := bob.choose("local")
	h.server.Take()
	if p := bob.fill(form, "bob@example.com", "a guess"); !strings.Contains(p.text, "login-error") {
		t.Errorf("a wrong password: %d %s", p.StatusCode, p.text)
	}
	if _, status := bob.session(); status != 401 {
		t.Errorf("bob has a session after a wrong password: %d", status)
	}
	if p := bob.fill(form, "bob@example.com", "a password of bob"); p.StatusCode != 403 || !strings.Contains(p.text, "<dd>forbidden</dd>") {
		t.Errorf("bob, who is in no group: %d %s", p.StatusCode, p.text)
	}
	if s, status := bob.session(); status != 200 || s.Principal != "issuer/lab:bob@example.com" || len(s.Groups) != 0 {
		t.Errorf("bob's session is %d %+v", status, s)
	}
	if seen := h.server.Take(); len(seen) != 0 {
		t.Errorf("the server got %d requests of bob: %q", len(seen), seen[0].Request)
	}

	h.refreshTokens()
	var used []string
	kilgore.until("two refreshes", func(s session, status int) bool {
		if status != 200 || !slices.Equal(s.Groups, []string{"authors"}) {
			t.Fatalf("during a refresh the session is %d %+v", status, s)
		}
		used = append(used, h.refreshTokens()...)
		return len(used) >= 2
	})
	if slices.Sort(used); len(slices.Compact(used)) < 2 {
		t.Error("the gateway sent the same refresh token twice, and Dex replaces it each time")
	}

	at, _ := url.Parse(kilgore.origin)
	kept := kilgore.client.Jar.Cookies(at)
	if p := kilgore.open("/.sallyport/sign-out", url.Values{"x": {"y"}}); p.StatusCode != 200 || strings.Contains(p.text, "/.sallyport/leave") || !strings.Contains(p.text, "signed out") {
		t.Errorf("sign-out: %d %s %s", p.StatusCode, p.Request.URL, p.text)
	}
	kilgore.client.Jar.SetCookies(at, kept)
	if _, status := kilgore.session(); status != 401 {
		t.Errorf("a copy of the cookie after sign-out: %d", status)
	}

	if _, status := bob.session(); status != 200 {
		t.Errorf("bob's session after Kilgore's sign-out: %d", status)
	}
	dex.Stop(t)
	h.startDex(t)
	bob.until("Dex, which has lost its memory, ends bob's session", func(_ session, status int) bool { return status == 401 })
	if log := h.gateway.Process.Output(); !strings.Contains(log, "the token endpoint says invalid_request") {
		t.Error("the log does not say why bob's session ended")
	} else if strings.Contains(log, "a secret of this test") || strings.Contains(log, "__Host-sallyport=") || strings.Contains(log, "eyJ") {
		t.Error("the log holds a secret")
	}
	if p := h.browser(t).choose("mock"); p.StatusCode != 200 || !strings.Contains(p.text, "Directory listing") {
		t.Errorf("signing in at the new Dex: %d %s", p.StatusCode, p.text)
	}
}
