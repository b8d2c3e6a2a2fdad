package auth

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
)

// TestKeyReplacedUnderTheSameKid checks that the first token of a key that replaced another under
// the same kid is taken, and that those of the old key are refused from then on, although they
// were verified before.
func TestKeyReplacedUnderTheSameKid(t *testing.T) {
	fresh := authtest.NewKey("one", "RS256", authtest.OtherRSA())
	other := authtest.NewKey("one", "ES256", authtest.EC(elliptic.P256()))
	for name, c := range map[string]struct {
		published []string
		token     func(claims string) string
	}{
		"of the same kind":             {[]string{fresh.JWK()}, fresh.Token},
		"of another kind":              {[]string{other.JWK()}, other.Token},
		"without kid":                  {[]string{fresh.JWK()}, func(claims string) string { return withoutKid(fresh, claims) }},
		"without kid, of another kind": {[]string{other.JWK()}, func(claims string) string { return withoutKid(other, claims) }},
		"that names its issuer":        {[]string{fresh.JWK(`"issuer":"ISSUER"`)}, fresh.Token},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			f.Publish(f.rsa.JWK())
			old := f.rsa.Token(f.good())
			want(t, f.chain, old, "")
			for i := range c.published {
				c.published[i] = strings.Replace(c.published[i], "ISSUER", f.URL, 1)
			}
			f.Publish(c.published...)
			want(t, f.chain, old, "") // nothing has told the gateway yet
			want(t, f.chain, c.token(f.good()), "")
			want(t, f.chain, old, BadCredential)
			want(t, f.chain, f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"sub": "bob"})), BadCredential)
			if n := f.Fetches(); n != 2 {
				t.Errorf("keys were fetched %d times, want 2", n)
			}
		})
	}
}

// TestBadSignaturesShareTheBoundOfUnknownKids checks that neither causes a fetch after the other did.
func TestBadSignaturesShareTheBoundOfUnknownKids(t *testing.T) {
	f := newForge(t)
	f.auth.memory.budget = nil
	victim := f.ec.Token(f.good())
	want(t, f.chain, victim, "")
	evil, odd := authtest.NewKey("one", "RS256", authtest.OtherRSA()), authtest.NewKey("two", "RS256", authtest.OtherRSA())
	for minute := range 5 {
		for i := range 200 {
			want(t, f.chain, evil.Token(f.good()), BadCredential)
			want(t, f.chain, odd.Token(f.good()), BadCredential)
			want(t, f.chain, withoutKid(evil, f.good()), BadCredential)
			want(t, f.chain, authtest.NewKey(fmt.Sprint("flood-", minute, i), "RS256", authtest.OtherRSA()).Token(f.good()), BadCredential)
			want(t, f.chain, victim, "")
		}
		want(t, f.chain, f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"sub": fmt.Sprint("victim-", minute)})), "")
		if n := f.Fetches(); n != int64(minute)+2 {
			t.Fatalf("keys were fetched %d times, want %d", n, minute+2)
		}
		f.clock.Add(missInterval)
	}
}

// signs asks a key set for the signer of a token, and returns how long that took.
func (f *fakeKeys) signs(t *testing.T, k authtest.Key) (time.Duration, error) {
	read := new(token)
	if err := read.parse(k.Token(authtest.Claims("https://issuer.example", time.Now(), nil))); err != nil {
		t.Error(err)
	}
	began := time.Now()
	_, err := f.signer(context.Background(), &issuer{name: "corp"}, read)
	return time.Since(began), err
}

