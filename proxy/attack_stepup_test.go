package proxy_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// vault is a lobby with pages that demand more than a login, before a provider that grants it.
type vault struct {
	*lobby
	clock  *shiftedClock
	opaque *authtest.Issuer

	mu    sync.Mutex // guards asked
	asked url.Values // the last authorization request
}

// The rules of /admin are as wide as those of the other paths: only step_up tells them apart.
const vaultRoutes = `
  - {host: [models.test, other.test], upstream: '%s', callers: [login/corp, issuer/corp], rules: [{allow: "*"}]}
  - {host: models.test, path: /admin, upstream: '%s', callers: [login/corp, issuer/corp, issuer/opaque], websocket: true, step_up: {acr_values: [mfa, hwk], max_age: 10m, prompt: login}, rules: [{allow: "*"}]}
  - {host: models.test, path: /form, methods: GET, upstream: '%s', callers: login/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /form, methods: POST, upstream: '%s', callers: login/corp, step_up: {acr_values: hwk}, rules: [{allow: "*"}]}
`

func openVault(t *testing.T, p plan) *vault {
	t.Helper()
	v := &vault{clock: &shiftedClock{}, opaque: authtest.Start(t)}
	p.options.Now = v.clock.now
	p.issuers = fmt.Sprintf("  opaque: {url: '%s', audience: models, introspection: {client_id: gateway, client_secret: {file: secret}}}\n", v.opaque.URL)
	if p.routes == "" {
		p.routes = vaultRoutes
	}
	v.lobby = openLobby(t, p)
	v.honest()
	v.provider.Change(func(c map[string]any) { // the provider's clock goes with the gateway's
		c["iat"], c["exp"] = v.clock.now().Unix(), v.clock.now().Add(time.Hour).Unix()
	}, nil)
	return v
}

// honest makes the provider do as it is asked. Who is not asked for more has a session there that began
// an hour ago by a password.
func (v *vault) honest() {
	v.answers(func(asked url.Values, claims map[string]any) {
		claims["acr"], claims["auth_time"] = "pwd", v.clock.now().Add(-time.Hour).Unix()
		if all := strings.Fields(asked.Get("acr_values")); len(all) > 0 {
			claims["acr"], claims["auth_time"] = all[0], v.clock.now().Unix()
		}
	})
}

// answers lets f change the claims of people who sign in.
func (v *vault) answers(f func(asked url.Values, claims map[string]any)) {
	v.provider.Authenticate(func(asked url.Values, claims map[string]any) {
		v.mu.Lock()
		v.asked = asked
		v.mu.Unlock()
		f(asked, claims)
	})
}

// demanded returns what the last authorization request demands.
func (v *vault) demanded() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked.Get("acr_values") + "," + v.asked.Get("max_age") + "," + v.asked.Get("prompt")
}

// claimed returns a bearer token of carol with these claims.
func (v *vault) claimed(claims map[string]any) string {
	v.t.Helper()
	all := v.issuer.Claims("carol", "models.predict")
	for name, value := range claims {
		all[name] = value
	}
	token, err := v.issuer.Sign(all)
	if err != nil {
		v.t.Fatal(err)
	}
	return token
}

const stepUpChallenge = `", error="insufficient_user_authentication", error_description="a stronger or more recent authentication is required", acr_values="mfa hwk", max_age="600"`

// wants checks a refusal for a program, and that the upstream saw nothing of it.
func (v *vault) wants(r *reply, name string, hits int64) {
	v.t.Helper()
	if r.StatusCode != 401 || r.reason() != "step_up" || !strings.Contains(r.Header.Get("WWW-Authenticate"), stepUpChallenge) || v.model.hits.Load() != hits {
		v.t.Errorf("%s: got %d %s %s; want 401 step_up with its challenge, and the upstream untouched", name, r.StatusCode, r.body, r.Header.Get("WWW-Authenticate"))
	}
}

