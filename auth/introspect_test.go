package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// opaque is an issuer, corp, that is asked about tokens, and the chain of a route for it.
type opaque struct {
	*provider
	clock  *authtest.Clock
	key    authtest.Key
	memory *Memory
	auth   *Auth
	chain  *Chain
}

const (
	clientID     = "gate:way"
	clientSecret = "s3cret %&+ü"
)

func newOpaque(t testing.TB, change func(*IssuerConfig)) *opaque {
	t.Helper()
	o := &opaque{clock: authtest.NewClock(), key: authtest.NewKey("one", "EdDSA", authtest.Ed25519())}
	o.provider = newProvider(t, o.key.JWK())
	o.memory = NewMemory(MemoryOptions{Now: o.clock.Now})
	o.auth, o.chain = o.load(t, change)
	return o
}

// load makes an active Auth of a configuration.
func (o *opaque) load(t testing.TB, change func(*IssuerConfig)) (*Auth, *Chain) {
	t.Helper()
	ic := o.config()
	ic.Introspection = &IntrospectionConfig{ClientID: clientID, ClientSecret: setting.Literal([]byte(clientSecret))}
	if change != nil {
		change(&ic)
	}
	a := activeAuth(t, o.memory, Config{Issuers: map[string]IssuerConfig{"corp": ic}})
	chain, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	return a, chain
}

// know makes the issuer know a token, with changes to the usual claims.
func (o *opaque) know(token string, changes map[string]any) string {
	claims := map[string]any{
		"iss": o.URL, "sub": "alice", "aud": "models", "client_id": "notebook", "scope": "models.predict models.read",
		"token_type": "Bearer", "iat": o.clock.Now().Unix(), "exp": o.clock.Now().Add(time.Hour).Unix(),
	}
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	o.Know(token, claims)
	return token
}

func (o *opaque) lookUps() LookUps { return o.auth.Status()[0].Introspection.LookUps }

// asked checks how many look-ups there were.
func (o *opaque) asked(t *testing.T, want int64) {
	t.Helper()
	if n := o.LookUps(); n != want {
		t.Errorf("the issuer was asked %d times, want %d", n, want)
	}
}

func TestActiveOpaqueTokenProvesItsCaller(t *testing.T) {
	o := newOpaque(t, func(c *IssuerConfig) { c.Groups = "roles" })
	token := o.know("opaque-token_1", map[string]any{"roles": []string{"ml"}, "tenant": "a"})
	for range 3 {
		proof, err := o.chain.Authenticate(context.Background(), from(client, head("Bearer "+token)))
		if err != nil {
			t.Fatal(err)
		}
		p := proof.Caller
		if p.String() != "issuer/corp:alice" || p.Kind() != "bearer" || strings.Join(p.Scopes, " ") != "models.predict models.read" ||
			strings.Join(p.Groups, " ") != "ml" || p.Claim("tenant")[0] != "a" || p.KeyID != "introspection" || !proof.Revocable {
			t.Errorf("got %+v", proof)
		}
		if want := o.clock.Now().Add(time.Hour + time.Minute); !p.Expires.Equal(want) {
			t.Errorf("it expires at %s, want %s", p.Expires, want)
		}
	}
	o.asked(t, 1)
	if n := o.lookUps(); n != (LookUps{Active: 1, CachedActive: 2}) {
		t.Errorf("got %+v", n)
	}
}

// TestLookUpProvesTheClient checks the request (RFC 7662, section 2.1) and the encoding of
// id and secret (RFC 6749, section 2.3.1).
func TestLookUpProvesTheClient(t *testing.T) {
	o := newOpaque(t, nil)
	want(t, o.chain, o.know("a.token~+/==", nil), "")
	l := o.LastLookUp()
	basic := http.Request{Header: l.Header}
	user, password, _ := basic.BasicAuth()
	if user != "gate%3Away" || password != "s3cret+%25%26%2B%C3%BC" {
		t.Errorf("got user %q, password %q", user, password)
	}
	if l.Form.Encode() != "token=a.token~%2B%2F%3D%3D&token_type_hint=access_token" {
		t.Errorf("got form %q", l.Form.Encode())
	}
	if l.Header.Get("Accept") != "application/json" || l.Header.Get("Idempotency-Key") != "" {
		t.Errorf("got header %v", l.Header)
	}
	posts := newOpaque(t, func(c *IssuerConfig) { c.Introspection.ClientAuth = clientAuthPost })
	want(t, posts.chain, posts.know("x", nil), "")
	l = posts.LastLookUp()
	if l.Header.Get("Authorization") != "" || l.Form.Get("client_id") != clientID || l.Form.Get("client_secret") != clientSecret {
		t.Errorf("got header %v, form %v", l.Header, l.Form)
	}
}

