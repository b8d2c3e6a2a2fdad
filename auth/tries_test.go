package auth

import (
	"bytes"
	"crypto/elliptic"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"sallyport/auth/authtest"
)

// withoutKid signs claims with a header that has no kid.
func withoutKid(k authtest.Key, claims string) string {
	return k.Sign(fmt.Sprintf(`{"alg":"%s"}`, k.Algorithm), claims)
}

// TestTokensWithoutKidDuringRotation checks that a token without kid is tried with each of the
// keys that fit, while a stranger's key is refused.
func TestTokensWithoutKidDuringRotation(t *testing.T) {
	old, next, stranger := ecPair("old"), ecPair("new"), ecPair("old")
	clock := authtest.NewClock()
	p := newProvider(t, old.JWK(), next.JWK(), authtest.NewKey("other", "RS256", authtest.RSA()).JWK())
	_, chain := newAuth(t, clock, p.config())
	claims := p.claims(clock.Now(), nil)
	want(t, chain, withoutKid(old, claims), "")
	want(t, chain, withoutKid(next, claims), "")
	want(t, chain, withoutKid(stranger, claims), BadCredential)
	_, err := ask(chain, withoutKid(stranger, claims))
	if !strings.Contains(err.Error(), `the signature does not match any of the keys "old", "new"`) {
		t.Errorf("got %v", err)
	}
	// A kid still selects one key.
	want(t, chain, old.Sign(`{"alg":"ES256","kid":"new"}`, claims), BadCredential)
}

// TestTokenWithoutKidIsChargedOnce checks that several tries cost the client one failure, and
// that more than four keys are not tried.
func TestTokenWithoutKidIsChargedOnce(t *testing.T) {
	var published []string
	for i := range maxTries {
		published = append(published, ecPair(fmt.Sprint(i)).JWK())
	}
	clock := authtest.NewClock()
	p := newProvider(t, published...)
	a := activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now, Budget: Budget{Burst: 2}}), Config{Issuers: map[string]IssuerConfig{"corp": p.config()}})
	chain, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	forged := ecPair("")
	for _, why := range []string{BadCredential, BadCredential, TooManyFailures} {
		want(t, chain, withoutKid(forged, p.claims(clock.Now(), nil)), why)
	}

	fifth := ecPair("fifth")
	p = newProvider(t, append(published, fifth.JWK())...)
	_, chain = newAuth(t, clock, p.config())
	want(t, chain, withoutKid(fifth, p.claims(clock.Now(), nil)), BadCredential)
	want(t, chain, fifth.Token(p.claims(clock.Now(), nil)), "")
}

// TestSubMayBeAbsentOrAnotherType checks tokens whose caller is named by another claim than sub.
func TestSubMayBeAbsentOrAnotherType(t *testing.T) {
	clock := authtest.NewClock()
	key := ecPair("one")
	p := newProvider(t, key.JWK())
	c := p.config()
	c.Principal = "client_id"
	_, chain := newAuth(t, clock, c)
	_, plain := newAuth(t, clock, p.config())
	for name, sub := range map[string]any{"absent": nil, "a number": 4711, "an array": []string{"alice"}, "an object": map[string]any{"id": 7}, "true": true} {
		token := key.Token(p.claims(clock.Now(), map[string]any{"sub": sub, "client_id": "batch"}))
		caller, err := ask(chain, token)
		if err != nil || caller.String() != "issuer/corp:batch" {
			t.Errorf("sub %s: got %s, %v", name, caller.String(), err)
		}
		want(t, plain, token, MissingClaim)
	}
}

// TestSkippedKeysAreNamed checks that each key that cannot be used is named in the log once,
// and in the status as long as it is published.
func TestSkippedKeysAreNamed(t *testing.T) {
	var logged bytes.Buffer
	good := ecPair("good")
	off := ecPair("k1").JWK()
	x := strings.Index(off, `"x":"`) + len(`"x":"`)
	off = off[:x] + strings.Repeat("A", 42) + "Q" + off[x+43:]
	enc := authtest.NewKey("enc 1", "RS256", authtest.RSA()).JWK(`"use":"enc"`)
	clock := authtest.NewClock()
	p := newProvider(t, good.JWK(), off, enc, `{"kty":7}`, ecPair("").JWK(`"alg":"ES384"`))
	a := activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now, Log: slog.New(slog.NewTextHandler(&logged, nil))}), Config{Issuers: map[string]IssuerConfig{"corp": p.config()}})
	chain, err := a.Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, chain, good.Token(p.claims(clock.Now(), nil)), "")
	names := []string{
		"kid k1 skipped: EC point not on the curve",
		`kid "enc 1" skipped: its use is not sig`,
		"key 4, without kid, skipped: not a JSON Web Key: a member has the wrong type, or stands there twice",
		"key 5, without kid, skipped: its alg is not one of a signature, or does not fit the key",
	}
	if got := a.Status()[0].Skipped; !slices.Equal(got, names) {
		t.Errorf("got %q, want %q", got, names)
	}
	refresh(t, a)
	refresh(t, a)
	if n := strings.Count(logged.String(), "kid k1 skipped"); n != 1 {
		t.Errorf("the log names it %d times, want once:\n%s", n, logged.String())
	}
	p.Publish(good.JWK())
	refresh(t, a)
	if got := a.Status()[0].Skipped; got != nil {
		t.Errorf("still skipped: %q", got)
	}
	p.Publish(off)
	refresh(t, a)
	if st := a.Status()[0]; st.Keys != 1 || st.LastError != "keys: no usable key" || !slices.Equal(st.Skipped, []string{"kid k1 skipped: EC point not on the curve"}) {
		t.Errorf("got %+v, want the key set as it was, and why the new one is refused", st)
	}
}

// TestManySkippedKeysAreCut bounds how much of a key set reaches log and status.
func TestManySkippedKeysAreCut(t *testing.T) {
	set := &jwkSet{}
	for range maxKeys - 1 {
		set.Keys = append(set.Keys, []byte(fmt.Sprintf(`{"kty":"RSA","kid":%q}`, strings.Repeat("\x01ö", 500))))
	}
	set.Keys = append(set.Keys, []byte(authtest.NewKey("one", "ES256", authtest.EC(elliptic.P256())).JWK()))
	got, err := readKeys(set, authtest.NewClock().Now())
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(got.skipped, "; "); len(got.skipped) != mostSkipped+1 || len(all) > 1600 || strings.Contains(all, "\x01") {
		t.Errorf("%d, %d bytes: %s", len(got.skipped), len(all), all)
	}
}
