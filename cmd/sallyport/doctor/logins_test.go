package doctor

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

const clientSecret = "s3cret-of-the-client"

// provided starts an issuer with a client named gateway.
func provided(t *testing.T, secret string) (*authtest.Issuer, *authtest.Provider) {
	t.Helper()
	var i *authtest.Issuer
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { i.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	i, err := authtest.NewIssuer(authtest.IssuerConfig{URL: s.URL, Audience: "models"})
	if err != nil {
		t.Fatal(err)
	}
	return i, i.Provide("gateway", secret)
}

// tryLogin returns what the doctor finds of a login with more settings, without the issuer's URL.
func (w *world) tryLogin(t *testing.T, issuer, more string) []Finding {
	t.Helper()
	w.file(t, "keys", login.NewKey()+"\n")
	r, err := Run(t.Context(), w.options(w.file(t, "gateway.yaml", start+"issuers: {corp: {url: "+issuer+", audience: models}}\n"+
		"logins: {corp: {issuer: corp, client_id: gateway, session: {keys: {file: keys}}, "+more+"}}\npublic_https: 443\nroutes:\n"+
		route("app.example", "http://127.0.0.1:9", "callers: [login/corp]"))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(w.dir, "sallyport-sessions")); err == nil {
		t.Error("the doctor made the gateway's file with the ends of sessions")
	}
	for _, f := range r.Findings {
		if strings.Contains(f.Text+f.Cure, clientSecret) {
			t.Errorf("a finding has the secret: %+v", f)
		}
	}
	return slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.Check != "login" })
}

// The doctor says of each step of a sign-in whether it is proven, and proves nothing that the issuer's answer
// does not.
func TestDoctorTriesLogins(t *testing.T) {
	const callback = "https://app.example/.sallyport/callback/corp"
	says := func(status int, text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		})
	}
	for name, c := range map[string]struct {
		secret string // of the client at the issuer
		mine   string // of the configuration; "" for none
		more   string
		issuer func(*authtest.Issuer, *authtest.Provider)
		want   []string // of findings: state, and a part of the text
	}{
		"all is well": {clientSecret, clientSecret, "", nil, []string{
			"ok: the issuer offers the code flow, sign-out at the issuer, revocation of refresh tokens; its document does not name PKCE by S256, back-channel logout",
			"ok: knows the client with the redirect URI " + callback, `ok: takes the client and its secret: it says "invalid_grant" to a made-up code, and "invalid_client" with a made-up secret`,
		}},
		"the secret by post":      {clientSecret, clientSecret, "client_auth: post, ", nil, []string{"ok: offers", "ok: knows", "ok: takes the client and its secret"}},
		"a public client":         {"", "", "", nil, []string{"ok: offers", "ok: knows", "ok: takes the client without a secret"}},
		"the secret of another":   {"another", clientSecret, "", nil, []string{"ok: offers", "ok: knows", `fail: does not take the client and its secret: it says "invalid_client"`}},
		"a secret that is needed": {"another", "", "", nil, []string{"ok: offers", "ok: knows", "fail: does not take the client without a secret"}},
		"another redirect URI": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) { p.Register("https://other.example/") }, []string{
			"ok: offers", "fail: answers 400 to an authorization request for " + callback, "ok: takes the client",
		}},
		"nobody is signed in": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) { p.Refuse("login_required") }, []string{"ok: offers", "ok: knows the client", "ok: takes"}},
		"a scope of nobody": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) { p.Refuse("invalid_scope") }, []string{
			"ok: offers", "fail: knows the client and " + callback + ", and says invalid_scope", "ok: takes",
		}},
		"no code flow": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) { p.Refuse("unauthorized_client") }, []string{
			"ok: offers", `fail: knows the client and ` + callback + `, and says "unauthorized_client"`, "ok: takes",
		}},
		"an issuer in trouble": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) {
			p.Refuse("temporarily_unavailable")
			p.AnswerTokens(says(503, "x"))
		}, []string{"ok: offers", "skipped: and says temporarily_unavailable", "skipped: whether the issuer takes the client and its secret is not proven: "}},
		"an issuer that looks at codes first": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) {
			p.AnswerTokens(says(400, `{"error": "invalid_grant"}`))
		}, []string{"ok: offers", "ok: knows", "skipped: says invalid_grant to a made-up code, with a made-up secret too"}},
		"an issuer that dislikes the request": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) {
			p.AnswerTokens(says(400, `{"error": "invalid_request"}`))
		}, []string{"ok: offers", "ok: knows", `skipped: is not proven: it says "invalid_request"`}},
		"tokens for everybody": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) {
			p.AnswerTokens(says(200, `{"access_token": "x", "token_type": "Bearer"}`))
		}, []string{"ok: offers", "ok: knows", "fail: gives tokens for a made-up code"}},
		"an issuer with little to offer": {clientSecret, clientSecret, "scopes: [groups], prompt: consent, ", func(i *authtest.Issuer, p *authtest.Provider) {
			p.Describe(map[string]any{
				"response_types_supported": []string{"id_token"}, "response_modes_supported": []string{"form_post"}, "code_challenge_methods_supported": []string{"plain"},
				"token_endpoint_auth_methods_supported": []string{"client_secret_post"}, "scopes_supported": []string{"openid"}, "prompt_values_supported": []string{"none"},
				"backchannel_logout_supported": true,
			})
		}, []string{
			"ok: back-channel logout; its document does not name PKCE by S256", `fail: response_types_supported of the discovery document lacks "code"`, `warn: response_modes_supported of the discovery document lacks "query"`,
			`warn: code_challenge_methods_supported of the discovery document lacks "S256"`, `warn: token_endpoint_auth_methods_supported of the discovery document lacks "client_secret_basic"`,
			`warn: scopes_supported of the discovery document lacks "groups"`, `warn: prompt_values_supported of the discovery document lacks "consent"`, "ok: knows", "ok: takes",
		}},
		"an issuer with a document of other types": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) {
			p.Describe(map[string]any{"scopes_supported": "openid"})
		}, []string{"skipped: what the issuer offers is not known", "ok: knows", "ok: takes"}},
		"an issuer without endpoints": {clientSecret, clientSecret, "", func(_ *authtest.Issuer, p *authtest.Provider) { p.Lack("token_endpoint") }, []string{
			"fail: has no authorization_endpoint or no token_endpoint", "skipped: not tried", "skipped: is not proven",
		}},
		"an issuer that is away": {clientSecret, clientSecret, "", func(i *authtest.Issuer, _ *authtest.Provider) { i.Answer(says(502, "x")) }, []string{
			"fail: nobody can sign in: the gateway cannot read the discovery document of issuers.corp",
			"skipped: whether the issuer knows " + callback + " is not tried", "skipped: whether the issuer takes the client and its secret is not tried",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			issuer, provider := provided(t, c.secret)
			if c.issuer != nil {
				c.issuer(issuer, provider)
			}
			w := newWorld(t)
			more := c.more
			if c.mine != "" {
				w.file(t, "secret", c.mine)
				more += "client_secret: {file: secret}"
			}
			found := w.tryLogin(t, issuer.URL, more)
			for i, f := range found {
				if i >= len(c.want) {
					t.Errorf("more is found: %+v", f)
					continue
				}
				state, part, _ := strings.Cut(c.want[i], ": ")
				if string(f.State) != state || !strings.Contains(f.Text, part) || f.Subject != "logins.corp" || f.State == Fail && f.Cure == "" {
					t.Errorf("got %+v; want %s", f, c.want[i])
				}
			}
			if len(found) < len(c.want) {
				t.Errorf("got %d findings; want %q", len(found), c.want)
			}
		})
	}
}

