package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// TestCachedTokenExpires checks that a cached token is refused once it has expired.
func TestCachedTokenExpires(t *testing.T) {
	f := newForge(t)
	token := f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"exp": f.clock.Now().Add(time.Minute).Unix()}))
	want(t, f.chain, token, "")
	f.clock.Add(119 * time.Second)
	want(t, f.chain, token, "")
	f.clock.Add(time.Second)
	want(t, f.chain, token, TokenExpired)
}

// TestPrincipalExpiresWithItsToken: streams end when their principal expires.
func TestPrincipalExpiresWithItsToken(t *testing.T) {
	f := newForge(t)
	p, err := ask(f.chain, f.rsa.Token(f.good()))
	if want := f.clock.Now().Add(time.Hour + defaultSkew); err != nil || !p.Expires.Equal(want) {
		t.Errorf("expires %v, want %v (%v)", p.Expires, want, err)
	}
}

// TestWithdrawnKeyInvalidatesItsTokens checks that cached tokens of a withdrawn key are
// refused at once, and that those of other keys stay cached.
func TestWithdrawnKeyInvalidatesItsTokens(t *testing.T) {
	f := newForge(t)
	one, two := f.rsa.Token(f.good()), f.ec.Token(f.good())
	want(t, f.chain, one, "")
	want(t, f.chain, two, "")
	f.Publish(f.ec.JWK(`"alg":"ES256"`))
	refresh(t, f.auth)
	if n := f.auth.memory.tokens.status().Tokens; n != 1 {
		t.Errorf("%d tokens in the cache, want the other one", n)
	}
	want(t, f.chain, one, BadCredential)
	want(t, f.chain, two, "")
	hits := f.auth.memory.CacheStatus().Hits
	want(t, f.chain, two, "")
	if f.auth.memory.CacheStatus().Hits != hits+1 {
		t.Error("the other key's token was verified again")
	}
}

// refresh fetches the keys of every issuer, like the background refresh.
func refresh(t *testing.T, a *Auth) {
	t.Helper()
	for _, iss := range a.issuers {
		keys := iss.memory.Load().keys
		keys.mu.Lock()
		for over := keys.fetching; over != nil; over = keys.fetching {
			keys.mu.Unlock()
			<-over
			keys.mu.Lock()
		}
		over := keys.start()
		keys.mu.Unlock()
		<-over
	}
}

// TestIssuerFailureAdmitsNobody checks failures of an issuer, at the start and later. A
// token that cannot be checked is refused, and known keys stay usable.
func TestIssuerFailureAdmitsNobody(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"refuses":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"fails":        func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"garbage":      func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.Repeat([]byte{0xff}, 100)) },
		"empty":        func(w http.ResponseWriter, r *http.Request) {},
		"empty object": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{}`) },
		"empty set":    func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"keys":[]}`) },
		"endless":      func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.Repeat([]byte(" "), 2<<20)) },
		"hangs up":     func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example", http.StatusFound)
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			f.Answer(answer)
			want(t, f.chain, f.rsa.Token(f.good()), IssuerUnavailable)
			n := f.Requests()
			want(t, f.chain, f.rsa.Token(f.good()), IssuerUnavailable)
			if f.Requests() != n {
				t.Error("asked again at once")
			}
			f.Answer(nil)
			f.clock.Add(2 * time.Second)
			want(t, f.chain, f.rsa.Token(f.good()), "")
			f.Answer(answer)
			f.clock.Add(time.Minute)
			want(t, f.chain, authtest.NewKey("new", "RS256", authtest.OtherRSA()).Token(f.good()), IssuerUnavailable)
			want(t, f.chain, f.rsa.Token(f.good()), "")
			want(t, f.chain, authtest.NewKey("one", "RS256", authtest.OtherRSA()).Token(f.good()), BadCredential)
			f.clock.Add(defaultMaxStale)
			want(t, f.chain, f.rsa.Token(f.good()), IssuerUnavailable)
		})
	}
}

