package auth

import (
	"context"
	"crypto/elliptic"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

var update = flag.Bool("update", false, "write the golden files anew")

// explained is an Auth with several issuers that share the keys of one provider.
type explained struct {
	*Auth
	now time.Time
	key authtest.Key
}

const keycloak = "https://login.example.com/realms/ml"

func newExplained(t *testing.T) *explained {
	t.Helper()
	x := &explained{key: authtest.NewKey("k1", "ES256", authtest.EC(elliptic.P256()))}
	clock := authtest.NewClock()
	x.now = clock.Now()
	p := newProvider(t, x.key.JWK(), authtest.NewKey("k2", "RS256", authtest.RSA()).JWK())
	gone := newProvider(t)
	gone.Answer(authtest.Status(503))
	issuer := func(url string, changes func(*IssuerConfig)) IssuerConfig {
		c := IssuerConfig{URL: url, Audience: setting.List[string]{"models"}, JWKS: mustURL(p.URL + "/jwks")}
		if changes != nil {
			changes(&c)
		}
		return c
	}
	expired := apikey.New()
	keys := &APIKeys{byHash: map[[32]byte]*apiKey{}}
	hash, _ := apikey.Hash(expired)
	keys.byHash[hash] = &apiKey{principal: qualifiedKey("old", &APIKeyConfig{}, []byte{1, 2, 3, 4}, x.now.Add(-time.Hour))}
	revoked, err := revocations(t, "jti issuer/corp stolen-1\n")
	if err != nil {
		t.Fatal(err)
	}
	x.Auth = activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now}), Config{APIKeys: keys, Revoked: revoked, Issuers: map[string]IssuerConfig{
		"corp":  issuer(keycloak, nil),
		"auth0": issuer("https://acme.eu.auth0.com/", nil),
		"okta":  issuer("https://acme.okta.com/oauth2/default", nil),
		"entra": issuer("https://login.microsoftonline.com/7f1c/v2.0", nil),
		"plain": issuer("https://issuer.example", func(c *IssuerConfig) {
			c.Audience = append(c.Audience, "other")
			c.Principal = "email"
			c.Require = map[string]setting.List[ClaimValue]{"department": {"research"}}
			c.Algorithms = setting.List[string]{"ES256"}
			c.MaxLifetime = setting.Duration(2 * time.Hour)
		}),
		"bound": issuer("https://bound.example", func(c *IssuerConfig) { c.BoundTokens = BoundRequire }),
		"gone":  issuer("https://gone.example", func(c *IssuerConfig) { c.JWKS = mustURL(gone.URL + "/jwks") }),
	}})
	return x
}