func TestPeopleStepUp(t *testing.T) {
	v := openVault(t, plan{})
	b, victim := v.browser(true), v.browser(false)
	weak := b.signIn()
	victim.signIn()
	if got := v.demanded(); got != ",," {
		t.Errorf("a sign-in for another page demands %s", got)
	}
	hits := v.model.hits.Load()
	fetch := map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
	v.wants(b.request("GET", "/admin", "", fetch), "fetch", hits)
	first := b.request("GET", "/admin/x?y=%2F", "", nil)
	if to := first.Header.Get("Location"); first.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, login.SignInPath+"?") || strings.Contains(to, "acr") {
		t.Fatalf("got %d to %s", first.StatusCode, to)
	}
	if n := v.model.hits.Load(); n != hits {
		t.Errorf("the upstream saw %d requests of the weak session", n-hits)
	}
	if r := b.visit("/admin/x?y=%2F"); r.StatusCode != 200 || v.demanded() != "mfa hwk,600,login" {
		t.Fatalf("got %d %s after a sign-in that demands %s", r.StatusCode, r.body, v.demanded())
	}
	if seen, _ := v.model.seen(); seen.RequestURI != "/admin/x?y=%2F" || seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
		t.Errorf("the upstream saw %s of %s", seen.RequestURI, seen.Header.Get("X-Sallyport-Principal"))
	}
	if r := b.request("GET", "/admin", "", fetch); r.StatusCode != 200 {
		t.Errorf("fetch with the new session: %d %s", r.StatusCode, r.body)
	}
	hits = v.model.hits.Load()
	if r := v.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": weak}); r.reason() != "session_ended" || v.model.hits.Load() != hits {
		t.Errorf("a copy of the session before: %d %s", r.StatusCode, r.body)
	}
	if r := victim.visit("/"); r.StatusCode != 200 {
		t.Errorf("the victim's session: %d %s", r.StatusCode, r.body)
	}
	if r := victim.request("GET", "/admin", "", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("the victim steps up without a sign-in: %d", r.StatusCode)
	}
	// The session lasts, and its authentication gets too old for the route.
	v.clock.ahead.Add(int64(10*time.Minute + 30*time.Second))
	if r := b.request("GET", "/admin", "", fetch); r.StatusCode != 200 {
		t.Errorf("within the skew: %d %s", r.StatusCode, r.body)
	}
	v.clock.ahead.Add(int64(time.Minute))
	hits = v.model.hits.Load()
	v.wants(b.request("POST", "/admin", "x", fetch), "fetch, too late", hits)
	if r := b.request("GET", "/", "", fetch); r.StatusCode != 200 {
		t.Errorf("another page: %d %s", r.StatusCode, r.body)
	}
	v.provider.Person("bob", nil)
	if r := b.visit("/admin"); r.StatusCode != 200 {
		t.Fatalf("signing in again: %d %s", r.StatusCode, r.body)
	}
	if seen, _ := v.model.seen(); seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:bob" {
		t.Errorf("the upstream got %s for the person who signed in", seen.Header.Get("X-Sallyport-Principal"))
	}
	if err := v.stop(); err != nil {
		t.Fatal(err)
	}
	signedIn, used := 0, 0
	for _, rec := range v.audit.records(t) {
		at, _ := rec["auth_time"].(float64)
		switch {
		case rec["login_event"] == "signed_in" && rec["acr"] == "mfa" && at > 0:
			signedIn++
		case rec["route"] == "models.test/admin" && rec["status"] == 200.0 && rec["acr"] == "mfa" && at > 0:
			used++
		case rec["reason"] == "step_up" && !strings.Contains(fmt.Sprint(rec["cause"]), "the session of issuer/corp:alice: "):
			t.Errorf("the record of a refusal is %v", rec)
		}
	}
	if signedIn != 2 || used < 3 {
		t.Errorf("%d logins and %d requests are recorded with acr and auth_time", signedIn, used)
	}
}

// Two tabs step up at once: the second sign-in does not end the session of the first, whose page loads.
// Somebody else's does.
func TestTabsStepUpAtOnce(t *testing.T) {
	v := openVault(t, plan{})
	b := v.browser(true)
	b.signIn()
	first, second, third := b.answer("/admin"), b.answer("/admin"), b.answer("/admin")
	session := func(answer string) string {
		t.Helper()
		r := b.request("GET", answer, "", nil)
		if r.StatusCode != http.StatusSeeOther {
			t.Fatalf("signing in: %d %s", r.StatusCode, r.body)
		}
		for _, c := range r.Cookies() {
			if strings.HasPrefix(c.Name, "__Host-sallyport") && c.MaxAge > 0 {
				return c.Name + "=" + c.Value
			}
		}
		t.Fatal("no session")
		return ""
	}
	serves := func(cookie string, status int) {
		t.Helper()
		if r := v.do("GET", "/admin", "", map[string]string{"Authorization": "", "Cookie": cookie}); r.StatusCode != status {
			t.Errorf("got %d %s; want %d", r.StatusCode, r.body, status)
		}
	}
	one := session(first)
	two := session(second)
	serves(one, 200)
	serves(two, 200)
	v.provider.Change(func(c map[string]any) { c["sub"] = "bob" }, nil)
	three := session(third)
	serves(two, 401)
	serves(three, 200)
}

