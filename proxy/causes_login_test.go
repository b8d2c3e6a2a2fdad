package proxy_test

import (
	"crypto/rand"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
	"sallyport/proxy"
)

// refusedLogins are logins, sessions and logouts that are refused. No cause holds a code, a state, a
// token or a cookie.
func refusedLogins(t *testing.T) *refusals {
	clock := &shiftedClock{}
	l := openLobby(t, plan{
		options: proxy.Options{Now: clock.now},
		more:    strings.Replace(loginSections, "{corp:", "{strong: {issuer: corp, client_id: gateway, client_secret: {file: secret}, acr_values: [mfa, hwk], session: {keys: {file: keys}}}, corp:", 1),
		routes: strings.Replace(loginRoutes, "login/corp,", "login/corp, login/strong,", 1) +
			"  - {host: models.test, path: /strict, upstream: '%s', callers: login/corp, step_up: {acr_values: mfa}, rules: [{allow: '*'}]}\n",
	})
	r := &refusals{house: l.house}
	b := l.browser(false)
	program := func(method, path, body string, header map[string]string) *reply {
		r.t.Helper()
		if header == nil {
			header = map[string]string{}
		}
		if header["Authorization"] == "" {
			header["Authorization"] = ""
		}
		return l.do(method, path, body, header)
	}
	answer := func(name string) string {
		at := b.answerOf(name, "/")
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		if code := u.Query().Get("code"); code != "" {
			r.secret(code)
		}
		r.secret(u.Query().Get("state"))
		return at
	}
	finish := func(at string) *reply { return b.request("GET", at, "", nil) }

	r.expect("login_state", 400, "the state is not one of the login of this path", finish(login.CallbackPath("corp")))
	r.expect("login_state", 400, "the state is not one of the login of this path", finish(strings.Replace(answer("corp"), login.CallbackPath("corp"), login.CallbackPath("strong"), 1)))
	r.expect("login_state", 400, "…", finish(withParameter(t, answer("corp"), "state", "corp."+r.secret("AAAAAAAAAAAAAAAAAAAAAA"))))
	r.expect("login_issuer", 400, `iss of the answer is "https://evil.example"`, finish(withParameter(t, answer("corp"), "iss", "https://evil.example")))
	l.provider.Refuse("access_denied")
	r.expect("login_refused", 403, `the issuer says "access_denied"`, finish(answer("corp")))
	l.provider.Refuse("")
	l.provider.Change(func(c map[string]any) { c["nonce"] = "another" }, nil)
	r.expect("login_token", 403, "…nonce…", finish(answer("corp")))
	l.provider.Change(nil, nil)
	r.expect("login_acr", 403, `acr is absent, demanded is one of "mfa", "hwk"`, finish(answer("strong")))
	l.provider.AnswerTokens(authtest.Status(503))
	r.expect("login_unavailable", 503, "token endpoint: …", finish(answer("corp")))
	l.provider.AnswerTokens(nil)
	blob := ""
	for len(blob) < 11_300 {
		blob += rand.Text() // does not compress
	}
	l.provider.Person("alice", map[string]any{"blob": blob})
	r.expect("session_too_large", 500, "… bytes of claims and … of tokens fit in no 4 cookies: keep sessions in memory", finish(answer("corp")))
	l.provider.Person("alice", nil)

	session := b.signInWith("corp")
	r.secret(session[20:])
	with := func(cookie string) map[string]string { return map[string]string{"Cookie": cookie} }
	r.expect("bad_session", 401, "…", program("GET", "/", "", with(session[:len(session)-4])))
	r.expect("bad_session", 401, "two cookies have the name of the session's, so somebody else may have set one", program("GET", "/", "", with(session+"; "+session)))
	r.expect("step_up", 401, `the session of issuer/corp:alice: acr is absent, demanded is one of "mfa"`, program("GET", "/strict", "", with(session)))
	r.expect("no_credential", 401, "…", program("GET", login.SessionPath, "", nil))
	cross := with(session)
	cross["Sec-Fetch-Site"] = "cross-site"
	r.expect("cross_site", 403, `Sec-Fetch-Site is "cross-site"`, program("POST", "/", "", cross))
	old := with(session)
	old["Origin"] = "https://evil.example"
	r.expect("cross_site", 403, `there is no Sec-Fetch-Site, and Origin is "https://evil.example"`, program("POST", "/", "", old))
	again := with(session)
	again["Sec-Fetch-Site"], again["Origin"] = "none", "https://evil.example"
	r.expect("cross_site", 403, `Sec-Fetch-Site is none, and Origin is "https://evil.example"`, program("POST", "/", "", again))
	r.expect("cross_site", 403, `there is neither Sec-Fetch-Site nor Origin: a script that uses a person's session must send Origin`, program("POST", login.SignOutPath, "", with(session)))
	framed := with(session)
	framed["Sec-Fetch-Site"], framed["Sec-Fetch-Dest"] = "cross-site", "iframe"
	r.expect("cross_site", 403, `Sec-Fetch-Site is cross-site, and Sec-Fetch-Dest is "iframe"`, program("GET", login.SignInPath+"?login=corp", "", framed))
	r.expect("fetched_ahead", 403, `sec-purpose is "prefetch;prerender"`, program("GET", login.SignInPath+"?login=corp", "", map[string]string{"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Mode": "navigate"}))
	form := func() map[string]string {
		return map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	}
	r.expect("logout_token", 400, "…", program("POST", login.BackChannelPath, "logout_token="+r.secret("not-a-token"), form()))
	page := form()
	page["Origin"] = "https://evil.example"
	r.expect("cross_site", 403, `a browser sent it: origin is "https://evil.example"`, program("POST", login.BackChannelPath, "logout_token=x", page))
	r.expect("bad_body", 400, "the form has not one logout_token", program("POST", login.BackChannelPath, "x=y", form()))
	r.expect("bad_body", 400, `a logout token comes in a form, and Content-Type is "text/plain"`, program("POST", login.BackChannelPath, "x=y", map[string]string{"Content-Type": "text/plain"}))
	r.expect("body_too_large", 413, "over 32KiB (fixed)", program("POST", login.BackChannelPath, "logout_token="+strings.Repeat("x", 40<<10), form()))
	r.expect("no_route", 404, "the gateway has no such page under /.sallyport/", program("GET", "/.sallyport/other", "", nil))
	r.expect("method_not_allowed", 405, "the routes for this path take GET, HEAD, POST", program("PUT", login.SignOutPath, "", nil))

	leaver := l.browser(false)
	left := leaver.signInWith("corp")
	leaver.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	r.expect("session_ended", 401, "…", program("GET", "/", "", with(left)))

	blockEnds(t, l)
	end := "logout_token=" + url.QueryEscape(r.secret(l.provider.LogoutToken("sid-of-nobody", "", nil)))
	r.expect("session_unsaved", 503, "…sallyport-sessions: is not a regular file; name another file", program("POST", login.BackChannelPath, end, form()))

	late := answer("corp")
	clock.ahead.Store(int64(2 * time.Hour))
	r.expect("session_expired", 401, "…", program("GET", "/", "", with(session)))
	r.expect("login_expired", 400, "it began … s ago", finish(late))
	return r
}
