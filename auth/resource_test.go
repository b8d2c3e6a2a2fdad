package auth

import (
	"slices"
	"testing"

	"sallyport/proxy/setting"
)

// TestAuthorizationServers checks which issuers clients learn of, and when they are told that tokens
// must be bound to a certificate: only if no issuer of the route gives out others.
func TestAuthorizationServers(t *testing.T) {
	of := func(url string, change func(*IssuerConfig)) IssuerConfig {
		c := IssuerConfig{URL: url, Audience: setting.List[string]{"models"}}
		if change != nil {
			change(&c)
		}
		return c
	}
	bound := func(value string) func(*IssuerConfig) { return func(c *IssuerConfig) { c.BoundTokens = value } }
	a, err := New(Config{Issuers: map[string]IssuerConfig{
		"corp": of("https://corp.example", nil), "twin": of("https://corp.example", nil),
		"strict": of("https://strict.example", bound(BoundRequire)), "accepts": of("https://accepts.example", bound(BoundAccept)),
		"front":   of("https://front.example", func(c *IssuerConfig) { c.TokenFrom = &TokenFromConfig{Header: "X-Token"} }),
		"tenants": of("https://login.example/{tenantid}", func(c *IssuerConfig) { c.Tenants = setting.List[string]{tenantA, tenantB} }),
	}}, NewMemory(MemoryOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		callers, want []string
		bound         bool
	}{
		{[]string{"issuer/corp", "key", "apikey/a", "issuer/twin"}, []string{"https://corp.example"}, false},
		{[]string{"issuer/tenants", "issuer/corp"}, []string{"https://login.example/" + tenantA, "https://login.example/" + tenantB, "https://corp.example"}, false},
		{[]string{"issuer/strict"}, []string{"https://strict.example"}, true},
		{[]string{"issuer/strict", "issuer/front"}, []string{"https://strict.example"}, true},
		{[]string{"issuer/strict", "issuer/accepts"}, []string{"https://strict.example", "https://accepts.example"}, false},
		{[]string{"issuer/front"}, nil, false},
		{[]string{"anonymous"}, nil, false},
	} {
		if got, bound := a.AuthorizationServers(x.callers); !slices.Equal(got, x.want) || bound != x.bound {
			t.Errorf("%v: got %v, %v", x.callers, got, bound)
		}
	}
}

// TestMetadataStandsInTheBearerChallenge checks the place of the parameter.
func TestMetadataStandsInTheBearerChallenge(t *testing.T) {
	const url = "https://a.example/x"
	for challenge, want := range map[string]string{
		`Bearer realm="a"`:                           `Bearer realm="a", resource_metadata="` + url + `"`,
		`Basic realm="a", Bearer realm="a", error=b`: `Basic realm="a", Bearer realm="a", resource_metadata="` + url + `", error=b`,
		`Signature realm="a"`:                        `Signature realm="a"`,
		"":                                           "",
	} {
		if got := WithMetadata(challenge, "a", url); got != want {
			t.Errorf("%s: got %s", challenge, got)
		}
		if got := WithMetadata(challenge, "a", ""); got != challenge {
			t.Errorf("%s, without metadata: got %s", challenge, got)
		}
	}
}