// TestBudgetLimitsForgers checks that failed signatures of an address are limited. Cached
// tokens from that address are still accepted, and other addresses are not affected.
func TestBudgetLimitsForgers(t *testing.T) {
	f := newForge(t)
	f.auth.memory.budget = newBudget(Budget{Burst: 10, Every: time.Second})
	known := f.rsa.Token(f.good())
	want(t, f.chain, known, "")
	evil := authtest.NewKey("one", "RS256", authtest.OtherRSA())
	for range 10 {
		want(t, f.chain, evil.Token(f.good()), BadCredential)
	}
	want(t, f.chain, evil.Token(f.good()), TooManyFailures)
	fresh := f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"sub": "bob"}))
	want(t, f.chain, fresh, TooManyFailures)
	want(t, f.chain, known, "")
	if _, err := f.chain.Authenticate(context.Background(), from(netip.MustParseAddr("192.0.2.8"), head("Bearer "+fresh))); err != nil {
		t.Errorf("another address: %v", err)
	}
	f.clock.Add(time.Second)
	want(t, f.chain, evil.Token(f.good()), BadCredential)
	want(t, f.chain, evil.Token(f.good()), TooManyFailures)
	f.clock.Add(time.Minute)
	want(t, f.chain, f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"sub": "carol"})), "")
}

// TestMalformedTokensCostNoBudget checks that only failed public-key operations count.
func TestMalformedTokensCostNoBudget(t *testing.T) {
	f := newForge(t)
	f.auth.memory.budget = newBudget(Budget{Burst: 1})
	for range 100 {
		want(t, f.chain, "a.b.c", BadCredential)
		want(t, f.chain, authtest.NewKey("unknown", "RS256", authtest.OtherRSA()).Token(f.good()), BadCredential)
	}
	want(t, f.chain, f.rsa.Token(f.good()), "")
}

// TestBudgetCountsIPv6ByNetwork: an IPv6 client has 2^64 addresses and one budget.
func TestBudgetCountsIPv6ByNetwork(t *testing.T) {
	b, now := newBudget(Budget{Burst: 2, Every: time.Second}), time.Unix(1_800_000_000, 0)
	spend := func(address string) bool {
		a := netip.MustParseAddr(address)
		ok := b.left(a, now)
		if ok {
			b.charge(a, now)
		}
		return ok
	}
	got := []bool{spend("2001:db8::1"), spend("2001:db8::2"), spend("2001:db8::3"), spend("2001:db8:0:1::1"), spend("192.0.2.1"), spend("::ffff:192.0.2.1"), spend("192.0.2.1"), spend("192.0.2.2")}
	if want := []bool{true, true, false, true, true, true, false, true}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for i := range 1 << 17 { // twice what the table holds
		b.charge(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
}

// TestIssuerSettingsRestrictTokens checks the settings of an issuer for its tokens.
func TestIssuerSettingsRestrictTokens(t *testing.T) {
	type m = map[string]any
	cases := map[string]struct {
		config func(*IssuerConfig)
		claims m
		want   string
	}{
		"a value":                         {require("tenant", "a"), m{"tenant": "a"}, ""},
		"another value":                   {require("tenant", "a"), m{"tenant": "b"}, MissingClaim},
		"in another letter case":          {require("tenant", "a"), m{"tenant": "A"}, MissingClaim},
		"absent":                          {require("tenant", "a"), nil, MissingClaim},
		"null":                            {require("tenant", "*"), m{"tenant": json.RawMessage("null")}, MissingClaim},
		"one of two":                      {require("tenant", "a", "b"), m{"tenant": "b"}, ""},
		"in an array":                     {require("tenant", "a"), m{"tenant": []string{"x", "a"}}, ""},
		"an empty array":                  {require("tenant", "*"), m{"tenant": []string{}}, MissingClaim},
		"any":                             {require("tenant", "*"), m{"tenant": "b"}, ""},
		"any, absent":                     {require("tenant", "*"), nil, MissingClaim},
		"a boolean":                       {require("email_verified", "true"), m{"email_verified": true}, ""},
		"a number":                        {require("level", "3"), m{"level": 3}, ""},
		"deep":                            {require("a.b.c", "x"), m{"a": m{"b": m{"c": "x"}}}, ""},
		"deep, and flat by the same path": {require("a.b", "x"), m{"a": m{"b": "y"}, "a.b": "x"}, MissingClaim},
		"an object":                       {require("a", "*"), m{"a": m{"b": "x"}}, MissingClaim},
		"an array of objects":             {require("a", "*"), m{"a": []m{{"b": "x"}}}, MissingClaim},
		"short enough":                    {func(c *IssuerConfig) { c.MaxLifetime = setting.Duration(time.Hour) }, nil, ""},
		"too long":                        {func(c *IssuerConfig) { c.MaxLifetime = setting.Duration(59 * time.Minute) }, nil, TokenTooLong},
		"of unknown length":               {func(c *IssuerConfig) { c.MaxLifetime = setting.Duration(time.Hour) }, m{"iat": nil}, MissingClaim},
		"typ at+jwt alone":                {func(c *IssuerConfig) { c.Typ = []string{"at+jwt"} }, nil, BadCredential},
		"typ in another letter case":      {func(c *IssuerConfig) { c.Typ = []string{"application/jwt"} }, nil, ""},
		"principal from another claim":    {func(c *IssuerConfig) { c.Principal = "azp" }, m{"azp": "svc"}, ""},
		"principal absent":                {func(c *IssuerConfig) { c.Principal = "azp" }, nil, MissingClaim},
		"principal an array":              {func(c *IssuerConfig) { c.Principal = "azp" }, m{"azp": []string{"svc"}}, MissingClaim},
		"principal a number":              {func(c *IssuerConfig) { c.Principal = "azp" }, m{"azp": 7}, MissingClaim},
		"groups of numbers":               {func(c *IssuerConfig) { c.Groups = "groups" }, m{"groups": []int{1}}, BadCredential},
		"no groups":                       {func(c *IssuerConfig) { c.Groups = "groups" }, nil, ""},
		"less skew":                       {func(c *IssuerConfig) { c.Skew = setting.Duration(time.Second) }, m{"exp": authtest.NewClock().Now().Unix() - 2}, TokenExpired},
	}
	one := ecPair("one")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			clock, p := authtest.NewClock(), newProvider(t, one.JWK())
			ic := p.config()
			c.config(&ic)
			_, chain := newAuth(t, clock, ic)
			want(t, chain, one.Token(p.claims(clock.Now(), c.claims)), c.want)
		})
	}
}

