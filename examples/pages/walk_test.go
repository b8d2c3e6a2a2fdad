package pages

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story/browser"
)

// form is the provider's form.
func form() chromedp.Action[chromedp.Void] { return chromedp.WaitVisible("input[name=password]") }

// signIn is what a person does there.
func signIn(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		form(),
		chromedp.SendKeys("input[name=name]", name),
		chromedp.SendKeys("input[name=password]", "a password of "+name),
		chromedp.Click("button"),
	)
}

// press clicks the button with this text.
func press(text string) chromedp.Action[chromedp.Void] {
	find := fmt.Sprintf("[...document.querySelectorAll('button, a')].find(e => e.innerText.trim() === %q)", text)
	return chromedp.Steps(browser.Waits(find), browser.Waits("("+find+".click(), true)"))
}

// enter opens a page as somebody who has not signed in anywhere, and signs in.
func (h *house) enter(t *testing.T, b *browser.Browser, name, host, path string, shows chromedp.Action[chromedp.Void]) *browser.Tab {
	t.Helper()
	p := b.NewPerson(t)
	p.Do(host+" leads to sign-in", chromedp.Navigate(h.at(host, path)), form())
	p.Do(name+" signs in to "+host, signIn(name), shows)
	p.IsAt(h.at(host, path))
	return p
}

// signOut signs out here and at the provider, which asks.
func (h *house) signOut(p *browser.Tab, host string) {
	p.Do("signing out", chromedp.Navigate(h.at(host, "/.sallyport/sign-out")), browser.Press("form button"), chromedp.WaitVisible("button[name=logout]"))
	p.Do("signing out at the provider", chromedp.Click("button[name=logout]"), browser.Shows("You are signed out"))
	p.IsAt(h.at(host, "/.sallyport/signed-out"))
}

// board is true once TensorBoard shows the chart of the run.
func board() chromedp.Action[chromedp.Void] {
	return browser.Waits(`(function all(n) { return n.data || [...n.childNodes, ...(n.shadowRoot ? n.shadowRoot.childNodes : [])].map(all).join(" ") })(document.body).includes("loss") && document.querySelector("svg")`)
}

// tensorboard: a host with two logins has a page where people choose. Bob may look too, until he is
// asked to sign in once more; Alice in another browser goes on.
func (h *house) tensorboard(t *testing.T, b *browser.Browser) {
	p := b.NewPerson(t)
	deep := h.at("tensorboard", "/?darkMode=false&from=a%20link")
	p.Do("opening a page", chromedp.Navigate(deep), browser.Shows("Sign in with the password once more"))
	p.Fits("choice")
	p.Quiet()
	if got := h.boards.Take(); len(got) > 0 {
		t.Errorf("TensorBoard got %q before anybody signed in", got)
	}
	p.Do("choosing a login", press("Sign in with an account of the lab"), form())
	p.Picture("provider")
	p.Do("signing in", signIn("alice"), board())
	if at := browser.Eval[string](p, "location.href"); !strings.HasPrefix(at, deep) {
		t.Errorf("the page is %s, want %s", at, deep)
	}
	p.Picture("tensorboard")
	p.Quiet()
	browser.Eval[string](p, `document.cookie = "theme=dark; path=/; secure"`)
	p.Do("reloading", chromedp.Reload(), board())
	browser.Cookies(t, h.boards, "theme=dark")
	if s, status := p.Session(); status != 200 || s.Principal != "issuer/main:alice" || s.Login != "main" || !slices.Equal(s.Groups, []string{"ml", "Data Science"}) {
		t.Errorf("the session is %d %+v", status, s)
	}

	bob := b.NewPerson(t)
	bob.Do("bob chooses the other login", chromedp.Navigate(deep), press("Sign in with the password once more"), signIn("bob"), board())
	if s, status := bob.Session(); status != 200 || s.Principal != "issuer/main:bob" || s.Login != "again" {
		t.Errorf("bob's session is %d %+v", status, s)
	}
	bob.Do("a page that is not for guests", chromedp.Navigate(h.at("jupyter", "/lab")), browser.Shows("Use another account"))
	bob.Fits("forbidden")
	if s, status := p.Session(); status != 200 || s.Name != "alice" {
		t.Errorf("alice's session is %d %+v", status, s)
	}

	other := p.Another()
	other.Do("a second tab", chromedp.Navigate(deep), board())
	p.Do("signing out", chromedp.Navigate(h.at("tensorboard", "/.sallyport/sign-out")), browser.Shows("alice"))
	p.Fits("sign-out")
	h.signOut(p, "tensorboard")
	p.Fits("signed-out")
	h.boards.Take()
	if a := other.Fetch("/data/runs", "{}"); a.Status != 401 || a.Redirected {
		t.Errorf("after sign-out a script gets %+v", a)
	}
	other.Quiet("401")
	if got := h.boards.Take(); len(got) > 0 {
		t.Errorf("after sign-out TensorBoard got %q", got)
	}
	p.Console()
	p.Do("the provider asks again", chromedp.Navigate(h.at("streamlit", "/")), form())
}

