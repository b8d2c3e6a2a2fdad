package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// TestAttackMixUp lets a person choose the login of a hostile issuer, which sends the browser on to an
// honest one (RFC 9700, section 4.4). Neither names itself in its answers, so the gateway would present
// the honest issuer's code to the hostile one.
func TestAttackMixUp(t *testing.T) {
	hostile := authtest.Start(t)
	thief := hostile.Provide("gateway-there", "s3cret-of-the-client")
	thief.OmitIssuer()
	l := openLobby(t, plan{
		issuers: "  evil: {url: '" + hostile.URL + "', audience: models}",
		more:    strings.Replace(loginSections, "{corp:", "{evil: {issuer: evil, client_id: gateway-there, client_secret: {file: secret}, session: {kind: memory}}, corp:", 1),
		routes:  strings.Replace(loginRoutes, "login/corp,", "login/corp, login/evil,", 1),
	})
	l.provider.OmitIssuer()
	l.provider.Register("https://models.test" + login.CallbackPath("corp"))
	beside := l.browser(true)
	beside.signIn()

	victim := l.browser(false)
	// mixedUp returns where the honest issuer sends the browser, to which the hostile one sent it.
	mixedUp := func(redirect string) *reply {
		r := victim.request("GET", login.SignInPath+"?login=evil", "", nil)
		at, err := url.Parse(r.Header.Get("Location"))
		if err != nil || !strings.HasPrefix(at.String(), hostile.URL+"/authorize?") {
			t.Fatalf("sign-in leads to %s", r.Header.Get("Location"))
		}
		q := at.Query()
		if got := q.Get("redirect_uri"); got != "https://models.test/.sallyport/callback/evil" {
			t.Errorf("the redirect URI of the hostile issuer is %s", got)
		}
		q.Set("client_id", "gateway")
		q.Set("redirect_uri", redirect)
		return victim.request("GET", l.issuer.URL+"/authorize?"+q.Encode(), "", nil)
	}
	if r := mixedUp("https://models.test" + login.CallbackPath("evil")); r.StatusCode != http.StatusBadRequest {
		t.Errorf("the honest issuer answers at the hostile one's redirect URI: %d", r.StatusCode)
	}
	hits := l.model.hits.Load()
	answer := mixedUp("https://models.test" + login.CallbackPath("corp")).Header.Get("Location")
	if !strings.Contains(answer, "code=") || !strings.Contains(answer, "state=evil.") {
		t.Fatalf("the honest issuer answers %s", answer)
	}
	l.refusedPage(victim.request("GET", answer, "", nil), 400, "login_state", hits)
	// A login that this browser began at the honest issuer does not help either.
	own, err := url.Parse(victim.answer("/"))
	if err != nil {
		t.Fatal(err)
	}
	state := strings.Replace(own.Query().Get("state"), "corp.", "evil.", 1)
	l.refusedPage(victim.request("GET", withParameter(t, own.String(), "state", state), "", nil), 400, "login_state", hits)
	l.refusedPage(victim.request("GET", strings.Replace(own.String(), "/corp?", "/evil?", 1), "", nil), 400, "login_state", hits)
	if n := thief.Exchanges(); n != 0 {
		t.Errorf("the hostile issuer got %d codes", n)
	}
	if r := victim.request("GET", "/", "", map[string]string{"Accept": "*/*"}); r.StatusCode != 401 || r.reason() != "no_credential" {
		t.Errorf("the victim is signed in: %d %s", r.StatusCode, r.body)
	}
	victim.signIn()
	for name, b := range map[string]*browser{"the victim": victim, "a person beside": beside} {
		if r := b.request("GET", "/", "", nil); r.StatusCode != 200 {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	// There is no path for the answers of all.
	if r := victim.request("GET", strings.Replace(own.String(), "/corp?", "?", 1), "", map[string]string{"Accept": "*/*"}); r.StatusCode != 404 || r.reason() != "no_route" {
		t.Errorf("a path without a login: %d %s", r.StatusCode, r.body)
	}
}
