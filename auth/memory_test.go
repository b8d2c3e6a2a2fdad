package auth

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// reloads is a memory with configurations of one issuer, corp.
type reloads struct {
	*provider
	clock  *authtest.Clock
	key    authtest.Key
	memory *Memory
}

func newReloads(t testing.TB) *reloads {
	t.Helper()
	r := &reloads{clock: authtest.NewClock(), key: authtest.NewKey("one", "EdDSA", authtest.Ed25519())}
	r.provider = newProvider(t, r.key.JWK())
	r.memory = NewMemory(MemoryOptions{Now: r.clock.Now})
	return r
}

// load makes an Auth that is not active yet, and the chain of a route for corp.
func (r *reloads) load(t testing.TB, change func(*IssuerConfig)) (*Auth, *Chain) {
	t.Helper()
	ic := r.config()
	if change != nil {
		change(&ic)
	}
	a, err := New(Config{Issuers: map[string]IssuerConfig{"corp": ic}}, r.memory)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func (r *reloads) token(changes map[string]any) string {
	return r.key.Token(r.claims(r.clock.Now(), changes))
}

// TestChangedIssuerRefusesCachedTokens checks that a changed configuration refuses a token
// that the old one cached.
func TestChangedIssuerRefusesCachedTokens(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*IssuerConfig)
		want   string
	}{
		"audience":     {func(c *IssuerConfig) { c.Audience = []string{"batch"} }, WrongAudience},
		"require":      {require("tenant", "a"), MissingClaim},
		"principal":    {func(c *IssuerConfig) { c.Principal = "azp" }, MissingClaim},
		"max_lifetime": {func(c *IssuerConfig) { c.MaxLifetime = setting.Duration(time.Minute) }, TokenTooLong},
		"algorithms":   {func(c *IssuerConfig) { c.Algorithms = []string{"RS256"} }, BadCredential},
		"typ":          {func(c *IssuerConfig) { c.Typ = []string{"at+jwt"} }, BadCredential},
		"url":          {func(c *IssuerConfig) { c.Discovery, c.URL = mustURL(c.URL), "https://other.example" }, BadCredential},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReloads(t)
			before, old := r.load(t, nil)
			before.Activate()
			token := r.token(nil)
			want(t, old, token, "")
			after, fresh := r.load(t, c.change)
			after.Activate()
			want(t, fresh, token, c.want)
			want(t, old, token, "") // requests in flight end under the rules they began with
			before.Close()
			want(t, fresh, token, c.want)
			want(t, old, token, IssuerUnavailable)
			after.Close()
		})
	}
}

// TestReloadUpdatesCachedPrincipals checks that a cached token gets the name and groups of
// the new configuration.
func TestReloadUpdatesCachedPrincipals(t *testing.T) {
	r := newReloads(t)
	before, old := r.load(t, nil)
	before.Activate()
	defer before.Close()
	token := r.token(map[string]any{"azp": "svc", "roles": []string{"admin"}})
	if p, err := ask(old, token); err != nil || p.String() != "issuer/corp:alice" || p.Groups != nil {
		t.Fatalf("got %q with %q, %v", p.String(), p.Groups, err)
	}
	after, fresh := r.load(t, func(c *IssuerConfig) { c.Principal, c.Groups = "azp", "roles" })
	after.Activate()
	defer after.Close()
	if p, err := ask(fresh, token); err != nil || p.String() != "issuer/corp:svc" || len(p.Groups) != 1 {
		t.Errorf("got %q with %q, %v", p.String(), p.Groups, err)
	}
}