// mlflow: its accounts are the people whom the gateway names. Bob may read what Alice, the
// administrator, has made.
func (h *house) mlflow(t *testing.T, b *browser.Browser) {
	const api = "/ajax-api/2.0/mlflow/"
	post := `{method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "churn"}'}`
	alice := h.enter(t, b, "alice", "mlflow", "/", browser.Shows("Experiments"))
	if a := alice.Fetch(api+"users/current", "{}"); a.Status != 200 || !strings.Contains(a.Body, `"username":"alice"`) || !strings.Contains(a.Body, `"is_admin":true`) {
		t.Errorf("MLflow knows alice as %+v", a)
	}
	if a := alice.Fetch(api+"experiments/create", post); a.Status != 200 {
		t.Errorf("alice creates: %+v", a)
	}
	alice.Picture("mlflow")
	alice.Quiet()
	bob := h.enter(t, b, "bob", "mlflow", "/", browser.Shows("churn"))
	if a := bob.Fetch(api+"users/current", "{}"); a.Status != 200 || !strings.Contains(a.Body, `"username":"bob"`) || !strings.Contains(a.Body, `"is_admin":false`) {
		t.Errorf("MLflow knows bob as %+v", a)
	}
	if a := bob.Fetch(api+"experiments/delete", `{method: "POST", headers: {"Content-Type": "application/json"}, body: '{"experiment_id": "1"}'}`); a.Status != 403 {
		t.Errorf("bob deletes: %+v", a)
	}
	if a := bob.Fetch(api+"users/current", `{headers: {"X-WEBAUTH-USER": "alice"}}`); a.Status != 400 || !strings.Contains(a.Body, "protected_field") {
		t.Errorf("bob says that he is alice: %+v", a)
	}
}

// leave signs somebody in who leaves the page.
func (h *house) leave(t *testing.T, b *browser.Browser) (*browser.Tab, time.Time) {
	t.Helper()
	p := h.enter(t, b, "alice", "api", "/docs", browser.Shows("/predict"))
	p.Do("leaving", chromedp.Navigate("about:blank"))
	return p, time.Now()
}

// comeBack: more than the idle lifetime later the session is over. The provider still knows Alice, so
// that she is back on the page without a form.
func (h *house) comeBack(t *testing.T, p *browser.Tab, left time.Time) {
	time.Sleep(time.Until(left.Add(61 * time.Second)))
	p.Do("coming back", chromedp.Navigate(h.at("api", "/.sallyport/session")), browser.Shows("session_expired"))
	p.Fits("expired")
	p.Do("the provider knows her", chromedp.Navigate(h.at("api", "/docs")), browser.Shows("/predict"))
	p.IsAt(h.at("api", "/docs"))
}