// TestClaimsOfOpaqueTokensAreChecked as those of JWTs are, on the first use and from memory.
func TestClaimsOfOpaqueTokensAreChecked(t *testing.T) {
	type m = map[string]any
	byClient := func(id string) func(*IssuerConfig) {
		return func(c *IssuerConfig) { c.AudienceClaim, c.Audience = "client_id", setting.List[string]{id} }
	}
	for name, c := range map[string]struct {
		claims m
		change func(*IssuerConfig)
		want   string
	}{
		"good":                       {},
		"no iss":                     {claims: m{"iss": nil}},
		"another iss":                {claims: m{"iss": "https://other.example"}, want: BadCredential},
		"several audiences":          {claims: m{"aud": []string{"x", "models"}}},
		"another audience":           {claims: m{"aud": "billing"}, want: WrongAudience},
		"no audience":                {claims: m{"aud": nil}, want: WrongAudience},
		"client_id instead of aud":   {claims: m{"aud": nil}, change: byClient("notebook")},
		"another client_id":          {claims: m{"aud": nil}, change: byClient("other"), want: WrongAudience},
		"neither aud nor token_type": {claims: m{"aud": nil, "token_type": nil}, change: byClient("notebook"), want: WrongAudience},
		"token_type is required":     {change: require("token_type", "Bearer")},
		"client_id, but another aud": {claims: m{"aud": "billing"}, change: byClient("notebook"), want: WrongAudience},
		"no exp":                     {claims: m{"exp": nil}},
		"no exp, but a longest life": {claims: m{"exp": nil}, change: func(c *IssuerConfig) { c.MaxLifetime = setting.Duration(time.Hour) }, want: MissingClaim},
		"too long a life":            {change: func(c *IssuerConfig) { c.MaxLifetime = setting.Duration(time.Minute) }, want: TokenTooLong},
		"expired":                    {claims: m{"exp": 1_799_999_000}, want: TokenExpired},
		"expired within the skew":    {claims: m{"exp": 1_799_999_970}},
		"not yet valid":              {claims: m{"nbf": 1_800_000_100}, want: TokenNotYetValid},
		"issued in the future":       {claims: m{"iat": 1_800_000_100}, want: TokenNotYetValid},
		"no sub":                     {claims: m{"sub": nil}, want: MissingClaim},
		"client_id names the caller": {claims: m{"sub": nil}, change: func(c *IssuerConfig) { c.Principal = "client_id" }},
		"username names the caller":  {claims: m{"username": "bob"}, change: func(c *IssuerConfig) { c.Principal = "username" }},
		"a claim is required":        {change: require("tenant", "a"), want: MissingClaim},
		"and there":                  {claims: m{"tenant": "a"}, change: require("tenant", "a")},
		"bearer":                     {claims: m{"token_type": "bearer"}},
		"no token_type":              {claims: m{"token_type": nil}},
		"DPoP":                       {claims: m{"token_type": "DPoP"}, want: TokenBound},
		"bound to a key":             {claims: m{"cnf": m{"jkt": "x"}}, want: TokenBound},
		"a refresh token":            {claims: m{"token_type": "refresh_token"}, want: BadCredential},
		"scope not text":             {claims: m{"scope": 7}, want: BadCredential},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOpaque(t, c.change)
			token := o.know("0paque-t0k3n", c.claims)
			for range 3 {
				want(t, o.chain, token, c.want)
			}
			o.asked(t, 1)
		})
	}
}