// route returns the chain of a route that lists callers.
func (x *explained) route(t *testing.T, d Demand) *Chain {
	t.Helper()
	c, err := x.Route(d)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestExplanations compares the words for every kind of refusal with the golden file. None of them
// may repeat the credential.
func TestExplanations(t *testing.T) {
	x := newExplained(t)
	all := x.route(t, Demand{Callers: []string{"issuer/corp", "issuer/auth0", "issuer/okta", "issuer/entra", "issuer/plain", "issuer/bound", "issuer/gone", "apikey/lab"}})
	narrow := x.route(t, Demand{Callers: []string{"issuer/plain"}, Audience: []string{"other"}})
	keysOnly := x.route(t, Demand{Callers: []string{"apikey"}})
	corpOnly := x.route(t, Demand{Callers: []string{"issuer/corp"}})
	both := x.route(t, Demand{Callers: []string{"issuer/corp", "apikey"}, All: true})
	sign := func(issuer string, changes map[string]any) string {
		return x.key.Token(authtest.Claims(issuer, x.now, changes))
	}
	headed := func(header string) string { return x.key.Sign(header, authtest.Claims(keycloak, x.now, nil)) }
	good := sign(keycloak, nil)
	encrypted := strings.Join([]string{authtest.Base64([]byte(`{"alg":"RSA-OAEP","enc":"A256GCM"}`)), "a", "b", "c", "d"}, ".")
	known := apikey.New()
	cases := []struct {
		name, token string
		chain       *Chain
	}{
		{"accepted", good, all},
		{"accepted ID token", sign(keycloak, map[string]any{"typ": "ID", "nonce": "n"}), all},
		{"audience, Keycloak", sign(keycloak, map[string]any{"aud": []string{"account"}}), all},
		{"audience, Auth0", sign("https://acme.eu.auth0.com/", map[string]any{"aud": "https://acme.eu.auth0.com/userinfo"}), all},
		{"audience, Okta", sign("https://acme.okta.com/oauth2/default", map[string]any{"aud": "https://acme.okta.com"}), all},
		{"audience, Entra", sign("https://login.microsoftonline.com/7f1c/v2.0", map[string]any{"aud": "00000003-0000-0000-c000-000000000000"}), all},
		{"audience, another product", sign("https://issuer.example", map[string]any{"aud": "x", "email": "a@b", "department": "research"}), all},
		{"audience absent", sign(keycloak, map[string]any{"aud": nil}), all},
		{"audience, narrowed by the route", sign("https://issuer.example", map[string]any{"email": "a@b", "department": "research"}), narrow},
		{"revoked", sign(keycloak, map[string]any{"jti": "stolen-1"}), all},
		{"expired", sign(keycloak, map[string]any{"exp": x.now.Unix() - 7200, "iat": x.now.Unix() - 7500}), all},
		{"expired, and for another audience", sign(keycloak, map[string]any{"exp": x.now.Unix() - 7200, "iat": x.now.Unix() - 7500, "aud": "account"}), all},
		{"not yet valid", sign(keycloak, map[string]any{"nbf": x.now.Unix() + 600}), all},
		{"issued in the future", sign(keycloak, map[string]any{"iat": x.now.Unix() + 600}), all},
		{"no exp", sign(keycloak, map[string]any{"exp": nil}), all},
		{"claim of the principal", sign("https://issuer.example", map[string]any{"department": "research", "client_id": "batch"}), all},
		{"required claim", sign("https://issuer.example", map[string]any{"department": "sales", "email": "a@b"}), all},
		{"lifetime", sign("https://issuer.example", map[string]any{"exp": x.now.Unix() + 86400, "department": "research", "email": "a@b"}), all},
		{"bound", sign(keycloak, map[string]any{"cnf": map[string]any{"jkt": "x"}}), all},
		{"bound to a certificate that is not there", sign("https://bound.example", map[string]any{"cnf": map[string]any{"x5t#S256": strings.Repeat("A", 43)}}), all},
		{"not bound, and must be", sign("https://bound.example", nil), all},
		{"malformed scope", sign(keycloak, map[string]any{"scope": 7}), all},
		{"alg none", headed(`{"alg":"none","kid":"k1"}`), all},
		{"alg HS512", headed(`{"alg":"HS512","kid":"k1"}`), all},
		{"alg not listed", authtest.NewKey("k2", "RS256", authtest.RSA()).Token(authtest.Claims("https://issuer.example", x.now, nil)), all},
		{"alg unknown", headed(`{"alg":"ES256K","kid":"k1"}`), all},
		{"typ", headed(`{"alg":"ES256","kid":"k1","typ":"secevent+jwt"}`), all},
		{"kid", headed(`{"alg":"ES256","kid":"k9"}`), all},
		{"no kid, two keys", headed(`{"alg":"ES256"}`), all},
		{"signature", good[:len(good)-10] + "AAAAAAAAAA", all},
		{"cut", good[:len(good)-9], all},
		{"refresh token of Keycloak", authtest.HS256(`{"alg":"HS512","kid":"k1","typ":"JWT"}`, authtest.Claims(keycloak, x.now, map[string]any{"typ": "Refresh"}), []byte("s")), all},
		{"ID token for its client", sign(keycloak, map[string]any{"typ": "ID", "aud": "app", "at_hash": "x"}), all},
		{"logout token", sign(keycloak, map[string]any{"events": map[string]any{"e": map[string]any{"a": 1}}, "aud": "app"}), all},
		{"issuer with a slash", sign(keycloak+"/", nil), all},
		{"issuer with http", sign("http://login.example.com/realms/ml", nil), all},
		{"another realm", sign("https://login.example.com/realms/dev", nil), all},
		{"another issuer", sign("https://evil.example", nil), all},
		{"no issuer", sign(keycloak, map[string]any{"iss": nil}), all},
		{"an issuer that the route does not list", sign("https://issuer.example", nil), corpOnly},
		{"issuer down", sign("https://gone.example", nil), all},
		{"a route without tokens", good, keysOnly},
		{"a route that wants a key too", good, both},
		{"opaque", "2YotnFZFEjr1zCsicMWpAA", all},
		{"encrypted", encrypted, all},
		{"not base64", "a!.b.c", all},
		{"too long", strings.Repeat("a", maxToken) + ".b.c", all},
		{"API key that nobody knows", known, all},
		{"API key with a changed letter", known[:len(known)-1] + "!", all},
		{"API key that ended", expiredKey(x), keysOnly},
	}
	var b strings.Builder
	for _, c := range cases {
		e := x.Explain(context.Background(), c.chain, from(client, head("Bearer "+c.token)))
		fmt.Fprintf(&b, "== %s: %s\n", c.name, decision(&e))
		for _, f := range e.Findings {
			fmt.Fprintf(&b, "%s\n    %s\n", f.Problem, f.Cure)
		}
		_, err := c.chain.Authenticate(context.Background(), from(client, head("Bearer "+c.token)))
		if got := reason(t, err); got != e.Reason {
			t.Errorf("%s: the explanation says %q, the chain decides %q", c.name, e.Reason, got)
		}
	}
	for _, c := range cases {
		for part := range strings.SplitSeq(c.token, ".") {
			if len(part) > 16 && strings.Contains(b.String(), part[:16]) {
				t.Errorf("%s: the explanation repeats the credential", c.name)
			}
		}
	}
	text := regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(b.String(), "127.0.0.1:PORT")
	golden(t, "testdata/explain.txt", regexp.MustCompile(`sha256:\w+`).ReplaceAllString(text, "sha256:HASH"))
}

// expiredKey stands for the key of newExplained that has ended, whose text is not kept.
func expiredKey(x *explained) string {
	key := apikey.New()
	hash, _ := apikey.Hash(key)
	for _, old := range x.apiKeys.byHash {
		x.apiKeys.byHash[hash] = old
		break
	}
	return key
}

func decision(e *Explanation) string {
	if e.Reason != "" {
		return e.Reason
	}
	return "accepted as " + e.Caller.String()
}

// golden compares a text with a file, or writes the file with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; -update writes it anew:\n%s", name, got)
	}
}

func TestDescribeToken(t *testing.T) {
	x := newExplained(t)
	token := x.key.Token(authtest.Claims(keycloak, x.now, map[string]any{"azp": "batch"}))
	f := DescribeToken(token)
	if f.Kind != "JWT" || f.Issuer != keycloak || f.Client != "batch" || f.KeyID != "k1" || f.Algorithm != "ES256" || f.Audience[0] != "models" ||
		!f.Expires.Equal(x.now.Add(time.Hour)) || !f.IssuedAt.Equal(x.now) || len(f.Scopes) != 2 {
		t.Errorf("got %+v", f)
	}
	for token, want := range map[string]string{"a": "opaque token", "a.b.c.d.e": "encrypted JWT", "a.b.c": "malformed JWT", apikey.New(): "API key"} {
		if got := DescribeToken(token).Kind; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
