package forwardauth

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story"
	"sallyport/examples/story/browser"
)

const secret = "a secret of this test"

// lobby is a proxy that people come to, with the gateway and their provider beside it.
type lobby struct {
	story.Folder
	product  string
	app      *story.Relay
	issuer   string
	url      string // of the proxy
	gateway  *story.Process
	asks     string // the gateway's listener for questions
	plain    string // and its ordinary one
	replaces []string
}

// startLobby starts what README starts, with one of the two products.
func startLobby(t *testing.T, product, app string) *lobby {
	t.Helper()
	node := story.Installed(t, "openid-provider", "openid-provider/package-lock.json")
	h := &lobby{Folder: story.Folder(t.TempDir()), product: product, app: story.StartRelay(t, app), asks: story.FreeAddress(t), plain: story.FreeAddress(t)}
	h.Sallyport(t, "ca", "init", "--permit-dns", "localhost")
	h.Sallyport(t, "ca", "issue", "--server", "--dns", "localhost", "--out", "provider")
	h.Sallyport(t, "ca", "issue", "--server", "--dns", "app.localhost", "--out", "tls")
	h.Write(t, "login-secret", secret)
	if err := os.Mkdir(h.File("tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	front, provider := story.FreeAddress(t), story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(front)
	h.url = "https://app.localhost:" + port
	_, providerPort, _ := net.SplitHostPort(provider)
	h.issuer = "https://localhost:" + providerPort

	cmd := story.Node(t, node, "../pages/provider.js", h.File("clients-ca/ca.pem"))
	cmd.Env = append(cmd.Env, "PORT="+providerPort, "GATEWAY_PORT="+port, "HOSTS=app", "CLIENT_SECRET="+secret, "TLS_DIR="+string(h.Folder))
	story.Start(t, "provider", cmd).Listens(t, provider)

	h.replaces = []string{"127.0.0.1:8443", front, "127.0.0.1:8080", h.plain, "127.0.0.1:9904", h.asks, "127.0.0.1:5000", h.app.Address}
	config, err := os.ReadFile("people.yaml")
	if err != nil {
		t.Fatal(err)
	}
	h.Write(t, "gateway.yaml", strings.NewReplacer(append([]string{"127.0.0.1:9902", story.FreeAddress(t), "dialect: nginx", "dialect: " + product,
		"public_https: 8443", "public_https: " + port, "https://localhost:9000", h.issuer}, h.replaces...)...).Replace(string(config)))
	h.gateway = story.Start(t, "sallyport", exec.Command(os.Getenv("SALLYPORT"), "serve", "-c", h.File("gateway.yaml")))
	h.gateway.Listens(t, h.asks)
	h.front(t, front)
	return h
}

// front starts the proxy that people come to.
func (h *lobby) front(t *testing.T, address string) {
	t.Helper()
	if h.product == "nginx" {
		story.StartNginx(t, "people.conf", string(h.Folder), address, h.replaces...)
		return
	}
	config, err := os.ReadFile("Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	h.Write(t, "Caddyfile", strings.NewReplacer(append(h.replaces, "app.localhost:8443", "app.localhost:"+port)...).Replace(string(config)))
	cmd := exec.Command("caddy", "run", "--config", "Caddyfile")
	cmd.Dir = string(h.Folder)
	cmd.Env = append(os.Environ(), "HOME="+string(h.Folder))
	story.Start(t, "caddy", cmd).Listens(t, address)
}

func TestPeopleBehindAProxyThatAsks(t *testing.T) {
	story.Need(t, "nginx", "caddy", "curl", "node", "chromium")
	app := startFlask(t)
	b := browser.Start(t, "FORWARD_AUTH_PICTURES")
	for _, product := range []string{"nginx", "caddy"} {
		t.Run(product, func(t *testing.T) {
			h := startLobby(t, product, app)
			h.ready(t)
			t.Run("programs", h.programs)
			t.Run("Alice", func(t *testing.T) { h.alice(t, b) })
			t.Run("Bob", func(t *testing.T) { h.bob(t, b) })
			for _, text := range []string{secret, "__Host-sallyport=", "eyJ"} {
				if strings.Contains(h.gateway.Output(), text) {
					t.Errorf("a log holds %q", text)
				}
			}
		})
	}
}

// call calls the proxy as a program does.
func (h *lobby) call(t *testing.T, path string, args ...string) story.Answer {
	t.Helper()
	return story.Curl(t, h.File("clients-ca/ca.pem"), append(args, h.url+path)...)
}

// ready waits until the gateway has read the provider's discovery document.
func (h *lobby) ready(t *testing.T) {
	t.Helper()
	browser.Eventually(t, "the gateway knows the provider", func() bool { return h.call(t, "/.sallyport/sign-in").Status == 303 })
}

// programs get 401 and no redirect, whatever they send; and nothing of it comes to the server.
func (h *lobby) programs(t *testing.T) {
	h.app.Take()
	h.Write(t, "long", strings.Repeat("x", 200<<10))
	for name, args := range map[string][]string{
		"a GET": nil, "a POST": {"--json", `{"a": 1}`}, "a long POST": {"--data", "@" + h.File("long")}, "a made-up session": {"-H", "Cookie: __Host-sallyport=1.AAAA"},
	} {
		a := h.call(t, "/echo", args...)
		if a.Status != 401 || a.Header.Get("Location") != "" || !strings.Contains(a.Body, `"reason":`) || !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: %d %v %s", name, a.Status, a.Header, a.Body)
		}
	}
	if got := h.app.Take(); len(got) > 0 {
		t.Errorf("the server was asked: %q", got[0].Request)
	}
}

// signIn is what a person does at the provider.
func signIn(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.WaitVisible("input[name=password]"),
		chromedp.SendKeys("input[name=name]", name),
		chromedp.SendKeys("input[name=password]", "a password of "+name),
		chromedp.Click("button"),
	)
}

// alice opens a page deep in the application, signs in, uses it with a cookie of its own, and signs out.
func (h *lobby) alice(t *testing.T, b *browser.Browser) {
	h.app.Take()
	deep := h.url + "/echo?from=a%20link"
	p := b.NewPerson(t)
	p.Do("a page leads to sign-in", chromedp.Navigate(deep), chromedp.WaitVisible("input[name=password]"))
	if got := h.app.Take(); len(got) > 0 {
		t.Errorf("before anybody signed in the server got %q", got)
	}
	p.Do("signing in", signIn("alice"), browser.Shows("sallyport-none=1"), browser.Shows("alice"))
	p.IsAt(deep)
	if s, status := p.Session(); status != 200 || s.Principal != "issuer/main:alice" {
		t.Errorf("the session is %d %+v", status, s)
	}
	browser.Eval[string](p, `document.cookie = "theme=dark; path=/; secure"`)
	p.Do("reloading", chromedp.Reload(), browser.Shows("theme=dark"))
	if a := p.Fetch("/predict", `{method: "POST", headers: {"Content-Type": "application/json"}, body: '{"a": 40, "b": 2}'}`); a.Status != 200 || !strings.Contains(a.Body, "42") {
		t.Errorf("a POST of the page: %+v", a)
	}
	if a := p.Fetch("/echo", `{headers: {"X-Remote-User": "root"}}`); a.Status == 200 && strings.Contains(a.Body, "root") {
		t.Errorf("a name that the page made up: %+v", a)
	}
	browser.Cookies(t, h.app, "theme=dark")
	p.Quiet("favicon.ico", "/echo")

	other := p.Another()
	other.Do("a second tab", chromedp.Navigate(deep), browser.Shows("theme=dark"))
	p.Do("signing out", chromedp.Navigate(h.url+"/.sallyport/sign-out"), browser.Press("form button"), chromedp.WaitVisible("button[name=logout]"))
	p.Do("signing out at the provider", chromedp.Click("button[name=logout]"), browser.Shows("You are signed out"))
	p.IsAt(h.url + "/.sallyport/signed-out")
	h.app.Take()
	if a := other.Fetch("/echo", "{}"); a.Status != 401 || a.Redirected {
		t.Errorf("after sign-out a script of another tab gets %+v", a)
	}
	other.Do("after sign-out the page leads to sign-in", chromedp.Navigate(deep), chromedp.WaitVisible("input[name=password]"))
	if got := h.app.Take(); len(got) > 0 {
		t.Errorf("after sign-out the server got %q", got)
	}
}

// bob signs in, and may do nothing: nginx has a page of its own for that, Caddy shows the gateway's.
func (h *lobby) bob(t *testing.T, b *browser.Browser) {
	h.app.Take()
	says := map[string]string{"nginx": "403 Forbidden", "caddy": "You are signed in as bob, who may not do this."}[h.product]
	p := b.NewPerson(t)
	p.Do("Bob signs in", chromedp.Navigate(h.url+"/echo"), signIn("bob"), browser.Shows(says))
	if got := h.app.Take(); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}
	if h.product != "nginx" {
		return
	}
	// With one word more nginx shows the gateway's page too.
	front := story.FreeAddress(t)
	_, port, _ := net.SplitHostPort(front)
	story.StartNginx(t, "people.conf", h.second(t), front, append([]string{"error_page 401 =", "error_page 401 403 =", "127.0.0.1:8443", front}, h.replaces[2:]...)...)
	p.Do("Bob learns who he is", chromedp.Navigate(fmt.Sprintf("https://app.localhost:%s/echo", port)), browser.Shows("You are signed in as bob, who may not do this."))
	if got := h.app.Take(); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}
}

// second returns a folder for another nginx with the same certificate.
func (h *lobby) second(t *testing.T) string {
	t.Helper()
	dir := story.Folder(t.TempDir())
	for _, name := range []string{"tls.pem", "tls.key"} {
		b, err := os.ReadFile(h.File(name))
		if err != nil {
			t.Fatal(err)
		}
		dir.Write(t, name, string(b))
	}
	if err := os.Mkdir(dir.File("tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	return string(dir)
}