func TestInactiveTokenIsRefused(t *testing.T) {
	o := newOpaque(t, nil)
	_, err := ask(o.chain, "unkn0wn")
	if reason(t, err) != TokenInactive || asError(err).Status() != 401 {
		t.Errorf("got %v", err)
	}
	if got := challenge(o.chain, "models", err); got != `Bearer realm="models", error="invalid_token", error_description="the token has ended, was revoked, or is unknown"` {
		t.Errorf("challenge %s", got)
	}
	want(t, o.chain, "unkn0wn", TokenInactive)
	o.asked(t, 1)
	if n := o.lookUps(); n != (LookUps{Inactive: 1, CachedRefused: 1}) {
		t.Errorf("got %+v", n)
	}
	o.clock.Add(9 * time.Second)
	o.know("unkn0wn", nil)
	want(t, o.chain, "unkn0wn", TokenInactive)
	o.clock.Add(time.Second)
	want(t, o.chain, "unkn0wn", "")
	o.asked(t, 2)
}

// TestRevokedTokenIsRefusedAfterMaxAge, and expired ones at once.
func TestRevokedTokenIsRefusedAfterMaxAge(t *testing.T) {
	o := newOpaque(t, func(c *IssuerConfig) { c.Introspection.MaxAge = setting.Duration(20 * time.Second) })
	token, brief := o.know("0paque-t0k3n", nil), o.know("brief", map[string]any{"exp": o.clock.Now().Add(-50 * time.Second).Unix()})
	want(t, o.chain, token, "")
	want(t, o.chain, brief, "")
	o.Know(token, nil)
	o.clock.Add(19 * time.Second)
	want(t, o.chain, token, "")
	want(t, o.chain, brief, TokenExpired)
	o.clock.Add(time.Second)
	want(t, o.chain, token, TokenInactive)
	want(t, o.chain, token, TokenInactive)
	o.asked(t, 3)
	if n := o.memory.CacheStatus().Tokens; n != 1 {
		t.Errorf("%d tokens are cached, want the expired one", n)
	}
	o.memory.tokens.sweep(o.clock.Now().Unix())
	if n := o.memory.CacheStatus().Tokens; n != 0 {
		t.Errorf("%d tokens are cached after the sweep", n)
	}
}

// TestRouteNarrowsTheAudienceOfOpaqueTokens although the answer is cached for the issuer.
func TestRouteNarrowsTheAudienceOfOpaqueTokens(t *testing.T) {
	o := newOpaque(t, func(c *IssuerConfig) { c.Audience = setting.List[string]{"models", "batch"} })
	narrow, err := o.auth.Route(Demand{Callers: []string{"issuer/corp"}, Audience: []string{"batch"}})
	if err != nil {
		t.Fatal(err)
	}
	token := o.know("0paque-t0k3n", nil)
	want(t, narrow, token, WrongAudience)
	want(t, o.chain, token, "")
	want(t, narrow, token, WrongAudience)
	o.asked(t, 1)
}

// TestJWTsAreVerifiedUnlessTheIssuerIsAskedAboutThem, and none is sent to an issuer that it
// does not name.
func TestJWTsAreVerifiedUnlessTheIssuerIsAskedAboutThem(t *testing.T) {
	o := newOpaque(t, nil)
	jwt := o.key.Token(o.claims(o.clock.Now(), nil))
	want(t, o.chain, jwt, "")
	o.asked(t, 0)
	evil := authtest.NewKey("one", "EdDSA", authtest.Ed25519())
	part := strings.Split(jwt, ".")
	for name, token := range map[string]string{
		"forged":          evil.Token(o.claims(o.clock.Now(), nil)),
		"another issuer":  evil.Token(authtest.Claims("https://other.example", o.clock.Now(), nil)),
		"no issuer":       o.key.Token(o.claims(o.clock.Now(), map[string]any{"iss": nil})),
		"cut off":         jwt[:len(jwt)-30],
		"empty signature": part[0] + "." + part[1] + ".",
		"broken claims":   part[0] + ".x." + part[2],
		"broken header":   part[0][:8] + "." + part[1] + "." + part[2],
	} {
		t.Run(name, func(t *testing.T) { want(t, o.chain, token, BadCredential) })
	}
	o.asked(t, 0)

	asks := newOpaque(t, func(c *IssuerConfig) { c.Introspection.JWT = true })
	jwt = asks.key.Token(asks.claims(asks.clock.Now(), nil))
	want(t, asks.chain, jwt, TokenInactive)
	asks.clock.Add(time.Minute)
	asks.know(jwt, nil)
	want(t, asks.chain, jwt, "")
	want(t, asks.chain, jwt, "")
	want(t, asks.chain, evil.Token(authtest.Claims("https://other.example", o.clock.Now(), nil)), BadCredential)
	asks.asked(t, 2)
	if n := asks.Fetches(); n != 0 {
		t.Errorf("keys were fetched %d times; nobody needs them", n)
	}
}

