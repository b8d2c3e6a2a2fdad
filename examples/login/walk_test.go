package login

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story/browser"
)

// noAccounts is what MLflow's page asks of servers that have accounts of their own; others say 404.
const noAccounts = "/users/current"

// signIn is what a person does on Keycloak's page.
func signIn(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.WaitVisible("#username"),
		chromedp.SendKeys("#username", name),
		chromedp.SendKeys("#password", "a password of "+name),
		chromedp.Click("#kc-login"),
	)
}

// walk: Alice opens a page deep in MLflow, signs in, uses it, and signs out, here and at Keycloak.
func (h *house) walk(t *testing.T, b *browser.Browser) {
	h.mlflow.Take()
	p := b.NewPerson(t)
	deep := h.at("mlflow", "/?from=a%20link")
	p.Do("opening a page", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
	if at := browser.Eval[string](p, "location.origin"); at != h.keycloak {
		t.Errorf("Keycloak's page is at %s", at)
	}
	if got := h.mlflow.Take(); len(got) > 0 {
		t.Errorf("MLflow got %q before anybody signed in", got)
	}
	p.Picture("keycloak")
	p.Console()
	p.Do("signing in", signIn("alice"), browser.Shows("churn"))
	p.IsAt(deep)
	p.Picture("mlflow")
	if s, status := p.Session(); status != 200 || s.Principal != "issuer/lab:alice" || s.Login != "lab" || !slices.Equal(s.Groups, []string{"ml"}) {
		t.Errorf("the session is %d %+v", status, s)
	}
	a := p.Fetch("/ajax-api/2.0/mlflow/experiments/create", `{method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "of alice"}'}`)
	if a.Status != 200 {
		t.Errorf("a POST of the page: %+v", a)
	}
	browser.Eval[string](p, `document.cookie = "theme=dark; path=/; secure"`)
	if got := browser.Eval[string](p, "document.cookie"); strings.Contains(got, "sallyport") {
		t.Errorf("scripts see %s", got)
	}
	p.Do("reloading", chromedp.Reload(), browser.Shows("of alice"))
	browser.Cookies(t, h.mlflow, "theme=dark")
	p.Quiet(noAccounts)

	other := p.Another()
	other.Do("a second tab", chromedp.Navigate(deep), browser.Shows("of alice"))
	p.Do("signing out", chromedp.Navigate(h.at("mlflow", "/.sallyport/sign-out")), browser.Shows("alice"))
	p.Fits("sign-out")
	p.Do("signing out", browser.Press("form button"), browser.Shows("You are signed out"))
	p.IsAt(h.at("mlflow", "/.sallyport/signed-out"))
	p.Fits("signed-out")
	p.Quiet()
	other.Quiet(noAccounts)
	h.mlflow.Take()
	if _, status := other.Session(); status != 401 {
		t.Errorf("after sign-out the session is %d", status)
	}
	if a := other.Fetch("/ajax-api/2.0/mlflow/experiments/search?max_results=5", "{}"); a.Status != 401 || a.Redirected {
		t.Errorf("after sign-out a script of another tab gets %+v", a)
	}
	if got := h.mlflow.Take(); len(got) > 0 {
		t.Errorf("after sign-out MLflow got %q", got)
	}
	p.Do("after sign-out Keycloak asks again", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
}