// An issuer that shows a page of its own, or sends the browser on to one, proves nothing.
func TestDoctorProvesNothingByPages(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a page":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Sign in")) }, "skipped: answers 200"},
		"on its way": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login?x", http.StatusFound) }, "skipped: on to a page of its own"},
		"without state": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.FormValue("redirect_uri")+"?code=x", http.StatusFound)
		}, "fail: without the state of the request"},
		"no answer": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "skipped: did not answer this machine"},
		"not found": {http.NotFound, "fail: answers 404"},
		"too many":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, "skipped: answers 429"},
	} {
		t.Run(name, func(t *testing.T) {
			issuer, provider := provided(t, clientSecret)
			asked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); q.Get("prompt") != "none" || q.Get("code_challenge_method") != "S256" || strings.Contains(r.URL.String(), clientSecret) || r.Header.Get("Cookie")+r.Header.Get("Authorization") != "" {
					t.Errorf("the issuer was asked %s", r.URL)
				}
				c.answer(w, r)
			}))
			t.Cleanup(asked.Close)
			provider.Describe(map[string]any{"authorization_endpoint": asked.URL})
			w := newWorld(t)
			w.file(t, "secret", clientSecret)
			found := w.tryLogin(t, issuer.URL, "client_secret: {file: secret}")
			state, part, _ := strings.Cut(c.want, ": ")
			if len(found) != 3 || string(found[1].State) != state || !strings.Contains(found[1].Text, part) {
				t.Errorf("got %+v; want %s", found, c.want)
			}
		})
	}
}

// Of many redirect URIs some are tried, and of a host with a star none can be.
func TestDoctorSaysWhichRedirectsItLeavesOut(t *testing.T) {
	issuer, _ := provided(t, clientSecret)
	w := newWorld(t)
	w.file(t, "secret", clientSecret)
	w.file(t, "keys", login.NewKey()+"\n")
	text := start + "issuers: {corp: {url: " + issuer.URL + ", audience: models}}\nlogins: {corp: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {keys: {file: keys}}}}\nroutes:\n"
	for _, host := range []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example", `"*.example"`} {
		text += route(host, "http://127.0.0.1:9", "callers: [login/corp]")
	}
	r, err := Run(t.Context(), w.options(w.file(t, "gateway.yaml", text)))
	if err != nil {
		t.Fatal(err)
	}
	var skipped []string
	for _, f := range r.Findings {
		if f.Check == "login" && f.State == Skipped {
			skipped = append(skipped, f.Text)
		}
	}
	want := []string{"further redirect URIs, 2 in number, are not tried; sallyport check lists them", "redirect URIs of hosts with a star are not tried: issuers register none; sallyport check says what to do"}
	if !slices.Equal(skipped, want) {
		t.Errorf("left out: %q; want %q", skipped, want)
	}
}