// TestCachedAnswerOfOneIssuerIsNotTheLastWord: two configurations of one issuer ask about its JWTs.
// The token is refused for the audience of the first and accepted for that of the second, each time.
func TestCachedAnswerOfOneIssuerIsNotTheLastWord(t *testing.T) {
	o := newOpaque(t, nil)
	of := func(prefix string) IssuerConfig {
		return IssuerConfig{URL: o.URL, Audience: setting.List[string]{"models", prefix}, Introspection: &IntrospectionConfig{
			ClientID: clientID, ClientSecret: setting.Literal([]byte(clientSecret)), JWT: true, Prefix: prefix}}
	}
	a := activeAuth(t, o.memory, Config{Issuers: map[string]IssuerConfig{"one": of("a"), "two": of("b")}})
	route := func(audience ...string) *Chain {
		c, err := a.Route(Demand{Callers: []string{"issuer/one", "issuer/two"}, Audience: audience})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	jwt := o.key.Token(o.claims(o.clock.Now(), nil))
	o.know(jwt, map[string]any{"aud": []string{"models", "b"}})
	want(t, route("models", "a", "b"), jwt, "") // the answer is in the cache for the first
	for range 2 {
		want(t, route("a", "b"), jwt, "")
	}
	other := o.key.Token(o.claims(o.clock.Now(), map[string]any{"jti": "other"}))
	o.know(other, nil)
	for range 2 {
		want(t, route("a", "b"), other, WrongAudience)
	}
}

// TestPrefixTellsIssuersApart: the longest that fits decides, and no token reaches another
// issuer.
func TestPrefixTellsIssuersApart(t *testing.T) {
	o, other := newOpaque(t, nil), newProvider(t)
	with := func(url, prefix string) IssuerConfig {
		return IssuerConfig{URL: url, Audience: setting.List[string]{"models"}, Introspection: &IntrospectionConfig{
			ClientID: clientID, ClientSecret: setting.Literal([]byte(clientSecret)), Prefix: prefix}}
	}
	route := func(one, two string, callers ...string) (*Chain, error) {
		a := activeAuth(t, o.memory, Config{Issuers: map[string]IssuerConfig{"one": with(o.URL, one), "two": with(other.URL, two)}})
		return a.Route(Demand{Callers: callers})
	}
	for _, both := range [][2]string{{"", ""}, {"a_", "a_"}} {
		if _, err := route(both[0], both[1], "issuer/one", "issuer/two"); err == nil || !strings.Contains(err.Error(), "prefixes") {
			t.Errorf("prefixes %q: got %v", both, err)
		}
		if _, err := route(both[0], both[1], "issuer/one"); err != nil {
			t.Error(err)
		}
	}
	c, err := route("a_", "a_b_", "issuer/one", "issuer/two")
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, o.know("a_1", nil), "")
	want(t, c, o.know("a_b_1", nil), TokenInactive)
	want(t, c, "c_1", BadCredential)
	if o.LookUps() != 1 || other.LookUps() != 1 {
		t.Errorf("the issuers were asked %d and %d times", o.LookUps(), other.LookUps())
	}
}

// TestOnlyTokensReachAnIssuer: nothing that no issuer can have issued.
func TestOnlyTokensReachAnIssuer(t *testing.T) {
	o := newOpaque(t, nil)
	for _, raw := range []string{"a b", "a\tb", "ä", "a=b", "=", "a&token=b", "{}", `"a"`, "a\x00", "a:b", "a%20b", strings.Repeat("x", maxToken+1)} {
		want(t, o.chain, raw, BadCredential)
	}
	for _, raw := range []string{apikey.New(), apikey.Prefix, apikey.Prefix + "x"} {
		want(t, o.chain, raw, UnlistedCredential)
	}
	o.asked(t, 0)
	want(t, o.chain, strings.Repeat("x", maxToken), TokenInactive)
	want(t, o.chain, "v4.public.abc", TokenInactive) // three segments, but no JWT
	want(t, o.chain, "eyJ.a.b.c.d", TokenInactive)   // an encrypted JWT
	o.asked(t, 3)
}

