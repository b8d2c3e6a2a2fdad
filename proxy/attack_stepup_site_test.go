package proxy_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"sallyport/auth/login"
)

const meetRoutes = `
  - {host: a.lab.test, upstream: '%s', callers: login/corp, rules: [{allow: "*"}]}
  - {host: "*.w.lab.test", upstream: '%s', callers: login/corp, rules: [{allow: "*"}]}
  - {host: "*.w.lab.test", path: /admin, upstream: '%s', callers: login/corp, step_up: {acr_values: mfa}, rules: [{allow: "*"}]}
  - {host: b.lab.test, upstream: '%s', callers: login/corp, rules: [{allow: "*"}]}
  - {host: b.lab.test, path: /admin, upstream: '%s', callers: login/corp, step_up: {acr_values: mfa, max_age: 10m}, rules: [{allow: "*"}]}
`

func openMeet(t *testing.T, session string) *vault {
	t.Helper()
	v := openVault(t, plan{routes: meetRoutes, more: fmt.Sprintf(`
logins:
  corp: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {%s, cookie_domain: lab.test, sign_in_host: a.lab.test}}
`, session)})
	v.provider.Register("https://a.lab.test"+login.CallbackPath("corp"), "https://a.lab.test:8443"+login.CallbackPath("corp"))
	return v
}

// hops visits a page, and returns the last answer and how many redirects led there.
func (b *browser) hops(target string) (r *reply, at *url.URL, n int) {
	b.t.Helper()
	at, _ = url.Parse(target)
	for n = 0; n < 20; n++ {
		r = b.request("GET", at.String(), "", nil)
		if r.StatusCode < 300 || r.StatusCode > 399 {
			return
		}
		next, err := at.Parse(r.Header.Get("Location"))
		if err != nil {
			b.t.Fatal(err)
		}
		at = next
	}
	return
}

// TestStepUpFromOtherHostsOfSite opens pages that demand more than a login, at hosts where nobody signs in. The
// demand is that of the page: not that of the host where people sign in, and not one that a link names.
func TestStepUpFromOtherHostsOfSite(t *testing.T) {
	for _, kind := range []string{"keys: {file: keys}", "kind: memory"} {
		v := openMeet(t, kind)
		victim := v.browser(true)
		victim.visit("https://a.lab.test/x")
		for page, want := range map[string]string{ // where the browser arrives
			"https://b.lab.test/admin/x?y=%2F&to=/x":        "https://b.lab.test/admin/x?y=%2F&to=/x",
			"https://B.lab.test:443/%61dmin":                "https://b.lab.test/admin",
			"https://b.lab.test./admin":                     "https://b.lab.test/admin",
			"https://b.lab.test:8443/admin/%c3%a9":          "https://b.lab.test:8443/admin/%C3%A9",
			"https://b.lab.test/admin?x=https://a.lab.test": "https://b.lab.test/admin?x=https://a.lab.test",
			"https://x.w.lab.test:8443/admin":               "https://x.w.lab.test:8443/admin",
			"https://a.lab.test" + login.SignInPath + "?" + url.Values{"to": {"https://b.lab.test/admin"}, "acr_values": {"pwd"}, "login": {"corp"}}.Encode(): "https://b.lab.test/admin",
		} {
			for _, signedIn := range []bool{false, true} {
				b, weak := v.browser(false), ""
				if signedIn {
					b.visit("https://b.lab.test/x")
					weak = b.cookiesAt("b.lab.test")
				}
				r, at, n := b.hops(page)
				if r.StatusCode != 200 || at.String() != want || n > 5 || !strings.HasPrefix(v.demanded(), "mfa,") {
					t.Errorf("%s, %s, signed in %v: got %d after %d redirects at %s, with the demand %s", kind, page, signedIn, r.StatusCode, n, at, v.demanded())
				}
				if !signedIn {
					continue
				}
				hits := v.model.hits.Load()
				if r := v.with("a.lab.test", weak); r.StatusCode != 401 || r.reason() != "session_ended" || v.model.hits.Load() != hits {
					t.Errorf("%s, %s: the session before: %d %s", kind, page, r.StatusCode, r.body)
				}
			}
		}
		hits := v.model.hits.Load()
		if r := victim.request("GET", "https://b.lab.test/admin", "", map[string]string{"Accept": "*/*"}); r.StatusCode != 401 || r.reason() != "step_up" || v.model.hits.Load() != hits {
			t.Errorf("%s: the victim's weak session: %d %s", kind, r.StatusCode, r.body)
		}
		if r := victim.request("GET", "https://b.lab.test/x", "", nil); r.StatusCode != 200 {
			t.Errorf("%s: the victim at another page: %d", kind, r.StatusCode)
		}
	}
}
