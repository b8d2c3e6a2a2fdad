package login_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// kid returns the kid of the provider's first key.
func (d *desk) kid() string {
	d.t.Helper()
	token, err := d.issuer.Sign(d.issuer.Claims("alice"))
	if err != nil {
		d.t.Fatal(err)
	}
	head, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	var header struct{ Kid string }
	if err := errors.Join(err, json.Unmarshal(text, &header)); err != nil {
		d.t.Fatal(err)
	}
	return header.Kid
}

// turnovers calls test for each way in which an issuer replaces its key: under a new kid, as it should, or under the same
// one, as one that makes its key at each start. Either is tried with both sources of claims.
func turnovers(t *testing.T, test func(t *testing.T, d *desk, kid string)) {
	for _, claims := range []string{login.ClaimsIDToken, login.ClaimsAccessToken} {
		for _, same := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, same kid: %t", claims, same), func(t *testing.T) {
				d := newDesk(t, func(d *desk) { d.config.Claims = claims })
				kid := "next"
				if same {
					kid = d.kid()
				}
				test(t, d, kid)
			})
		}
	}
}

// renewKey makes the provider sign with a key that replaces its own, under a kid. The key set has it once publish is called.
func (d *desk) renewKey(kid string) (publish func(), logout func(sub string) string) {
	d.t.Helper()
	key := authtest.NewKey(kid, "ES256", authtest.EC(elliptic.P256()))
	sign := func(typ string, claims map[string]any) string {
		text, err := json.Marshal(claims)
		if err != nil {
			d.t.Fatal(err)
		}
		return key.Sign(`{"alg":"ES256","kid":"`+kid+`","typ":"`+typ+`"}`, string(text))
	}
	now := func() map[string]any {
		at := d.clock.Now().Unix()
		return map[string]any{"iss": d.issuer.URL, "sub": "alice", "iat": at, "exp": at + 300, "groups": []string{"new"}}
	}
	with := func(more map[string]any) map[string]any {
		all := now()
		maps.Copy(all, more)
		return all
	}
	var claims map[string]any // of the provider's own ID token, with the nonce
	d.provider.Change(func(c map[string]any) { claims = c }, func(answer map[string]any) {
		answer["id_token"] = sign("JWT", with(map[string]any{"aud": "gateway", "nonce": claims["nonce"]}))
		answer["access_token"] = sign("JWT", with(map[string]any{"aud": "models"}))
	})
	return func() { d.issuer.Publish(key.JWK()) }, func(sub string) string {
		return sign("logout+jwt", with(map[string]any{"aud": "gateway", "sub": sub, "jti": "1", "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}))
	}
}

// forge asks with a made-up bearer token, so that the gateway fetches the issuer's keys.
func (d *desk) forge(n int) {
	d.t.Helper()
	forged := authtest.NewKey(fmt.Sprint("forged-", n), "ES256", authtest.EC(elliptic.P256()))
	r := request(host, "")
	r.Head.Fields.Add("authorization", "Bearer "+forged.Sign(`{"alg":"ES256","kid":"`+forged.ID+`","typ":"JWT"}`, `{"iss":"`+d.issuer.URL+`","aud":"models","sub":"x","exp":9999999999}`))
	if _, err := d.chain.Authenticate(d.t.Context(), r); err == nil {
		d.t.Fatal("a forged token is taken")
	}
}

// TestAttackWhileIssuerChangesItsKey lets somebody send a made-up token whenever that makes the gateway fetch the
// issuer's keys. When the issuer then replaces its key, the next fetch has to wait. Meanwhile no session ends, no sign-in is
// called wrong, and the issuer tries a logout again.
func TestAttackWhileIssuerChangesItsKey(t *testing.T) {
	turnovers(t, func(t *testing.T, d *desk, kid string) {
		d.provider.Change(nil, func(answer map[string]any) {
			c := d.issuer.Claims("alice")
			c["groups"] = []string{"old"}
			answer["access_token"], _ = d.issuer.Sign(c)
		})
		victim := d.browser()
		victim.signIn()
		d.clock.Add(4 * time.Minute)
		d.forge(1)
		publish, logout := d.renewKey(kid)
		publish()
		victim.afterRefresh("while the key is unknown", func(_ []string, err error) bool { return err == nil })
		late := d.browser()
		_, err := late.finish(late.visit(late.begin("/")))
		wantReason(t, "sign-in meanwhile", err, login.Unavailable)
		_, err = d.auth.BackChannel(t.Context(), request(host, ""), logout("somebody"))
		wantReason(t, "logout meanwhile", err, login.Unavailable)
		d.clock.Add(4 * time.Minute)
		victim.afterRefresh("later", func(groups []string, err error) bool { return err == nil && slices.Equal(groups, []string{"new"}) })
		d.browser().signIn()
		if _, err = d.auth.BackChannel(t.Context(), request(host, ""), logout("alice")); err != nil {
			t.Errorf("logout later: %v", err)
		}
		victim.refused(login.SessionEnded)
	})
}

// TestKeyThatIsPublishedLate has an issuer that signs with a key which its key set, in some cache, does not have yet.
func TestKeyThatIsPublishedLate(t *testing.T) {
	turnovers(t, func(t *testing.T, d *desk, kid string) {
		d.provider.Change(nil, func(answer map[string]any) { answer["access_token"], _ = d.issuer.Sign(d.issuer.Claims("alice")) })
		b := d.browser()
		b.signIn()
		d.clock.Add(4 * time.Minute)
		publish, _ := d.renewKey(kid)
		for range 3 {
			b.afterRefresh("too early", func(_ []string, err error) bool { return err == nil })
			d.clock.Add(4 * time.Minute)
		}
		late := d.browser()
		_, err := late.finish(late.visit(late.begin("/")))
		wantReason(t, "sign-in with that key", err, login.BadTokens)
		publish()
		d.clock.Add(4 * time.Minute)
		b.afterRefresh("published", func(groups []string, err error) bool { return err == nil && slices.Equal(groups, []string{"new"}) })
	})
}

// TestClockThatIsOffEndsNoSession moves the clock of the gateway, and only that, over a refresh.
func TestClockThatIsOffEndsNoSession(t *testing.T) {
	for _, claims := range []string{login.ClaimsIDToken, login.ClaimsAccessToken} {
		for _, by := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
			d := newDesk(t, func(d *desk) { d.config.Claims = claims })
			var off time.Duration
			of := func(audience string) map[string]any {
				at := d.clock.Now().Add(-off).Unix()
				return map[string]any{"iss": d.issuer.URL, "aud": audience, "sub": "alice", "iat": at, "exp": at + 300, "groups": []string{"new"}}
			}
			d.provider.Change(func(c map[string]any) {
				maps.Copy(c, of("gateway"))
			}, func(answer map[string]any) { answer["access_token"], _ = d.issuer.Sign(of("models")) })
			b := d.browser()
			b.signIn()
			d.clock.Add(20 * time.Minute) // a refresh is due by either clock
			off = by
			d.clock.Add(by)
			b.afterRefresh(fmt.Sprint(claims, " while the clock is off by ", by), func(_ []string, err error) bool { return err == nil })
			if n := d.provider.Refreshes(); n != 1 {
				t.Errorf("%s, %s: %d refreshes, want one that fails", claims, by, n)
			}
			d.clock.Add(-by + 5*time.Minute)
			off = 0
			b.afterRefresh(fmt.Sprint(claims, " after it was off by ", by), func(_ []string, err error) bool { return err == nil })
		}
	}
}