// TestAnswersOfOneConfigurationEndWithIt, and outlive a reload of the same one.
func TestAnswersOfOneConfigurationEndWithIt(t *testing.T) {
	o := newOpaque(t, nil)
	token := o.know("0paque-t0k3n", nil)
	want(t, o.chain, token, "")
	want(t, o.chain, "unkn0wn", TokenInactive)
	same, chain := o.load(t, nil)
	o.auth.Close()
	want(t, o.chain, token, IssuerUnavailable)
	want(t, chain, token, "")
	want(t, chain, "unkn0wn", TokenInactive)
	o.asked(t, 2)
	_, other := o.load(t, func(c *IssuerConfig) { c.Introspection.ClientSecret = setting.Literal([]byte("another")) })
	want(t, other, token, "")
	want(t, other, "unkn0wn", TokenInactive)
	o.asked(t, 4)
	same.Close()
	if n := o.memory.CacheStatus().Tokens; n != 1 {
		t.Errorf("%d tokens are cached, want that of the configuration that is used", n)
	}
}

// TestOneLookUpPerToken: requests with the same token wait for one look-up.
func TestOneLookUpPerToken(t *testing.T) {
	o := newOpaque(t, nil)
	token := o.know("0paque-t0k3n", nil)
	started, release := make(chan struct{}), make(chan struct{})
	o.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started) // a second look-up would panic
		<-release
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, o.About(token))
	}))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { want(t, o.chain, token, "") })
	}
	<-started
	close(release)
	all.Wait()
	o.asked(t, 1)
}

// TestDiscoveryNamesTheEndpoint, or the configuration does.
func TestDiscoveryNamesTheEndpoint(t *testing.T) {
	o := newOpaque(t, nil)
	want(t, o.chain, o.know("one", nil), "")
	want(t, o.chain, o.know("two", nil), "")
	if n := o.Discoveries(); n != 1 {
		t.Errorf("%d discoveries, want 1", n)
	}
	moved := newProvider(t)
	moved.Know("three", map[string]any{"sub": "alice", "aud": "models"})
	o.AnswerLookUps(authtest.Status(404))
	o.Answer(authtest.Text(fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%s/jwks","introspection_endpoint":"%s/introspect"}`, o.URL, o.URL, moved.URL)))
	want(t, o.chain, "f0ur", IssuerUnavailable)
	o.clock.Add(time.Second)
	want(t, o.chain, "three", "")
	set := newOpaque(t, nil)
	_, chain := set.load(t, func(c *IssuerConfig) { c.Introspection.URL = mustURL(set.URL + "/introspect") })
	want(t, chain, set.know("one", nil), "")
	if n := set.Discoveries(); n != 0 {
		t.Errorf("%d discoveries, want none", n)
	}
	none := newOpaque(t, nil)
	none.Answer(authtest.Text(fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%s/jwks"}`, none.URL, none.URL)))
	_, err := ask(none.chain, "x")
	if reason(t, err) != IssuerUnavailable || !strings.Contains(err.Error(), "write introspection.url") {
		t.Errorf("got %v", err)
	}
}

// TestRecheckOfOpaqueTokens uses the answer in memory until max_age, then asks again, and
// counts no failure.
func TestRecheckOfOpaqueTokens(t *testing.T) {
	o := newOpaque(t, nil)
	h := head("Bearer " + o.know("0paque-t0k3n", nil))
	proof := accepted(t, o.chain, h)
	if got := recheck(t, o.chain, h, proof); got != "issuer/corp:alice" {
		t.Errorf("got %s", got)
	}
	o.Know("0paque-t0k3n", nil)
	if got := recheck(t, o.chain, h, proof); got != "issuer/corp:alice" {
		t.Errorf("from memory: got %s", got)
	}
	o.asked(t, 1)
	o.clock.Add(time.Minute)
	if got := recheck(t, o.chain, h, proof); got != TokenInactive {
		t.Errorf("after max_age: got %s", got)
	}
	o.memory.budget = newBudget(Budget{Burst: 1, Every: time.Hour})
	for i := range 3 {
		r := from(netip.MustParseAddr("192.0.2.9"), head(fmt.Sprintf("Bearer other-%d", i)))
		if _, err := o.chain.Recheck(context.Background(), r, proof); reason(t, err) != TokenInactive {
			t.Errorf("got %v", err)
		}
	}
}
