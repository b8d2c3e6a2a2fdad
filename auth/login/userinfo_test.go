package login_test

import (
	"slices"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// TestUserinfoMayBeSigned takes groups from a JWT, as Keycloak sends it to clients that are registered so.
func TestUserinfoMayBeSigned(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.Claims = login.ClaimsUserinfo })
	// signed returns a JWT of the provider, which is an ID token here.
	signed := func(change func(map[string]any)) (jwt string) {
		d.provider.AnswerUserinfo(authtest.Text(`{"sub":"alice"}`))
		b := d.browser()
		page := b.begin("/")
		d.provider.Change(func(claims map[string]any) {
			delete(claims, "nonce")
			claims["groups"] = []string{"ml"}
			if change != nil {
				change(claims)
			}
		}, func(answer map[string]any) { jwt, _ = answer["id_token"].(string) })
		_, err := b.finish(b.visit(page))
		wantReason(t, "a token without a nonce", err, login.BadTokens)
		d.provider.Change(nil, nil)
		return jwt
	}
	good := signed(nil)
	d.provider.AnswerUserinfo(authtest.Text(good + "\n"))
	b := d.browser()
	b.signIn()
	if p, err := b.ask(); err != nil || !slices.Equal(p.Caller.Groups, []string{"ml"}) {
		t.Errorf("got %q, %v", p.Caller.Groups, err)
	}
	access, err := d.issuer.Sign(d.issuer.Claims("alice"))
	if err != nil {
		t.Fatal(err)
	}
	several := signed(func(c map[string]any) { c["aud"] = []string{"other", "gateway"} })
	for name, x := range map[string]struct{ text, reason string }{
		"several audiences": {several, ""},
		"forged":            {good[:len(good)-6] + "AAAAAA", login.BadTokens},
		"unsigned":          {unsigned(`{"iss":"` + d.issuer.URL + `","aud":"gateway","sub":"alice","groups":["ops"]}`), login.BadTokens},
		"HS256":             {authtest.HS256(`{"alg":"HS256"}`, `{"sub":"alice","groups":["ops"]}`, []byte("secret-of-client")), login.BadTokens},
		"an access token":   {access, login.BadTokens},
		"of another client": {signed(func(c map[string]any) { c["aud"] = "other" }), login.BadTokens},
		"of no client":      {signed(func(c map[string]any) { delete(c, "aud") }), login.BadTokens},
		"of another issuer": {signed(func(c map[string]any) { c["iss"] = "https://evil.example" }), login.BadTokens},
		"of another person": {signed(func(c map[string]any) { c["sub"] = "mallory" }), login.BadTokens},
		"with a tail":       {good + ".x", login.Unavailable},
	} {
		d.provider.AnswerUserinfo(authtest.Text(x.text))
		b := d.browser()
		_, err := b.finish(b.visit(b.begin("/")))
		wantReason(t, name, err, x.reason)
		if x.reason != "" {
			b.refused("no_credential")
		}
	}
	d.provider.AnswerUserinfo(authtest.Text(good))
	b.serves("issuer/corp:alice")
}