func require(claim string, values ...ClaimValue) func(*IssuerConfig) {
	return func(c *IssuerConfig) { c.Require = map[string]setting.List[ClaimValue]{claim: values} }
}

// TestTokenIsCheckedByIssuersWithItsURL: several issuers of a route may have one URL.
func TestTokenIsCheckedByIssuersWithItsURL(t *testing.T) {
	one, two := ecPair("k"), ecPair("k")
	pa, pb, clock := newProvider(t, one.JWK()), newProvider(t, two.JWK()), authtest.NewClock()
	again := pa.config() // the same issuer, configured for another audience
	again.Audience, again.Principal = []string{"batch"}, "azp"
	a := activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now}), Config{Issuers: map[string]IssuerConfig{"a": pa.config(), "a2": again, "b": pb.config()}})
	route := func(d Demand) *Chain {
		c, err := a.Route(d)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	onlyA, onlyB := route(Demand{Callers: []string{"issuer/a"}}), route(Demand{Callers: []string{"issuer/b"}})
	both := route(Demand{Callers: []string{"issuer/a", "issuer/b"}})
	twice := route(Demand{Callers: []string{"issuer/a", "issuer/a2"}})
	ta, tb := one.Token(pa.claims(clock.Now(), nil)), two.Token(pb.claims(clock.Now(), nil))
	batch := one.Token(pa.claims(clock.Now(), map[string]any{"aud": "batch", "azp": "svc"}))
	for range 2 { // the second time from the cache
		want(t, onlyA, ta, "")
		want(t, onlyA, tb, BadCredential)
		want(t, onlyB, tb, "")
		want(t, onlyB, ta, BadCredential)
		want(t, both, ta, "")
		want(t, both, tb, "")
		want(t, both, two.Token(pa.claims(clock.Now(), nil)), BadCredential) // b's key, a's name
		want(t, onlyA, batch, WrongAudience)
		for token, name := range map[string]string{ta: "issuer/a:alice", batch: "issuer/a2:svc"} {
			if p, err := ask(twice, token); err != nil || p.String() != name {
				t.Errorf("got %q (%v), want %q", p.String(), err, name)
			}
		}
	}
}

// TestRouteNarrowsAudience checks the audience of a route, also for cached tokens.
func TestRouteNarrowsAudience(t *testing.T) {
	one := ecPair("one")
	p, clock := newProvider(t, one.JWK()), authtest.NewClock()
	ic := p.config()
	ic.Audience = []string{"models", "batch"}
	a, wide := newAuth(t, clock, ic)
	narrow, err := a.Route(Demand{Callers: []string{"issuer/corp"}, Audience: []string{"batch"}})
	if err != nil {
		t.Fatal(err)
	}
	models := one.Token(p.claims(clock.Now(), nil))
	batch := one.Token(p.claims(clock.Now(), map[string]any{"aud": []string{"batch"}}))
	want(t, narrow, models, WrongAudience)
	for range 2 {
		want(t, wide, models, "")
		want(t, narrow, models, WrongAudience)
		want(t, wide, batch, "")
		want(t, narrow, batch, "")
	}
}

