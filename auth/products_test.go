package auth

import (
	"crypto/elliptic"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// TestTokensOfProductsAreAccepted checks access tokens as identity products document them,
// each with a suitable configuration.
func TestTokensOfProductsAreAccepted(t *testing.T) {
	clock := authtest.NewClock()
	now := clock.Now().Unix()
	r, e := authtest.NewKey("key-1", "RS256", authtest.RSA()), authtest.NewKey("key-2", "ES256", authtest.EC(elliptic.P256()))
	x5t := func(p authtest.Key) string {
		return fmt.Sprintf(`{"typ":"JWT","alg":"%s","x5t":"%s","kid":"%s"}`, p.Algorithm, p.ID, p.ID)
	}
	cases := map[string]struct {
		config         IssuerConfig
		key            authtest.Key
		jwk            string
		header, claims string
		principal      string
		scopes, groups string
		elsewhere      bool // the groups are
	}{
		"Keycloak, client credentials": {
			config: IssuerConfig{URL: "https://kc.example.com/realms/ml", Audience: []string{"models"}, Principal: "azp", Groups: "realm_access.roles",
				Require: map[string]setting.List[ClaimValue]{"typ": {"Bearer"}, "email_verified": {"false"}}},
			key: r, jwk: r.JWK(`"use":"sig"`, `"alg":"RS256"`, `"x5c":["MIIClzCCAX8CBgF"]`, `"x5t":"a"`, `"x5t#S256":"b"`),
			header: `{"alg":"RS256","typ" : "JWT","kid" : "key-1"}`,
			claims: `{"exp":%d,"iat":%d,"jti":"trrtcc:5a2","iss":"https://kc.example.com/realms/ml","aud":["models","account"],"sub":"0b3c-44","typ":"Bearer","azp":"svc-batch","acr":"1","allowed-origins":["/*"],"realm_access":{"roles":["default-roles-ml","ml-admins"]},"resource_access":{"models":{"roles":["predict"]},"account":{"roles":["view-profile"]}},"scope":"email models.predict profile","clientHost":"10.0.0.9","email_verified":false,"preferred_username":"service-account-svc-batch","clientAddress":"10.0.0.9","client_id":"svc-batch"}`,

			principal: "issuer/corp:svc-batch", scopes: "email models.predict profile", groups: "default-roles-ml ml-admins",
		},
		"Auth0, with a namespaced claim": {
			config: IssuerConfig{URL: "https://acme.eu.auth0.com/", Audience: []string{"https://models.example.com"}, Groups: "https://example.com/roles"},
			key:    r, jwk: r.JWK(`"use":"sig"`, `"alg":"RS256"`),
			header: `{"alg":"RS256","typ":"JWT","kid":"key-1"}`,
			claims: `{"https://example.com/roles":["analyst"],"iss":"https://acme.eu.auth0.com/","sub":"Kx3b@clients","aud":"https://models.example.com","exp":%d,"iat":%d,"azp":"Kx3b","gty":"client-credentials","scope":"read:models predict:models","permissions":["read:models"]}`,

			principal: "issuer/corp:Kx3b@clients", scopes: "read:models predict:models", groups: "analyst",
		},
		"Auth0, RFC 9068 profile": {
			config: IssuerConfig{URL: "https://acme.eu.auth0.com/", Audience: []string{"https://models.example.com"}, Typ: []string{"at+jwt"}, Principal: "client_id"},
			key:    r, jwk: r.JWK(),
			header: `{"alg":"RS256","typ":"at+jwt","kid":"key-1"}`,
			claims: `{"iss":"https://acme.eu.auth0.com/","sub":"auth0|5f7c","aud":["https://models.example.com","https://acme.eu.auth0.com/userinfo"],"exp":%d,"iat":%d,"scope":"openid predict:models","client_id":"Kx3b","jti":"a1"}`,

			principal: "issuer/corp:Kx3b", scopes: "openid predict:models",
		},
		"Entra ID v2, delegated": {
			config: IssuerConfig{URL: "https://login.microsoftonline.com/7f1c/v2.0", Audience: []string{"api-guid"}, Principal: "oid", Groups: "roles"},
			key:    r, jwk: r.JWK(`"use":"sig"`, `"x5t":"key-1"`, `"x5c":["MIIC"]`, `"issuer":"https://login.microsoftonline.com/7f1c/v2.0"`),
			header: x5t(r),
			claims: `{"aud":"api-guid","iss":"https://login.microsoftonline.com/7f1c/v2.0","exp":%d,"iat":%d,"nbf":1700000000,"aio":"AVQAq/8","azp":"client-guid","azpacr":"1","name":"Alice","oid":"oid-guid","preferred_username":"alice@example.com","rh":"0.AV","roles":["Models.Admin"],"scp":"Models.Predict Models.Read","sid":"s","sub":"pairwise","tid":"7f1c","uti":"u","ver":"2.0"}`,

			principal: "issuer/corp:oid-guid", scopes: "Models.Predict Models.Read", groups: "Models.Admin",
		},
		"Entra ID v2, groups overage": {
			config: IssuerConfig{URL: "https://login.microsoftonline.com/7f1c/v2.0", Audience: []string{"api-guid"}, Groups: "groups"},
			key:    r, jwk: r.JWK(),
			header: x5t(r),
			claims: `{"aud":"api-guid","iss":"https://login.microsoftonline.com/7f1c/v2.0","exp":%d,"iat":%d,"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{"endpoint":"https://graph.windows.net/7f1c/users/1/getMemberObjects"}},"scp":"Models.Predict","sub":"pairwise","ver":"2.0"}`,

			principal: "issuer/corp:pairwise", scopes: "Models.Predict", elsewhere: true,
		},
		"Entra ID, groups overage by the implicit grant": {
			config: IssuerConfig{URL: "https://login.microsoftonline.com/7f1c/v2.0", Audience: []string{"api-guid"}, Groups: "groups"},
			key:    r, jwk: r.JWK(),
			header: x5t(r),
			claims: `{"aud":"api-guid","iss":"https://login.microsoftonline.com/7f1c/v2.0","exp":%d,"iat":%d,"hasgroups":true,"scp":"Models.Predict","sub":"pairwise","ver":"2.0"}`,

			principal: "issuer/corp:pairwise", scopes: "Models.Predict", elsewhere: true,
		},
		"Entra ID, groups overage where groups are roles": {
			config: IssuerConfig{URL: "https://login.microsoftonline.com/7f1c/v2.0", Audience: []string{"api-guid"}, Groups: "roles"},
			key:    r, jwk: r.JWK(),
			header: x5t(r),
			claims: `{"aud":"api-guid","iss":"https://login.microsoftonline.com/7f1c/v2.0","exp":%d,"iat":%d,"hasgroups":true,"_claim_names":{"groups":"src1"},"scp":"Models.Predict","sub":"pairwise","ver":"2.0"}`,

			principal: "issuer/corp:pairwise", scopes: "Models.Predict",
		},
		"an object of claims left out": {
			config: IssuerConfig{URL: "https://login.microsoftonline.com/7f1c/v2.0", Audience: []string{"api-guid"}, Groups: "realm_access.roles"},
			key:    r, jwk: r.JWK(),
			header: x5t(r),
			claims: `{"aud":"api-guid","iss":"https://login.microsoftonline.com/7f1c/v2.0","exp":%d,"iat":%d,"_claim_names":{"realm_access":"src1"},"scp":"Models.Predict","sub":"pairwise"}`,

			principal: "issuer/corp:pairwise", scopes: "Models.Predict", elsewhere: true,
		},
		"an object of claims left out, and here": {
			config: IssuerConfig{URL: "https://login.microsoftonline.com/7f1c/v2.0", Audience: []string{"api-guid"}, Groups: "realm_access.roles"},
			key:    r, jwk: r.JWK(),
			header: x5t(r),
			claims: `{"aud":"api-guid","iss":"https://login.microsoftonline.com/7f1c/v2.0","exp":%d,"iat":%d,"_claim_names":{"realm_access":"src1","groups":"src1"},"realm_access":{"roles":["ml"]},"groups":[],"hasgroups":false,"scp":"Models.Predict","sub":"pairwise"}`,

			principal: "issuer/corp:pairwise", scopes: "Models.Predict", groups: "ml",
		},
		"Entra ID v1, application": {
			config: IssuerConfig{URL: "https://sts.windows.net/7f1c/", Audience: []string{"api://models"}, Principal: "appid", Groups: "roles"},
			key:    r, jwk: r.JWK(`"use":"sig"`),
			header: x5t(r),
			claims: `{"aud":"api://models","iss":"https://sts.windows.net/7f1c/","exp":%d,"iat":%d,"nbf":1700000000,"aio":"E2Ng","appid":"app-guid","appidacr":"1","idp":"https://sts.windows.net/7f1c/","idtyp":"app","oid":"o","rh":"0.A","roles":["Models.Predict.All"],"sub":"o","tid":"7f1c","uti":"u","ver":"1.0"}`,

			principal: "issuer/corp:app-guid", groups: "Models.Predict.All",
		},
		"Okta, custom authorization server": {
			config: IssuerConfig{URL: "https://acme.okta.com/oauth2/default", Audience: []string{"api://default"}, Principal: "cid", Groups: "groups"},
			key:    r, jwk: r.JWK(`"use":"sig"`, `"alg":"RS256"`),
			header: `{"kid":"key-1","alg":"RS256"}`,
			claims: `{"ver":1,"jti":"AT.0mP4","iss":"https://acme.okta.com/oauth2/default","aud":"api://default","exp":%d,"iat":%d,"cid":"0oab","scp":["models.predict","openid"],"auth_time":1700000000,"groups":["Everyone"],"sub":"0oab"}`,

			principal: "issuer/corp:0oab", scopes: "models.predict openid", groups: "Everyone",
		},
		"Google, iss without its scheme": {
			config: IssuerConfig{URL: "https://accounts.google.com", Audience: []string{"api.apps.googleusercontent.com"}, Principal: "email",
				Require: map[string]setting.List[ClaimValue]{"hd": {"example.com"}, "email_verified": {"true"}}},
			key: r, jwk: r.JWK(`"use":"sig"`, `"alg":"RS256"`),
			header: `{"alg":"RS256","kid":"key-1","typ":"JWT"}`,
			claims: `{"iss":"accounts.google.com","azp":"api.apps.googleusercontent.com","aud":"api.apps.googleusercontent.com","sub":"10769150350006150715113082367","hd":"example.com","email":"jane@example.com","email_verified":true,"at_hash":"HK6E_P6Dh8Y93mRNtsDB1Q","exp":%d,"iat":%d}`,

			principal: "issuer/corp:jane@example.com",
		},
		"Dex": {
			config: IssuerConfig{URL: "https://dex.example.com", Audience: []string{"models"}, Principal: "email", Groups: "groups",
				Require: map[string]setting.List[ClaimValue]{"email_verified": {"true"}}},
			key: r, jwk: r.JWK(`"use":"sig"`, `"alg":"RS256"`),
			header: `{"alg":"RS256","kid":"key-1"}`,
			claims: `{"iss":"https://dex.example.com","aud":"models","exp":%d,"iat":%d,"sub":"CgcyMzQyNzQ5EgZnaXRodWI","at_hash":"AY6O","email":"jane@example.com","email_verified":true,"groups":["admins","developers"],"name":"Jane"}`,

			principal: "issuer/corp:jane@example.com", groups: "admins developers",
		},
		"an issuer of ES256 with scopes in an array": {
			config: IssuerConfig{URL: "https://duende.example.com", Audience: []string{"models"}, Principal: "client_id"},
			key:    e, jwk: e.JWK(`"use":"sig"`, `"alg":"ES256"`),
			header: `{"alg":"ES256","kid":"key-2","typ":"at+jwt"}`,
			claims: `{"iss":"https://duende.example.com","aud":"models","exp":%d,"iat":%d,"scope":["models.predict"],"client_id":"m2m","jti":"J"}`,

			principal: "issuer/corp:m2m", scopes: "models.predict",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t, c.jwk)
			c.config.JWKS = mustURL(p.URL + "/jwks")
			var f setting.Faults
			if c.config.Check("issuers.corp", &f); len(f) > 0 {
				t.Fatal(f)
			}
			_, chain := newAuth(t, clock, c.config)
			token := c.key.Sign(c.header, fmt.Sprintf(c.claims, now+3600, now))
			for range 2 { // verified, then from the cache
				got, err := ask(chain, token)
				if err != nil {
					t.Fatal(err)
				}
				if got.String() != c.principal || got.KeyID != c.key.ID {
					t.Errorf("principal %q by key %q, want %q by %q", got.String(), got.KeyID, c.principal, c.key.ID)
				}
				if !slices.Equal(got.Scopes, strings.Fields(c.scopes)) || !slices.Equal(got.Groups, strings.Fields(c.groups)) {
					t.Errorf("scopes %q, groups %q, want %q, %q", got.Scopes, got.Groups, c.scopes, c.groups)
				}
				if got.GroupsElsewhere != c.elsewhere {
					t.Errorf("the groups are elsewhere: %t", got.GroupsElsewhere)
				}
			}
		})
	}
}