// TestKeysFetchedMeanwhileAreTried checks that a request which looked for its key just before a fetch ended uses what
// that fetch brought. No other fetch is due then, so it would be refused.
func TestKeysFetchedMeanwhileAreTried(t *testing.T) {
	one, same, two := ecPair("one"), ecPair("one"), ecPair("two")
	f := newFakeKeys(func() (string, error) { return authtest.KeySet(one.JWK()), nil })
	f.asks("one")
	seen := f.current.Load()
	before, _, _ := seen.find("one", "ES256")
	f.answers(authtest.KeySet(same.JWK(), two.JWK()), nil)
	if _, err := f.signs(t, same); err != nil {
		t.Fatal(err)
	}
	now, _, _ := f.current.Load().find("one", "ES256")
	if found, changed, err := f.doubt(t.Context(), "one", "ES256", before); !changed || err != nil || found != now {
		t.Errorf("the same kid: changed %t, %v", changed, err)
	}
	for _, n := range []need{needKeys, needKid, needOther} {
		if started, err := f.await(t.Context(), seen, "two", n); started || err != nil {
			t.Errorf("need %d: started %t, %v", n, started, err)
		}
	}
	if n := f.count(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

// TestForgedTokensDoNotWaitForAHangingIssuer checks that a flood of forged tokens holds few
// goroutines, and delays neither the tokens of known keys nor those that wait for a new kid.
func TestForgedTokensDoNotWaitForAHangingIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, evil := ecPair("one"), ecPair("two"), ecPair("one")
		f := newFakeKeys(func() (string, error) { return authtest.KeySet(one.JWK()), nil })
		f.asks("one")
		f.answers("hang", nil)
		var all sync.WaitGroup
		var mu sync.Mutex
		waited := 0
		for range 2000 {
			all.Go(func() {
				d, err := f.signs(t, evil)
				if !errors.Is(err, errSignature) || !errors.Is(err, errNotFetched) || d > fetchTime {
					t.Errorf("forged: got %v after %v", err, d)
				}
				mu.Lock()
				defer mu.Unlock()
				if d > 0 {
					waited++
				}
			})
		}
		synctest.Wait()
		if d, err := f.signs(t, one); err != nil || d != 0 {
			t.Errorf("a known key: got %v after %v", err, d)
		}
		if d, err := f.signs(t, two); !errors.Is(err, errNotChecked) || d != fetchTime {
			t.Errorf("a new kid: got %v after %v, want errNotChecked after %v", err, d, fetchTime)
		}
		all.Wait()
		if waited != maxDoubts {
			t.Errorf("%d forged tokens waited, want %d", waited, maxDoubts)
		}
		f.work.Wait()
		if f.fetching != nil || f.waiting != 0 {
			t.Error("a fetch or a waiting request is left")
		}
		if n := f.count(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

// TestBadSignatureWhileTheIssuerIsDown checks that a token whose signature does not verify is refused
// as such, and not with 503, and that the old keys stay in use. What an issuer sends about
// people cannot be checked meanwhile.
func TestBadSignatureWhileTheIssuerIsDown(t *testing.T) {
	f := newForge(t)
	want(t, f.chain, f.rsa.Token(f.good()), "")
	fresh := authtest.NewKey("one", "RS256", authtest.OtherRSA())
	f.Answer(authtest.Status(http.StatusBadGateway))
	li := newLoginIssuer(f.auth.issuers["corp"], f.auth.memory)
	for range 3 {
		// A logout that is called bad is lost: the issuer does not send it again.
		logout := fresh.Sign(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"logout+jwt"}`, fresh.Algorithm, fresh.ID), f.good())
		if _, _, err := li.Verify(t.Context(), logout, "logout+jwt"); !errors.Is(err, login.ErrUnavailable) {
			t.Errorf("a logout token: got %v", err)
		}
		want(t, f.chain, fresh.Token(f.good()), BadCredential)
		want(t, f.chain, f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"sub": "bob"})), "")
	}
	f.Answer(nil)
	f.Publish(fresh.JWK())
	want(t, f.chain, fresh.Token(f.good()), BadCredential) // no fetch is due
	f.clock.Add(missInterval)
	want(t, f.chain, fresh.Token(f.good()), "")
}

// TestReplacedKeyOfLoginsAndAnswers checks the same of ID tokens, logout tokens and signed answers.
func TestReplacedKeyOfLoginsAndAnswers(t *testing.T) {
	for _, typ := range []string{"JWT", "logout+jwt"} {
		f := newForge(t)
		li := newLoginIssuer(f.auth.issuers["corp"], f.auth.memory)
		verify := func(k authtest.Key) error {
			_, _, err := li.Verify(t.Context(), k.Sign(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":%q}`, k.Algorithm, k.ID, typ), f.good()), typ)
			return err
		}
		if err := verify(f.rsa); err != nil {
			t.Fatal(err)
		}
		fresh := authtest.NewKey("one", "RS256", authtest.OtherRSA())
		f.Publish(fresh.JWK())
		if err := verify(fresh); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		if err := verify(f.rsa); !errors.Is(err, errSignature) {
			t.Errorf("%s of the old key: got %v", typ, err)
		}
	}
	o := newOpaque(t, nil)
	o.signedBy(o.key, signedHeader(o.key), nil)
	want(t, o.chain, o.know("0paque", nil), "")
	fresh := authtest.NewKey("one", "EdDSA", authtest.Ed25519())
	o.signedBy(fresh, signedHeader(fresh), nil)
	o.Publish(fresh.JWK())
	want(t, o.chain, o.know("0paque2", nil), "")
}
