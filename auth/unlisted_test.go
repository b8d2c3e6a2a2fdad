package auth

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// TestCauseNamesTheFieldsOfTheRoute: who reads the record must learn where the route looks, and not of
// Authorization where a proxy adds the token elsewhere.
func TestCauseNamesTheFieldsOfTheRoute(t *testing.T) {
	front := IssuerConfig{URL: "https://front.example", Audience: setting.List[string]{"models"}, JWKS: mustURL("http://127.0.0.1:1"),
		TokenFrom: &TokenFromConfig{Header: "X-Front", From: setting.List[setting.CIDR]{{Prefix: netip.MustParsePrefix("10.0.0.7/32")}}}}
	corp := IssuerConfig{URL: "https://corp.example", Audience: setting.List[string]{"models"}, JWKS: mustURL("http://127.0.0.1:1")}
	a := activeAuth(t, NewMemory(MemoryOptions{Now: authtest.NewClock().Now}), Config{Issuers: map[string]IssuerConfig{"front": front, "corp": corp}})
	for callers, want := range map[string]string{
		"issuer/corp":              "there is no field Authorization; ",
		"issuer/front":             "there is no field x-front; the route takes issuer/front in x-front",
		"issuer/front issuer/corp": "there is no field x-front or Authorization; ",
		"issuer/front apikey":      "there is no field x-front, Authorization, X-Api-Key or Api-Key; ",
		"apikey":                   "there is no field Authorization, X-Api-Key or Api-Key; ",
	} {
		c, err := a.Route(Demand{Callers: strings.Fields(callers)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Authenticate(context.Background(), from(client, head())); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", callers, err, want)
		}
	}
}