// TestAttackTooWeakAnswers steps up at issuers that do not do as they are asked. Each refuses with a page,
// after one sign-in: no browser is sent to and fro.
func TestAttackTooWeakAnswers(t *testing.T) {
	v := openVault(t, plan{})
	for name, c := range map[string]struct {
		acr, authTime any // nil: absent
		reason, cause string
	}{
		"acr_values are ignored":       {"pwd", 0, "login_acr", `acr is "pwd", demanded is one of "mfa", "hwk"`},
		"acr in another letter case":   {"MFA", 0, "login_acr", `acr is "MFA", demanded is one of "mfa", "hwk"`},
		"acr has both":                 {"mfa hwk", 0, "login_acr", `acr is "mfa hwk", demanded is one of "mfa", "hwk"`},
		"acr is absent":                {nil, 0, "login_acr", `acr is absent, demanded is one of "mfa", "hwk"`},
		"acr is a list":                {[]string{"mfa"}, 0, "login_acr", `acr is absent, demanded is one of "mfa", "hwk"`},
		"auth_time is absent":          {"mfa", nil, "login_acr", "auth_time is absent, and max_age is 10m"},
		"max_age is ignored":           {"mfa", -time.Hour, "login_acr", "auth_time is 3600 s ago, max_age is 600 s, skew is 1m"},
		"the issuer's clock is behind": {"hwk", -12 * time.Minute, "login_acr", "auth_time is 720 s ago, max_age is 600 s, skew is 1m"},
		"and ahead":                    {"hwk", time.Hour, "login_acr", "auth_time is 3600 s in the future, skew is 1m"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &vault{lobby: v.in(t), clock: v.clock}
			v.honest()
			victim, b := v.browser(true), v.browser(true)
			if r := victim.visit("/admin"); r.StatusCode != 200 {
				t.Fatalf("the victim: %d", r.StatusCode)
			}
			weak := b.signIn()
			v.answers(func(_ url.Values, claims map[string]any) {
				delete(claims, "auth_time")
				if c.acr != nil {
					claims["acr"] = c.acr
				}
				switch d := c.authTime.(type) {
				case int:
					claims["auth_time"] = v.clock.now().Unix()
				case time.Duration:
					claims["auth_time"] = v.clock.now().Add(d).Unix()
				}
			})
			hits, exchanges := v.model.hits.Load(), v.provider.Exchanges()
			r := b.visit("/admin")
			v.refusedPage(r, 403, c.reason, hits)
			if n := v.provider.Exchanges() - exchanges; n != 1 {
				t.Errorf("%d codes were redeemed; want 1", n)
			}
			if cause := v.causeOf(r); cause != c.cause {
				t.Errorf("the cause is %s; want %s", cause, c.cause)
			}
			// What failed replaced nothing.
			if r := v.do("GET", "/", "", map[string]string{"Authorization": "", "Cookie": weak}); r.StatusCode != 200 {
				t.Errorf("the session before: %d %s", r.StatusCode, r.body)
			}
			if r := victim.visit("/admin"); r.StatusCode != 200 {
				t.Errorf("the victim, later: %d", r.StatusCode)
			}
		})
	}
}

// causeOf returns the cause in the record of an answer.
func (v *vault) causeOf(r *reply) string {
	v.t.Helper()
	cause, _ := v.record(r.Header.Get("X-Request-Id"))["cause"].(string)
	return cause
}