// TestRenamedIssuerDropsCachedTokens: the issuer's name is part of the principal.
func TestRenamedIssuerDropsCachedTokens(t *testing.T) {
	r := newReloads(t)
	before, old := r.load(t, nil)
	before.Activate()
	defer before.Close()
	token := r.token(nil)
	want(t, old, token, "")
	renamed := activeAuth(t, r.memory, Config{Issuers: map[string]IssuerConfig{"staff": r.config()}})
	c, err := renamed.Route(Demand{Callers: []string{"issuer/staff"}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ask(c, token); err != nil || p.String() != "issuer/staff:alice" {
		t.Errorf("got %q, %v", p.String(), err)
	}
	if _, err := renamed.Route(Demand{Callers: []string{"issuer/corp"}}); err == nil {
		t.Error("a removed issuer can still be listed")
	}
}

// TestUnchangedIssuerKeepsTokensAndKeys checks that a reload without a change of an issuer
// fetches and verifies nothing again, in either order of Activate and Close.
func TestUnchangedIssuerKeepsTokensAndKeys(t *testing.T) {
	r := newReloads(t)
	current, chain := r.load(t, nil)
	current.Activate()
	token := r.token(nil)
	want(t, chain, token, "")
	requests := r.Requests()
	for i := range 10 {
		next, fresh := r.load(t, nil)
		want(t, fresh, token, IssuerUnavailable) // not active yet
		next.Activate()
		next.Activate() // counts once
		hits := r.memory.CacheStatus().Hits
		want(t, fresh, token, "")
		current.Close()
		current.Close() // counts once
		want(t, fresh, token, "")
		want(t, fresh, r.token(map[string]any{"sub": fmt.Sprint("new-", i)}), "")
		if n := r.memory.CacheStatus().Hits; n != hits+2 {
			t.Errorf("%d hits, want 2", n-hits)
		}
		if st := next.Status(); len(st) != 1 || st[0].Keys != 1 || st[0].Name != "corp" {
			t.Errorf("status %+v", st)
		}
		current = next
	}
	if n := r.Requests(); n != requests {
		t.Errorf("the issuer was asked %d times more", n-requests)
	}
	current.Close()
}

// TestChangedCAFileDropsTokensAndKeys changes the content of the file at the same path.
func TestChangedCAFileDropsTokensAndKeys(t *testing.T) {
	r := newReloads(t)
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	file := writeFile(t, root)
	load := func() *issuerMemory {
		a, _ := r.load(t, func(c *IssuerConfig) { c.CA = file })
		a.Activate()
		t.Cleanup(a.Close)
		return a.issuers["corp"].memory.Load()
	}
	one := load()
	if load() != one {
		t.Error("the same file is another configuration")
	}
	if err := os.WriteFile(string(file), append(root, root...), 0o600); err != nil {
		t.Fatal(err)
	}
	if load() == one {
		t.Error("another file is the same configuration")
	}
}

// TestInactiveAuthLeavesNothing checks that an Auth without Activate stores and fetches
// nothing, whether or not it is closed.
func TestInactiveAuthLeavesNothing(t *testing.T) {
	r := newReloads(t)
	before := runtime.NumGoroutine()
	for i := range 10 {
		a, c := r.load(t, nil)
		want(t, c, r.token(nil), IssuerUnavailable)
		if st := a.Status(); len(st) != 1 || st[0].Keys != 0 || st[0].URL != r.URL {
			t.Errorf("status %+v", st)
		}
		if i%2 == 0 {
			a.Close()
			a.Activate() // too late
			want(t, c, r.token(nil), IssuerUnavailable)
		}
	}
	if r.Requests() != 0 || len(r.memory.issuers) != 0 || r.memory.CacheStatus().Tokens != 0 {
		t.Errorf("%d requests, %d issuers, %+v", r.Requests(), len(r.memory.issuers), r.memory.CacheStatus())
	}
	awaitGoroutines(t, before)
}

// TestCloseLeavesNothing checks that no goroutine, token or key set remains of an unused
// issuer, even if it hangs during Close.
func TestCloseLeavesNothing(t *testing.T) {
	r := newReloads(t)
	hanging := newProvider(t)
	hanging.Answer(authtest.Hang())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error)
	before := runtime.NumGoroutine()
	go func() { done <- r.memory.Run(ctx) }()

	a, c := r.load(t, nil)
	a.Activate()
	token := r.token(nil)
	want(t, c, token, "")
	more, err := New(Config{Issuers: map[string]IssuerConfig{"corp": r.config(), "away": hanging.config()}}, r.memory)
	if err != nil {
		t.Fatal(err)
	}
	more.Activate()
	for hanging.Requests() == 0 {
		runtime.Gosched()
	}
	more.Close()
	if n := r.memory.CacheStatus().Tokens; n != 1 {
		t.Errorf("%d tokens, want that of the issuer that is still used", n)
	}
	want(t, c, token, "")
	a.Close()
	if n := r.memory.CacheStatus().Tokens; n != 0 || len(r.memory.issuers) != 0 {
		t.Errorf("%d tokens and %d issuers are left", n, len(r.memory.issuers))
	}
	want(t, c, token, IssuerUnavailable)
	awaitGoroutines(t, before+1) // Run itself
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestTokenOfARetiredIssuerIsNotCached ends a check after Close.
func TestTokenOfARetiredIssuerIsNotCached(t *testing.T) {
	r := newReloads(t)
	a, c := r.load(t, nil)
	a.Activate()
	want(t, c, r.token(nil), "")
	found, err := a.issuers["corp"].memory.Load().keys.resolve(t.Context(), "one", "EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	e := entry(r.memory.tokens, "late", 100)
	e.key = found.keys[0]
	r.memory.tokens.put(e)
	if n := r.memory.CacheStatus().Tokens; n != 0 {
		t.Errorf("%d tokens are cached", n)
	}
}

// TestAlternatingConfigurationsLeaveMemoryFlat checks that nothing grows with the number of
// reloads, although numbers of configurations are never reused.
func TestAlternatingConfigurationsLeaveMemoryFlat(t *testing.T) {
	r := newReloads(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	before := runtime.NumGoroutine()
	go func() { done <- r.memory.Run(ctx) }()
	current, _ := r.load(t, nil)
	current.Activate()
	numbers := map[uint64]bool{}
	for i := range 100 {
		next, c := r.load(t, func(c *IssuerConfig) {
			if i%2 == 0 {
				c.Audience = append(c.Audience, "batch")
			}
		})
		next.Activate()
		current.Close()
		for j := range 10 {
			want(t, c, r.token(map[string]any{"sub": fmt.Sprint(j)}), "")
		}
		number := next.issuers["corp"].memory.Load().number
		if numbers[number] {
			t.Fatalf("number %d was used before", number)
		}
		numbers[number] = true
		if st := r.memory.CacheStatus(); st.Tokens != 10 || len(r.memory.issuers) != 1 {
			t.Fatalf("after %d reloads: %d tokens, %d issuers", i, st.Tokens, len(r.memory.issuers))
		}
		current = next
	}
	current.Close()
	if st := r.memory.CacheStatus(); st.Tokens != 0 || st.Bytes != 0 || len(r.memory.issuers) != 0 {
		t.Errorf("at the end: %+v, %d issuers", st, len(r.memory.issuers))
	}
	cancel()
	<-done
	awaitGoroutines(t, before)
}

func TestReloadDoesNotResetBudget(t *testing.T) {
	r := newReloads(t)
	r.memory.budget = newBudget(Budget{Burst: 3, Every: time.Hour})
	evil := authtest.NewKey("one", "EdDSA", authtest.Ed25519())
	for _, change := range []func(*IssuerConfig){nil, require("sub", "*")} {
		a, c := r.load(t, change)
		a.Activate()
		defer a.Close()
		for range 5 {
			_, _ = ask(c, evil.Token(r.claims(r.clock.Now(), nil)))
		}
		want(t, c, evil.Token(r.claims(r.clock.Now(), nil)), TooManyFailures)
	}
}
