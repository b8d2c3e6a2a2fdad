package login

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sallyport/examples/story/browser"
)

// values is true once a field of the page has a value that contains text.
func values(text string) chromedp.Action[chromedp.Void] {
	return browser.Waits(fmt.Sprintf("[...document.querySelectorAll('textarea, input')].some(e => e.value.includes(%q))", text))
}

// stream: Alice's page gets a stream that lasts longer than her access token. The session is refreshed
// meanwhile. When she signs out of MLflow, Keycloak tells the gateway, and Gradio's page ends too.
func (h *house) stream(t *testing.T, b *browser.Browser) {
	h.gradio.Take()
	before := h.refreshes(t)
	p := b.NewPerson(t)
	deep := h.at("gradio", "/?__theme=dark")
	p.Do("opening a page", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
	p.Console()
	p.Do("signing in", signIn("alice"), browser.Shows("Count to"))
	p.IsAt(deep)
	browser.Eval[string](p, `document.cookie = "size=large; path=/; secure"`)
	p.Do("counting", chromedp.SendKeys("label textarea", "25"), chromedp.Click("button.primary"), values("1 2 3"))
	p.Picture("gradio")
	browser.Eventually(t, "Keycloak was asked for new tokens", func() bool {
		if _, status := p.Session(); status != 200 {
			t.Fatalf("the session is %d", status)
		}
		return h.refreshes(t) > before
	})
	p.Do("counting on", values("24 25"))
	p.Quiet()
	browser.Cookies(t, h.gradio, "size=large")

	other := p.Another()
	other.Do("MLflow without a form", chromedp.Navigate(h.at("mlflow", "/")), browser.Shows("churn"))
	other.Do("signing out", chromedp.Navigate(h.at("mlflow", "/.sallyport/sign-out")), browser.Press("form button"), browser.Shows("You are signed out"))
	browser.Eventually(t, "Gradio's session ended", func() bool { _, status := p.Session(); return status == 401 })
	p.Console()
	p.Do("Keycloak asks again", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
}

// refreshes counts the refreshed tokens at Keycloak.
func (h *house) refreshes(t *testing.T) int {
	t.Helper()
	var events []struct{ Type string }
	h.admin(t, "GET", "/admin/realms/people/events?type=REFRESH_TOKEN&max=1000", "").JSON(t, &events)
	return len(events)
}

// id finds the id of a user or group.
func (h *house) id(t *testing.T, path string) string {
	t.Helper()
	var found []struct{ ID string }
	h.admin(t, "GET", "/admin/realms/people/"+path, "").JSON(t, &found)
	if len(found) != 1 {
		t.Fatalf("%s finds %v", path, found)
	}
	return found[0].ID
}

// accounts: Alice and Bob sign in side by side. Bob may look at MLflow and change nothing, until he joins
// the group ml. Then Keycloak's administrator signs him out, and Alice goes on.
func (h *house) accounts(t *testing.T, b *browser.Browser) {
	const create = "/ajax-api/2.0/mlflow/experiments/create"
	alice, bob := b.NewPerson(t), b.NewPerson(t)
	for name, p := range map[string]*browser.Tab{"alice": alice, "bob": bob} {
		p.Do("signing in", chromedp.Navigate(h.at("mlflow", "/")), signIn(name), browser.Shows("churn"))
		p.Console()
	}
	bob.Do("reloading", chromedp.Reload(), browser.Shows("churn"))
	bob.Quiet(noAccounts)
	h.mlflow.Take()
	post := `{method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "of bob"}'}`
	if a := bob.Fetch(create, post); a.Status != 403 || !strings.Contains(a.Body, "forbidden") {
		t.Errorf("a guest creates: %+v", a)
	}
	for _, x := range h.mlflow.Take() {
		if strings.Contains(string(x.Request), "of bob") {
			t.Errorf("MLflow got %q", x.Request)
		}
	}
	page := bob.Another()
	page.Do("a page that is not for guests", chromedp.Navigate(h.at("gradio", "/")), browser.Shows("Use another account"))
	page.Fits("forbidden")
	if s, status := bob.Session(); status != 200 || !slices.Equal(s.Groups, []string{"guests"}) {
		t.Errorf("bob's session is %d %+v", status, s)
	}

	user := h.id(t, "users?username=bob&exact=true")
	if a := h.admin(t, "PUT", "/admin/realms/people/users/"+user+"/groups/"+h.id(t, "groups?search=ml&exact=true"), ""); a.Status != 204 {
		t.Fatalf("joining: %d %s", a.Status, a.Body)
	}
	browser.Eventually(t, "bob is in ml after a refresh", func() bool {
		bob.Fetch("/version", "{}") // asking for the session does not count as use, and does not refresh it
		s, _ := bob.Session()
		return slices.Contains(s.Groups, "ml")
	})
	if a := bob.Fetch(create, post); a.Status != 200 {
		t.Errorf("a member of ml creates: %+v", a)
	}

	if a := h.admin(t, "POST", "/admin/realms/people/users/"+user+"/logout", ""); a.Status != 204 {
		t.Fatalf("signing bob out: %d %s", a.Status, a.Body)
	}
	browser.Eventually(t, "bob's session ended", func() bool { _, status := bob.Session(); return status == 401 })
	if s, status := alice.Session(); status != 200 || s.Name != "alice" {
		t.Errorf("alice's session is %d %+v", status, s)
	}
	browser.Eventually(t, "a record of the logout by the back channel", func() bool { return strings.Contains(h.gateway.Process.Output(), `"login_event":"ended"`) })
	bob.Console()
	bob.Do("Keycloak asks again", chromedp.Navigate(h.at("mlflow", "/")), chromedp.WaitVisible("#kc-login"))
}

// lifetimes: sessions end without use, and at their end in any case. Shorter lifetimes count for the
// sessions that are there.
func (h *house) lifetimes(t *testing.T, b *browser.Browser) {
	enter := func() *browser.Tab {
		p := b.NewPerson(t)
		p.Do("signing in", chromedp.Navigate(h.at("mlflow", "/")), signIn("alice"), browser.Shows("churn"))
		return p
	}
	idle, used := enter(), enter()
	h.gateway.Reload(t, "absolute: 8h, idle: 1h", "absolute: 2m, idle: 1m")
	idle.Do("leaving", chromedp.Navigate("about:blank"))
	for end := time.Now().Add(61 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if a := used.Fetch("/version", "{}"); a.Status != 200 {
			t.Fatalf("the session in use is %d", a.Status)
		}
		if s, _ := used.Session(); s.Expires.IsZero() || s.Idle.Before(time.Now().Add(50*time.Second)) {
			t.Fatalf("the session in use ends at %s, and at %s without use", s.Expires, s.Idle)
		}
	}
	idle.Do("coming back", chromedp.Navigate(h.at("mlflow", "/.sallyport/session")), browser.Shows("session_expired"))
	idle.Fits("expired")
	idle.Do("Keycloak still knows her", chromedp.Navigate(h.at("mlflow", "/")), browser.Shows("churn"))
	browser.Eventually(t, "the session in use ended", func() bool { _, status := used.Session(); return status == 401 })
	if _, status := idle.Session(); status != 200 {
		t.Errorf("the new session is %d", status)
	}
}