// TestAttackWeakerDemand lets others choose the page to return to, and parameters of the sign-in. The page
// alone decides what is demanded, and a session for one page opens no other.
func TestAttackWeakerDemand(t *testing.T) {
	v := openVault(t, plan{})
	const admin = "mfa hwk,600,login"
	for _, c := range []struct{ host, query, want string }{
		{"models.test", "to=/admin", admin},
		{"models.test", "to=/admin/&acr_values=pwd&max_age=999999&prompt=none", admin},
		{"models.test", "to=/admin?acr_values=pwd", admin},
		{"models.test", "to=/%2561dmin", admin}, // canonical: /admin
		{"models.test", "to=/admin%23/plain", admin},
		{"models.test", "to=/admin/x&to=/plain", admin},
		{"models.test", "to=/form", "hwk,,"},
		{"models.test", "to=/plain", ",,"},
		{"models.test", "to=/administration", ",,"},
		{"models.test", "to=//evil/admin", ",,"},
		{"models.test", "to=https://models.test/admin", ",,"},
		{"models.test", "to=/ADMIN", ",,"}, // refused as ambiguous when it is asked for
		{"models.test", "to=/admin/../plain", ",,"},
		{"models.test", "", ",,"},
		{"other.test", "to=/admin", ",,"}, // no route of that host demands more
	} {
		b := v.browser(false)
		r := b.request("GET", "https://"+c.host+login.SignInPath+"?login=corp&"+c.query, "", nil)
		at := b.request("GET", r.Header.Get("Location"), "", nil)
		if got := v.demanded(); got != c.want {
			t.Errorf("%s %s demands %s; want %s", c.host, c.query, got, c.want)
		}
		hits := v.model.hits.Load()
		if r := b.request("GET", at.Header.Get("Location"), "", nil); r.StatusCode != http.StatusSeeOther {
			t.Fatalf("%s %s: signing in: %d %s", c.host, c.query, r.StatusCode, r.body)
		}
		r = b.request("GET", "/admin", "", nil)
		suffices := c.want != ",," // hwk, just now, is what /admin demands too
		if suffices && r.StatusCode != 200 || !suffices && (r.StatusCode != http.StatusSeeOther || v.model.hits.Load() != hits) {
			t.Errorf("after %s %s: /admin is %d %s", c.host, c.query, r.StatusCode, r.body)
		}
	}
	// A form that a page may not send yet leads to a sign-in after which it may.
	b := v.browser(false)
	b.signIn()
	form := map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded"}
	hits := v.model.hits.Load()
	v.refusedPage(b.request("POST", "/form", "x=1", form), 401, "step_up", hits)
	if r := b.visit(login.SignInPath + "?login=corp&to=/form"); r.StatusCode != 200 {
		t.Fatalf("the page of the form: %d", r.StatusCode)
	}
	if r := b.request("POST", "/form", "x=1", form); r.StatusCode != 200 {
		t.Errorf("the form: %d %s", r.StatusCode, r.body)
	}
}

