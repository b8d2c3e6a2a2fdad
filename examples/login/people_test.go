package login

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// values is true once a field of the page has a value that contains text.
func values(text string) chromedp.Action[chromedp.Void] {
	return waits(fmt.Sprintf("[...document.querySelectorAll('textarea, input')].some(e => e.value.includes(%q))", text))
}

// eventually asks again until something holds, for a minute.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// stream: Alice's page gets a stream that lasts longer than her access token. The session is refreshed
// meanwhile. When she signs out of MLflow, Keycloak tells the gateway, and Gradio's page ends too.
func (h *house) stream(t *testing.T, browser context.Context) {
	h.gradio.Take()
	before := h.refreshes(t)
	p := newPerson(t, browser)
	deep := h.at("gradio", "/?__theme=dark")
	p.do("opening a page", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
	p.console()
	p.do("signing in", signIn("alice"), shows("Count to"))
	p.isAt(deep)
	eval[string](p, `document.cookie = "size=large; path=/; secure"`)
	p.do("counting", chromedp.SendKeys("label textarea", "25"), chromedp.Click("button.primary"), values("1 2 3"))
	p.picture("gradio")
	eventually(t, "Keycloak was asked for new tokens", func() bool {
		if _, status := p.session(); status != 200 {
			t.Fatalf("the session is %d", status)
		}
		return h.refreshes(t) > before
	})
	p.do("counting on", values("24 25"))
	p.quiet()
	cookies(t, h.gradio, "size=large")

	other := p.another()
	other.do("MLflow without a form", chromedp.Navigate(h.at("mlflow", "/")), shows("churn"))
	other.do("signing out", chromedp.Navigate(h.at("mlflow", "/.sallyport/sign-out")), chromedp.Click("form button"), shows("You are signed out"))
	eventually(t, "Gradio's session ended", func() bool { _, status := p.session(); return status == 401 })
	p.console()
	p.do("Keycloak asks again", chromedp.Navigate(deep), chromedp.WaitVisible("#kc-login"))
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
func (h *house) accounts(t *testing.T, browser context.Context) {
	const create = "/ajax-api/2.0/mlflow/experiments/create"
	alice, bob := newPerson(t, browser), newPerson(t, browser)
	for name, p := range map[string]*tab{"alice": alice, "bob": bob} {
		p.do("signing in", chromedp.Navigate(h.at("mlflow", "/")), signIn(name), shows("churn"))
		p.console()
	}
	bob.do("reloading", chromedp.Reload(), shows("churn"))
	bob.quiet(noAccounts)
	h.mlflow.Take()
	post := `{method: "POST", headers: {"Content-Type": "application/json"}, body: '{"name": "of bob"}'}`
	if a := bob.fetch(create, post); a.Status != 403 || !strings.Contains(a.Body, "forbidden") {
		t.Errorf("a guest creates: %+v", a)
	}
	for _, x := range h.mlflow.Take() {
		if strings.Contains(string(x.Request), "of bob") {
			t.Errorf("MLflow got %q", x.Request)
		}
	}
	page := bob.another()
	page.do("a page that is not for guests", chromedp.Navigate(h.at("gradio", "/")), shows("Use another account"))
	page.fits("forbidden")
	if s, status := bob.session(); status != 200 || !slices.Equal(s.Groups, []string{"guests"}) {
		t.Errorf("bob's session is %d %+v", status, s)
	}

	user := h.id(t, "users?username=bob&exact=true")
	if a := h.admin(t, "PUT", "/admin/realms/people/users/"+user+"/groups/"+h.id(t, "groups?search=ml&exact=true"), ""); a.Status != 204 {
		t.Fatalf("joining: %d %s", a.Status, a.Body)
	}
	eventually(t, "bob is in ml after a refresh", func() bool {
		bob.fetch("/version", "{}") // to ask for the session is no use of it, so that it is not refreshed
		s, _ := bob.session()
		return slices.Contains(s.Groups, "ml")
	})
	if a := bob.fetch(create, post); a.Status != 200 {
		t.Errorf("a member of ml creates: %+v", a)
	}

	if a := h.admin(t, "POST", "/admin/realms/people/users/"+user+"/logout", ""); a.Status != 204 {
		t.Fatalf("signing bob out: %d %s", a.Status, a.Body)
	}
	eventually(t, "bob's session ended", func() bool { _, status := bob.session(); return status == 401 })
	if s, status := alice.session(); status != 200 || s.Name != "alice" {
		t.Errorf("alice's session is %d %+v", status, s)
	}
	eventually(t, "a record of the logout by the back channel", func() bool { return strings.Contains(h.gateway.Process.Output(), `"login_event":"ended"`) })
	bob.console()
	bob.do("Keycloak asks again", chromedp.Navigate(h.at("mlflow", "/")), chromedp.WaitVisible("#kc-login"))
}

// lifetimes: sessions end without use, and at their end in any case. Shorter lifetimes count for the
// sessions that are there.
func (h *house) lifetimes(t *testing.T, browser context.Context) {
	enter := func() *tab {
		p := newPerson(t, browser)
		p.do("signing in", chromedp.Navigate(h.at("mlflow", "/")), signIn("alice"), shows("churn"))
		return p
	}
	idle, used := enter(), enter()
	h.reload(t, "absolute: 8h, idle: 1h", "absolute: 2m, idle: 1m")
	idle.do("leaving", chromedp.Navigate("about:blank"))
	for end := time.Now().Add(61 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if a := used.fetch("/version", "{}"); a.Status != 200 {
			t.Fatalf("the session in use is %d", a.Status)
		}
		if s, _ := used.session(); s.Expires.IsZero() || s.Idle.Before(time.Now().Add(50*time.Second)) {
			t.Fatalf("the session in use ends at %s, and at %s without use", s.Expires, s.Idle)
		}
	}
	idle.do("coming back", chromedp.Navigate(h.at("mlflow", "/.sallyport/session")), shows("session_expired"))
	idle.fits("expired")
	idle.do("Keycloak still knows her", chromedp.Navigate(h.at("mlflow", "/")), shows("churn"))
	eventually(t, "the session in use ended", func() bool { _, status := used.session(); return status == 401 })
	if _, status := idle.session(); status != 200 {
		t.Errorf("the new session is %d", status)
	}
}

// reload replaces text in the gateway's configuration, and makes the gateway read it.
func (h *house) reload(t *testing.T, old, new string) {
	t.Helper()
	name := filepath.Join(filepath.Dir(filepath.Dir(h.gateway.CA)), "gateway.yaml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("gateway.yaml has no %q any more", old)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	h.gateway.Process.Signal(syscall.SIGHUP)
	h.gateway.Process.Prints(t, `"msg":"configuration reloaded"`)
}
