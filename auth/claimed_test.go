package auth_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"sallyport/auth"
)

func TestClaimedCallerIsWhomTheTokenNames(t *testing.T) {
	issuers := map[string]auth.IssuerConfig{
		"corp":  {URL: "https://login.example.com", Principal: "azp", Groups: "realm_access.roles"},
		"other": {URL: "https://other.example.com"},
	}
	token := func(claims string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".AAAA"
	}
	p, err := auth.Claimed(issuers, token(`{"iss":"https://login.example.com","sub":"1","azp":"batch","scope":"a b","realm_access":{"roles":["ml"]},"x":{"y":"z"}}`))
	if err != nil || p.String() != "issuer/corp:batch" || strings.Join(p.Scopes, " ") != "a b" || strings.Join(p.Groups, " ") != "ml" || p.Claim("x.y")[0] != "z" {
		t.Errorf("%+v, %v", p, err)
	}
	for claims, want := range map[string]string{
		`{"iss":"https://login.example.com","sub":"1"}`:  "azp",
		`{"iss":"https://nobody.example.com","sub":"1"}`: "corp, other",
		`{"sub":"1"}`:       "names no issuer",
		`{"sub":1,"sub":1}`: "not a token that tells its caller",
	} {
		if p, err := auth.Claimed(issuers, token(claims)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", claims, p, err, want)
		}
	}
}