// TestAttackWeakTokens calls with tokens whose claims do not suffice, over each protocol.
func TestAttackWeakTokens(t *testing.T) {
	t.Parallel()
	v := openVault(t, plan{})
	now := time.Now().Unix()
	bearer := func(token string) map[string]string { return map[string]string{"Authorization": "Bearer " + token} }
	opaque := func(name string, claims map[string]any) string {
		all := v.opaque.Claims("carol", "models.predict")
		for name, value := range claims {
			all[name] = value
		}
		v.opaque.Know(name, all)
		return name
	}
	hits := v.model.hits.Load()
	for name, c := range map[string]struct {
		claims map[string]any
		cause  string
	}{
		"no claims":     {nil, "acr is absent, demanded is one of"},
		"another acr":   {map[string]any{"acr": "pwd", "auth_time": now}, `acr is "pwd", demanded is one of "mfa", "hwk"`},
		"several acr":   {map[string]any{"acr": []string{"mfa"}, "auth_time": now}, "acr is absent"},
		"acr of space":  {map[string]any{"acr": "mfa hwk", "auth_time": now}, `acr is "mfa hwk"`},
		"no auth_time":  {map[string]any{"acr": "mfa"}, "auth_time is absent, and max_age is 10m"},
		"text":          {map[string]any{"acr": "mfa", "auth_time": fmt.Sprint(now)}, "auth_time is absent"},
		"negative":      {map[string]any{"acr": "mfa", "auth_time": -now}, "auth_time is absent"},
		"too old":       {map[string]any{"acr": "mfa", "auth_time": now - 700}, "auth_time is 70"},
		"of the future": {map[string]any{"acr": "mfa", "auth_time": now + 3600}, "s in the future, skew is 1m"},
		"of no time":    {map[string]any{"acr": "mfa", "auth_time": 1e300}, "auth_time is absent"},
		"never":         {map[string]any{"acr": "mfa", "auth_time": 0}, "auth_time is absent"},
	} {
		for kind, token := range map[string]string{"JWT": v.claimed(c.claims), "opaque": opaque("opaque "+name, c.claims)} {
			token = strings.ReplaceAll(token, " ", "-")
			if kind == "opaque" {
				opaque(token, c.claims)
			}
			for range 2 { // once verified, and once from the cache
				r := v.do("GET", "/admin", "", bearer(token))
				v.wants(r, kind+" with "+name, hits)
				if cause := v.causeOf(r); !strings.Contains(cause, c.cause) || !strings.Contains(cause, `sub "carol"`) {
					t.Errorf("%s with %s: the cause is %s", kind, name, cause)
				}
			}
			if kind == "JWT" { // elsewhere these claims do not matter
				if r := v.do("GET", "/", "", bearer(token)); r.StatusCode != 200 {
					t.Errorf("%s with %s at another route: %d %s", kind, name, r.StatusCode, r.body)
				}
				hits = v.model.hits.Load()
			}
		}
	}
	strong := map[string]any{"acr": "hwk", "auth_time": float64(now) - 630.5} // within the skew
	for kind, token := range map[string]string{"JWT": v.claimed(strong), "opaque": opaque("opaque-strong", strong)} {
		if r := v.do("GET", "/admin", "", bearer(token)); r.StatusCode != 200 {
			t.Errorf("%s that suffices: %d %s", kind, r.StatusCode, r.body)
		}
	}
	hits = v.model.hits.Load()

	weak := v.claimed(nil)
	res, err := v.call(t.Context(), "/admin/Predict", strings.NewReader(""), "Authorization", "Bearer "+weak)
	if err != nil {
		t.Fatal(err)
	}
	if _, status := finish(t, res); status != "16" {
		t.Errorf("a gRPC call ends with %s; want UNAUTHENTICATED", status)
	}
	got := v.raw("GET /admin HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + weak + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 401 ") || !strings.Contains(got, "insufficient_user_authentication") {
		t.Errorf("a WebSocket got %q", got)
	}
	if n := v.model.hits.Load() - hits; n > 0 {
		t.Errorf("the upstream saw %d of the gRPC call and the WebSocket", n)
	}
	b := v.browser(false)
	session := b.signIn()
	got = v.raw("GET /admin HTTP/1.1\r\nHost: models.test\r\nCookie: " + session + "\r\nOrigin: https://models.test\r\nAccept: text/html\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 401 ") || !strings.Contains(got, "step_up") {
		t.Errorf("a WebSocket of a page got %q", got)
	}
	// A sign-in would not cure the token of a navigation, nor a good session beside it.
	if r := b.visit("/admin"); r.StatusCode != 200 {
		t.Fatalf("stepping up: %d", r.StatusCode)
	}
	hits = v.model.hits.Load()
	page := map[string]string{"Authorization": "Bearer " + weak, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Accept": "text/html"}
	v.refusedPage(b.request("GET", "/admin", "", page), 401, "step_up", hits)
	v.refusedPage(v.browser(false).request("GET", "/admin", "", page), 401, "step_up", hits)
}

// Another proxy gets the refusal with the challenge, and no redirect.
func TestStepUpForOtherProxies(t *testing.T) {
	v := openVault(t, plan{listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: nginx}", more: "trusted_proxies: 127.0.0.1\n"})
	r := v.askAs(append(told("nginx", "GET", "models.test", "/admin"), "Accept: text/html", "Authorization: Bearer "+v.claimed(nil))...)
	v.wants(r, "a weak token", 0)
	strong := v.claimed(map[string]any{"acr": "mfa", "auth_time": time.Now().Unix()})
	if r := v.askAs(append(told("nginx", "GET", "models.test", "/admin"), "Authorization: Bearer "+strong)...); r.StatusCode != 200 {
		t.Errorf("a strong token: %d %s", r.StatusCode, r.body)
	}
}

// TestStreamsAndStepUp: a stream that began in time goes on, unless a new configuration demands another
// authentication.
func TestStreamsAndStepUp(t *testing.T) {
	v := openVault(t, plan{more: unwatched, handler: ticking})
	c := v.client(true)
	now := v.clock.now().Unix()
	mfa := v.house.stream(c, "/admin", v.claimed(map[string]any{"acr": "mfa", "auth_time": now, "exp": now + 36000}))
	hwk := v.house.stream(c, "/admin", v.claimed(map[string]any{"acr": "hwk", "auth_time": now, "exp": now + 36000}))
	v.clock.ahead.Add(int64(time.Hour))
	v.gateway.Revisit(t.Context())
	goesOn(t, "mfa", mfa)
	goesOn(t, "hwk", hwk)
	v.edit("[mfa, hwk]", "hwk")
	v.reload("changed")
	isCut(t, "mfa", mfa)
	goesOn(t, "hwk", hwk)
}
