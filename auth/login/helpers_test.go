package login_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/auth"
	"sallyport/auth/authtest"
	"sallyport/auth/login"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

const (
	host   = "models.example"
	origin = "https://models.example"
)

// desk is a gateway with one login, corp, at a provider on loopback.
type desk struct {
	t        testing.TB
	clock    *authtest.Clock
	issuer   *authtest.Issuer
	provider *authtest.Provider
	memory   *auth.Memory
	config   login.Config
	rules    auth.IssuerConfig
	auth     *auth.Auth
	login    *login.Login
	chain    *auth.Chain
	passing  *auth.Chain // of a route that passes on the tokens of config.Passed
}

// newDesk returns a desk whose login was changed by the functions.
func newDesk(t testing.TB, change ...func(*desk)) *desk {
	t.Helper()
	d := &desk{t: t, clock: authtest.NewClock()}
	d.issuer = authtest.StartAt(t, d.clock.Now)
	d.provider = d.issuer.Provide("gateway", "secret-of-client")
	d.memory = newMemory(d)
	d.config = login.Config{Issuer: "corp", ClientID: "gateway", ClientSecret: "secret-of-client"}
	d.rules = auth.IssuerConfig{URL: d.issuer.URL, Audience: setting.List[string]{"models"}, Groups: "groups"}
	for _, f := range change {
		f(d)
	}
	d.reload()
	return d
}

// reload makes a new Auth of the configuration over the same memory.
func (d *desk) reload() {
	d.t.Helper()
	a, err := auth.New(auth.Config{Issuers: map[string]auth.IssuerConfig{d.config.Issuer: d.rules}, Logins: map[string]login.Config{"corp": d.config}}, d.memory)
	if err != nil {
		d.t.Fatal(err)
	}
	a.Activate()
	d.t.Cleanup(a.Close)
	if d.auth != nil {
		d.auth.Close()
	}
	d.auth, d.login = a, a.Login("corp")
	if d.chain, err = a.Route(auth.Demand{Callers: []string{"issuer/" + d.config.Issuer, "login/corp"}}); err != nil {
		d.t.Fatal(err)
	}
	if d.passing, err = a.Route(auth.Demand{Callers: []string{"login/corp", "issuer/" + d.config.Issuer}, Passed: d.config.Passed}); err != nil {
		d.t.Fatal(err)
	}
}

// browser keeps cookies as browsers do, for one host.
type browser struct {
	*desk
	cookies map[string]string
}

func (d *desk) browser() *browser { return &browser{d, map[string]string{}} }

// take stores the cookies of an answer and checks their attributes.
func (b *browser) take(lines []string) {
	b.t.Helper()
	for _, line := range lines {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || len(c.Name)+len(c.Value) > 4096 {
			b.t.Errorf("unsafe or too long: %s (%d bytes)", c.Name, len(c.Value))
		}
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
}

// field returns the Cookie field.
func (b *browser) field() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(b.cookies)) {
		all = append(all, name+"="+b.cookies[name])
	}
	return strings.Join(all, "; ")
}

// begin begins a login and returns the issuer's page.
func (b *browser) begin(to string) string {
	b.t.Helper()
	r, err := b.login.Begin(b.t.Context(), login.Attempt{Host: host, Origin: origin, To: to, Cookie: b.field()})
	if err != nil {
		b.t.Fatal(err)
	}
	b.take(r.Cookies)
	return r.Location
}

// visit opens the issuer's page, where somebody signs in, and returns the query of the answer.
func (b *browser) visit(page string) string {
	b.t.Helper()
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, page, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	answer.Body.Close()
	to, err := answer.Location()
	if err != nil {
		b.t.Fatalf("%s: %v", answer.Status, err)
	}
	if want := origin + login.CallbackPath("corp"); !strings.HasPrefix(to.String(), want+"?") {
		b.t.Fatalf("the issuer sent the browser to %s", to)
	}
	return to.RawQuery
}