func TestEveryConfigurableAlgorithmWorks(t *testing.T) {
	for _, alg := range algorithms {
		t.Run(alg, func(t *testing.T) {
			k := authtest.NewKey("k", alg, authtest.RSA())
			switch alg {
			case "ES256":
				k.Private = authtest.EC(elliptic.P256())
			case "ES384":
				k.Private = authtest.EC(elliptic.P384())
			case "ES512":
				k.Private = authtest.EC(elliptic.P521())
			case "EdDSA":
				k.Private = authtest.Ed25519()
			}
			clock, p := authtest.NewClock(), newProvider(t, k.JWK())
			ic := p.config()
			ic.Algorithms = []string{alg}
			_, chain := newAuth(t, clock, ic)
			want(t, chain, k.Token(p.claims(clock.Now(), nil)), "")
			others := p.config()
			others.Algorithms = slices.DeleteFunc(slices.Clone(algorithms[:]), func(a string) bool { return a == alg })
			_, chain = newAuth(t, clock, others)
			want(t, chain, k.Token(p.claims(clock.Now(), nil)), BadCredential)
		})
	}
}

// Only Google may leave out the scheme of its iss.
func TestNoOtherIssuerLeavesOutTheScheme(t *testing.T) {
	k := authtest.NewKey("key-1", "ES256", authtest.EC(elliptic.P256()))
	p := newProvider(t, k.JWK())
	clock := authtest.NewClock()
	for url, iss := range map[string]string{
		"https://accounts.example.com":   "accounts.example.com",
		"https://accounts.google.com.eu": "accounts.google.com",
		"https://accounts.google.com/":   "accounts.google.com",
		"https://accounts.google.com":    "http://accounts.google.com",
	} {
		_, chain := newAuth(t, clock, IssuerConfig{URL: url, Audience: []string{"models"}, JWKS: mustURL(p.URL + "/jwks")})
		now := clock.Now().Unix()
		token := k.Sign(`{"alg":"ES256","kid":"key-1"}`, fmt.Sprintf(`{"iss":%q,"aud":"models","sub":"a","exp":%d,"iat":%d}`, iss, now+60, now))
		if got, err := ask(chain, token); err == nil {
			t.Errorf("%s: a token of %s is %s", url, iss, got.String())
		}
	}
}