func TestRoute(t *testing.T) {
	a, _ := newAuth(t, authtest.NewClock(), newProvider(t).config())
	for name, c := range map[string]struct {
		demand Demand
		want   string
	}{
		"nobody":                    {Demand{}, "admits nobody"},
		"unknown issuer":            {Demand{Callers: []string{"issuer/other"}}, "unknown caller"},
		"issuer without its kind":   {Demand{Callers: []string{"corp"}}, "unknown caller"},
		"issuer in capitals":        {Demand{Callers: []string{"issuer/CORP"}}, "unknown caller"},
		"empty":                     {Demand{Callers: []string{""}}, "unknown caller"},
		"twice":                     {Demand{Callers: []string{"issuer/corp", "issuer/corp"}}, "listed twice"},
		"anonymous and an issuer":   {Demand{Callers: []string{"issuer/corp", "anonymous"}}, "only caller"},
		"anonymous and an audience": {Demand{Callers: []string{"anonymous"}, Audience: []string{"models"}}, "no audience"},
		"another audience":          {Demand{Callers: []string{"issuer/corp"}, Audience: []string{"other"}}, "never be accepted"},
		"a wider audience":          {Demand{Callers: []string{"issuer/corp"}, Audience: []string{"models", "other"}}, "only narrow"},
	} {
		t.Run(name, func(t *testing.T) {
			chain, err := a.Route(c.demand)
			if chain != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestAnonymous(t *testing.T) {
	a, corp := newAuth(t, authtest.NewClock(), newProvider(t).config())
	chain, err := a.Route(Demand{Callers: []string{"anonymous"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"", "Bearer x", "Basic YTpi"} {
		proof, err := chain.Authenticate(context.Background(), from(client, head(h)))
		p := proof.Caller
		if err != nil || p.String() != "anonymous" {
			t.Errorf("%q: got %q, %v", h, p.String(), err)
		}
	}
	if !chain.Anonymous() || corp.Anonymous() || (*Chain)(nil).Anonymous() || new(Chain).Anonymous() {
		t.Error("Anonymous is wrong")
	}
	if got := challenge(chain, "r", &Error{Reason: NoCredential}); got != "" {
		t.Errorf("challenge %q, want none", got)
	}
}

func TestChallenge(t *testing.T) {
	_, chain := newAuth(t, authtest.NewClock(), newProvider(t).config())
	for reason, want := range map[string]string{
		NoCredential:       `Bearer realm="models.example.com"`,
		UnlistedCredential: `Bearer realm="models.example.com"`,
		BadCredential:      `Bearer realm="models.example.com", error="invalid_token", error_description="the token is not valid"`,
		TokenExpired:       `Bearer realm="models.example.com", error="invalid_token", error_description="the token has expired"`,
		IssuerUnavailable:  "",
		TooManyFailures:    "",
	} {
		if got := challenge(chain, "models.example.com", &Error{Reason: reason}); got != want {
			t.Errorf("%s: got %s, want %s", reason, got, want)
		}
	}
	got := InsufficientScope("a\"b\\\r\nc", []string{"models.predict", "models.read"})
	if want := `Bearer realm="a\"b\\c", error="insufficient_scope", scope="models.predict models.read"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestTokensAreCachedPerIssuerConfiguration checks that another configuration of the same
// issuer verifies a cached token again.
func TestTokensAreCachedPerIssuerConfiguration(t *testing.T) {
	one := ecPair("one")
	p, clock := newProvider(t, one.JWK()), authtest.NewClock()
	strict := p.config()
	strict.Require = map[string]setting.List[ClaimValue]{"tenant": {"a"}}
	a := activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now}), Config{Issuers: map[string]IssuerConfig{"lax": p.config(), "strict": strict}})
	lax, err := a.Route(Demand{Callers: []string{"issuer/lax"}})
	if err != nil {
		t.Fatal(err)
	}
	narrow, err := a.Route(Demand{Callers: []string{"issuer/strict"}})
	if err != nil {
		t.Fatal(err)
	}
	token := one.Token(p.claims(clock.Now(), nil))
	for range 3 {
		want(t, lax, token, "")
		want(t, narrow, token, MissingClaim)
	}
	after, chain := newAuth(t, clock, strict)
	want(t, chain, token, MissingClaim)
	if after.memory.CacheStatus().Tokens != 0 {
		t.Error("a new memory has tokens of another")
	}
}

// TestNoCredentialIsRefused: no chain admits a caller without a credential, and an
// unknown algorithm is refused before and after the right one was seen.
func TestNoCredentialIsRefused(t *testing.T) {
	f := newForge(t)
	for name, chain := range map[string]*Chain{"route": f.chain, "zero": new(Chain), "nil": nil} {
		proof, err := chain.Authenticate(context.Background(), from(client, head()))
		p := proof.Caller
		if reason(t, err) != NoCredential || !p.IsZero() {
			t.Errorf("%s: got %q, %v", name, p.String(), err)
		}
		if name != "route" {
			proof, err = chain.Authenticate(context.Background(), from(client, head("Bearer "+f.rsa.Token(f.good()))))
			p = proof.Caller
			if err == nil || !p.IsZero() {
				t.Errorf("%s: a token opens it", name)
			}
		}
	}
	unknown := f.rsa.Sign(`{"alg":"XS256","kid":"one"}`, f.good())
	want(t, f.chain, unknown, BadCredential)
	want(t, f.chain, f.rsa.Token(f.good()), "")
	want(t, f.chain, unknown, BadCredential)
	if a, err := New(Config{}, NewMemory(MemoryOptions{})); err != nil {
		t.Error(err)
	} else if c, err := a.Route(Demand{}); err == nil || c != nil {
		t.Error("a demand of nothing made a chain")
	}
	var nobody identity.Principal
	if !nobody.IsZero() || nobody.String() != "" {
		t.Error("the zero principal is somebody")
	}
}

// TestErrorsAndLogsContainNoToken checks that errors and logs contain no token and no unverified
// claim, and that the client does not see the text of a library.
func TestErrorsAndLogsContainNoToken(t *testing.T) {
	one := ecPair("one")
	p, clock := newProvider(t, one.JWK()), authtest.NewClock()
	ic := p.config()
	ic.Audience = []string{"a.c"}
	var log bytes.Buffer
	a := activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}), Config{Issuers: map[string]IssuerConfig{"corp": ic}})
	chain, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, chain, one.Token(p.claims(clock.Now(), map[string]any{"aud": "abc"})), WrongAudience) // the dot is no pattern
	want(t, chain, one.Token(p.claims(clock.Now(), map[string]any{"aud": "a.c"})), "")
	const secret = "s3cr3t-in-a-token"
	for _, token := range []string{
		one.Token(p.claims(clock.Now(), map[string]any{"sub": secret, "exp": secret})),
		one.Token(p.claims(clock.Now(), map[string]any{secret: 1, "aud": "x"})),
		one.Token(`{"` + secret + `":1,"` + secret + `":2}`),
		one.Token(`{"` + secret + `":`),
		one.Sign(`{"alg":"`+secret+`","kid":"one"}`, p.claims(clock.Now(), nil)),
		one.Sign(`{"alg":"ES256","kid":"one","typ":"`+secret+`"}`, p.claims(clock.Now(), nil)),
		secret, secret + "." + secret + "." + secret,
		strings.Replace(one.Token(p.claims(clock.Now(), nil)), ".", "."+authtest.Base64([]byte(secret)), 1),
	} {
		_, err := ask(chain, token)
		if err == nil {
			t.Fatal("a bad token was accepted")
		}
		if strings.Contains(err.Error(), secret) || strings.Contains(asError(err).Text(), secret) || strings.Contains(challenge(chain, "r", err), secret) {
			t.Errorf("the error repeats what the token says: %v", err)
		}
	}
	_, err = ask(chain, one.Token(p.claims(clock.Now(), map[string]any{"aud": "a.c", "sub": "carol\n"})))
	if !strings.Contains(err.Error(), `sub "carol\n"`) {
		t.Errorf("want the subject of a token whose signature held: %v", err)
	}
	if strings.Contains(log.String(), secret) || strings.Contains(log.String(), "eyJ") {
		t.Errorf("the log repeats what the token says: %s", log.String())
	}
}

// ExampleAuth_Route authenticates a caller from a configuration.
func ExampleAuth_Route() {
	memory := NewMemory(MemoryOptions{}) // one a process; memory.Run keeps keys fresh
	a, err := New(Config{Issuers: map[string]IssuerConfig{
		"corp": {URL: "https://login.example.com/realms/ml", Audience: setting.List[string]{"models"}},
	}}, memory)
	if err != nil {
		fmt.Println(err)
		return
	}
	a.Activate() // once the configuration takes effect
	defer a.Close()
	chain, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = chain.Authenticate(context.Background(), &Request{Head: head(), Peer: netip.MustParseAddr("192.0.2.1")})
	fmt.Println(err)
	fmt.Println(challenge(chain, "models.example.com", err))
	// Output:
	// no_credential: there is no field Authorization; the route takes issuer/corp
	// Bearer realm="models.example.com"
}