// finish brings an answer.
func (b *browser) finish(query string) (login.Finished, error) {
	b.t.Helper()
	f, err := b.login.Finish(context.Background(), login.Answer{Host: host, Origin: origin, Query: query, Cookie: b.field()})
	b.take(f.Cookies)
	if (f.Session == nil) != (err != nil) || err != nil && len(f.Cookies) > 1 {
		b.t.Errorf("a login has half succeeded: %v", err)
	}
	if err != nil {
		q, _ := url.ParseQuery(query)
		for _, secret := range []string{q.Get("code"), "secret-of-client", "eyJ"} {
			if secret != "" && strings.Contains(err.Error(), secret) {
				b.t.Errorf("the error has a secret: %v", err)
			}
		}
	}
	return f, err
}

// signIn signs in and returns the session.
func (b *browser) signIn() *login.Session {
	b.t.Helper()
	f, err := b.finish(b.visit(b.begin("/")))
	if err != nil {
		b.t.Fatal(err)
	}
	return f.Session
}

// at asks for a page of a host with the browser's cookies, as the gateway does.
func (b *browser) at(host string) (auth.Proof, error) {
	b.t.Helper()
	p, err := b.chain.Authenticate(context.Background(), request(host, b.field()))
	if err == nil && p.Session != nil {
		b.take(p.Session.Renewed(b.clock.Now()))
	}
	if (p.Caller.IsZero()) != (err != nil) {
		b.t.Errorf("caller %q beside error %v", p.Caller.String(), err)
	}
	return p, err
}

func (b *browser) ask() (auth.Proof, error) { b.t.Helper(); return b.at(host) }

// serves checks that the session is accepted as this caller.
func (b *browser) serves(caller string) {
	b.t.Helper()
	if p, err := b.ask(); err != nil || p.Caller.String() != caller {
		b.t.Errorf("got %q, %v; want %s", p.Caller.String(), err, caller)
	}
}

// refused checks that the session is refused for a reason.
func (b *browser) refused(reason string) {
	b.t.Helper()
	if p, err := b.ask(); reasonOf(err) != reason {
		b.t.Errorf("got %q, %v; want %s", p.Caller.String(), err, reason)
	}
}

func request(host, cookie string) *auth.Request {
	h := &message.Head{Method: "GET", Path: "/", Authority: host, Host: host}
	if cookie != "" {
		h.Fields.Add("cookie", cookie)
	}
	return &auth.Request{Head: h, Peer: netip.MustParseAddr("192.0.2.7")}
}

// reasonOf returns the reason of an error of either package; "" for none.
func reasonOf(err error) string {
	var own *login.Error
	var e *auth.Error
	switch {
	case errors.As(err, &e):
		return e.Reason
	case errors.As(err, &own):
		return own.Reason
	case err != nil:
		return "another error"
	}
	return ""
}

func wantReason(t testing.TB, name string, err error, reason string) {
	t.Helper()
	if got := reasonOf(err); got != reason {
		t.Errorf("%s: got %q, want %q (%v)", name, got, reason, err)
	}
}

// loginError returns the error of package login in an error.
func loginError(t testing.TB, err error) *login.Error {
	t.Helper()
	var e *login.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T: %v", err, err)
	}
	return e
}

// unsigned returns a token without a signature.
func unsigned(claims string) string {
	return authtest.Base64([]byte(`{"alg":"none"}`)) + "." + authtest.Base64([]byte(claims)) + "."
}

// huge returns a handler whose answer never ends.
func huge() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		block := []byte(`{"x":"` + strings.Repeat("x", 64<<10))
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
}

// revocations reads a file of these lines.
func revocations(t testing.TB, lines string) (*auth.Revocations, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "revoked")
	if err := os.WriteFile(name, []byte(lines+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return auth.ReadRevocations(setting.Path(name))
}

func mustKeys(t testing.TB) *login.Keys {
	t.Helper()
	keys, err := login.ParseKeys([]byte(login.NewKey()))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// newMemory returns the memory of another process beside a desk.
func newMemory(d *desk) *auth.Memory {
	m := auth.NewMemory(auth.MemoryOptions{Now: d.clock.Now})
	m.Logins().SetLeaving(0)
	return m
}

// challenge returns the challenges of a chain for an error, as clients join them.
func challenge(c *auth.Chain, realm string, err error) string {
	return strings.Join(c.Challenges(realm, err), ", ")
}
