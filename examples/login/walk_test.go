package login

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story"
)

// noAccounts is what MLflow's page asks of servers that have accounts of their own; others say 404.
const noAccounts = "/users/current"

// session is the answer of /.sallyport/session.
type session struct {
	Principal, Name, Login string
	Groups                 []string
	Expires                time.Time
	Idle                   time.Time `json:"idle_expires"`
}

// session asks who is signed in, as a script of the page does.
func (p *tab) session() (session, int) {
	p.t.Helper()
	a := p.fetch("/.sallyport/session", "{}")
	var s session
	if a.Status == 200 {
		if err := json.Unmarshal([]byte(a.Body), &s); err != nil {
			p.t.Fatalf("%s: %v", a.Body, err)
		}
	}
	return s, a.Status
}

// cookies checks what a server got: never a cookie of the gateway, and the app's own where want is one.
func cookies(t *testing.T, relay *story.Relay, want string) {
	t.Helper()
	found := false
	exchanges := relay.Take()
	for _, x := range exchanges {
		if strings.Contains(string(x.Request), "sallyport=") || strings.Contains(string(x.Request), "sallyport-login") {
			t.Errorf("the server got %.400q", x.Request)
		}
		found = found || strings.Contains(string(x.Request), want)
	}
	if !found {
		t.Errorf("none of %d requests has %s", len(exchanges), want)
	}
}

// walk: Alice opens a page deep in MLflow, signs in, uses it, and signs out, here and at Keycloak.
func (h *house) walk(t *testing.T, browser context.Context) {
	h.mlflow.Take()
	p := newPerson(t, browser)
	deep := h.at("mlflow", "/?from=a%20link")
	p.do("opening a page", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
	if at := eval[string](p, "location.origin"); at != h.keycloak {
		t.Errorf("Keycloak's page is at %s", at)
	}
	if got := h.mlflow.Take(); len(got) > 0 {
		t.Errorf("MLflow got %q before anybody signed in", got)
	}
	p.picture("keycloak")
	p.console()
	p.do("signing in", signIn("alice"), shows("churn"))
	p.isAt(deep)
	p.picture("mlflow")
	if s, status := p.session(); status != 200 || s.Principal != "issuer/lab:alice" || s.Login != "lab" || !slices.Equal(s.Groups, []string{"ml"}) {
		t.Errorf("the session is %d %+v", status, s)
	}
	a := p.fetch("/ajax-api/2.0/mlflow/experiments/create", `{method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "of alice"}'}`)
	if a.Status != 200 {
		t.Errorf("a POST of the page: %+v", a)
	}
	eval[string](p, `document.cookie = "theme=dark; path=/; secure"`)
	if got := eval[string](p, "document.cookie"); strings.Contains(got, "sallyport") {
		t.Errorf("scripts see %s", got)
	}
	p.do("reloading", chromedp.Reload(), shows("of alice"))
	cookies(t, h.mlflow, "theme=dark")
	p.quiet(noAccounts)

	other := p.another()
	other.do("a second tab", chromedp.Navigate(deep), shows("of alice"))
	p.do("signing out", chromedp.Navigate(h.at("mlflow", "/.sallyport/sign-out")), shows("alice"))
	p.fits("sign-out")
	p.do("signing out", chromedp.Click("form button"), shows("You are signed out"))
	p.isAt(h.at("mlflow", "/.sallyport/signed-out"))
	p.fits("signed-out")
	p.quiet()
	other.quiet(noAccounts)
	h.mlflow.Take()
	if _, status := other.session(); status != 401 {
		t.Errorf("after sign-out the session is %d", status)
	}
	if a := other.fetch("/ajax-api/2.0/mlflow/experiments/search?max_results=5", "{}"); a.Status != 401 || a.Redirected {
		t.Errorf("after sign-out a script of another tab gets %+v", a)
	}
	if got := h.mlflow.Take(); len(got) > 0 {
		t.Errorf("after sign-out MLflow got %q", got)
	}
	p.do("after sign-out Keycloak asks again", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
}
