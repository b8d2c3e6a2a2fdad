package auth

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/fetch"
)

// fakeKeys is a key set whose issuer is a function; it runs in synctest bubbles,
// where time is fake.
type fakeKeys struct {
	*keySet
	mu          sync.Mutex
	fetches     int
	answer      func() (string, error) // a JWKS
	withdrawals int
}

func newFakeKeys(answer func() (string, error)) *fakeKeys {
	f := &fakeKeys{answer: answer}
	source := keySource{issuer: "https://issuer.example", jwks: "https://issuer.example/keys", refresh: defaultRefresh, maxStale: defaultMaxStale, cure: (&issuer{}).cureFetch}
	f.keySet = newKeySet(source, NewMemory(MemoryOptions{}))
	f.onWithdrawal = func() { f.withdrawals++ }
	f.get = func(ctx context.Context, _ string, into any) error {
		f.mu.Lock()
		f.fetches++
		answer := f.answer
		f.mu.Unlock()
		text, err := answer()
		if err != nil {
			return err
		}
		if text == "hang" {
			<-ctx.Done()
			return &fetch.Error{Kind: fetch.TimedOut, Err: ctx.Err()}
		}
		return decodeSet(text, into.(*jwkSet))
	}
	return f
}

func (f *fakeKeys) answers(text string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = func() (string, error) { return text, err }
}

func (f *fakeKeys) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fetches
}

// asks resolves a kid for ES256 and returns how long that took.
func (f *fakeKeys) asks(kid string) (*key, time.Duration, error) {
	began := time.Now()
	found, err := f.resolve(context.Background(), kid, "ES256")
	return found.keys[0], time.Since(began), err
}

func ecPair(kid string) authtest.Key {
	return authtest.NewKey(kid, "ES256", authtest.EC(elliptic.P256()))
}

var errDown = &fetch.Error{Kind: fetch.Unreachable}

// TestUnknownKidsCauseFewFetches checks that ten thousand unknown kids in five minutes
// cause one fetch per 30 seconds, and that a new key works within that time.
func TestUnknownKidsCauseFewFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := ecPair("one"), ecPair("two")
		f := newFakeKeys(func() (string, error) { return authtest.KeySet(one.JWK()), nil })
		if _, _, err := f.asks("one"); err != nil {
			t.Fatal(err)
		}
		began, rotated := time.Now(), time.Time{}
		for i := range 10_000 {
			if _, _, err := f.asks(fmt.Sprintf("flood-%d", i)); !errors.Is(err, errUnknownKey) {
				t.Fatalf("unknown kid: got %v, want errUnknownKey", err)
			}
			time.Sleep(30 * time.Millisecond)
			if i == 5000 {
				f.answers(authtest.KeySet(one.JWK(), two.JWK()), nil)
			}
			if i > 5000 && rotated.IsZero() {
				if _, _, err := f.asks("two"); err == nil {
					rotated = time.Now()
					if d := rotated.Sub(began.Add(150 * time.Second)); d > 31*time.Second {
						t.Errorf("the new key worked after %v, want within 30 s", d)
					}
				}
			}
		}
		if n := f.count(); n > 12 {
			t.Errorf("%d fetches in 300 s, want at most 12", n)
		}
		if rotated.IsZero() {
			t.Error("the new key never worked")
		}
		if n := len(f.misses); n > maxMisses {
			t.Errorf("%d unknown kids are remembered, want at most %d", n, maxMisses)
		}
	})
}

// TestNewKeyWorksAtOnce checks that the first token of a new key causes a fetch.
func TestNewKeyWorksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := ecPair("one"), ecPair("two")
		f := newFakeKeys(func() (string, error) { return authtest.KeySet(one.JWK()), nil })
		f.asks("one")
		f.answers(authtest.KeySet(one.JWK(), two.JWK()), nil)
		if _, _, err := f.asks("two"); err != nil {
			t.Errorf("new key: %v", err)
		}
	})
}

// TestUnknownKidIsRemembered checks that one unknown kid cannot cause every fetch.
func TestUnknownKidIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKeys(func() (string, error) { return authtest.KeySet(ecPair("one").JWK()), nil })
		f.asks("one")
		f.asks("old")
		before := f.count()
		time.Sleep(missInterval + time.Second)
		f.asks("old")
		if n := f.count(); n != before {
			t.Errorf("the same unknown kid caused another fetch after %v", missInterval)
		}
		time.Sleep(missMemory)
		f.asks("old")
		if n := f.count(); n != before+1 {
			t.Errorf("%d fetches, want one more after %v", n-before, missMemory)
		}
	})
}

func TestConcurrentRequestsShareOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := ecPair("one")
		f := newFakeKeys(func() (string, error) { time.Sleep(time.Second); return authtest.KeySet(one.JWK()), nil })
		var all sync.WaitGroup
		for range 500 {
			all.Go(func() {
				if _, d, err := f.asks("one"); err != nil || d != time.Second {
					t.Errorf("got %v after %v", err, d)
				}
			})
		}
		all.Wait()
		if f.count() != 1 {
			t.Errorf("%d fetches, want 1", f.count())
		}
	})
}

// TestHangingIssuerDelaysBriefly checks that a request waits until its context ends and at
// most five seconds, that known keys need no wait, and that no goroutine leaks.
func TestHangingIssuerDelaysBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := ecPair("one")
		f := newFakeKeys(func() (string, error) { return authtest.KeySet(one.JWK()), nil })
		f.asks("one")
		f.answers("hang", nil)
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := f.resolve(ctx, "new", "ES256"); !errors.Is(err, errNotChecked) || time.Since(began) != time.Second {
			t.Errorf("own context: got %v after %v, want errNotChecked after 1s", err, time.Since(began))
		}
		if _, d, err := f.asks("new"); !errors.Is(err, errNotChecked) || d > fetchTime {
			t.Errorf("got %v after %v, want errNotChecked within %v", err, d, fetchTime)
		}
		if _, d, err := f.asks("one"); err != nil || d != 0 {
			t.Errorf("known key: got %v after %v, want nothing at once", err, d)
		}
		f.work.Wait()
		if f.fetching != nil || f.waiting != 0 {
			t.Error("a fetch or a waiting request is left")
		}
	})
}

// TestWaitingIsBounded checks the maximum number of requests that wait for one fetch.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKeys(func() (string, error) { return "hang", nil })
		var all sync.WaitGroup
		for range maxWaiting {
			all.Go(func() { f.asks("one") })
		}
		synctest.Wait()
		if _, d, err := f.asks("one"); !errors.Is(err, errNotChecked) || d != 0 {
			t.Errorf("got %v after %v, want errNotChecked at once", err, d)
		}
		all.Wait()
	})
}

// TestUnreachableIssuerIsRetried checks that retries back off, that requests do not wait
// between them, that a recovered issuer is used, and that known keys stay usable until
// they are stale.
func TestUnreachableIssuerIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := ecPair("one")
		f := newFakeKeys(func() (string, error) { return "", errDown })
		f.keepFresh()
		for range 600 {
			time.Sleep(time.Second)
			if _, d, err := f.asks("one"); !errors.Is(err, errNotChecked) || d != 0 {
				t.Fatalf("got %v after %v, want errNotChecked at once", err, d)
			}
		}
		if n := f.count(); n < 8 || n > 40 {
			t.Errorf("%d fetches in ten minutes, want a few", n)
		}
		if st := f.status(); st.LastError != "keys: unreachable" || st.Keys != 0 || st.Failures == 0 {
			t.Errorf("status %+v", st)
		}
		f.answers(authtest.KeySet(one.JWK()), nil)
		time.Sleep(lastRetry)
		synctest.Wait()
		if _, _, err := f.asks("one"); err != nil {
			t.Errorf("the issuer is back: %v", err)
		}
		f.answers("", errDown)
		time.Sleep(defaultMaxStale - defaultRefresh - time.Minute)
		if _, d, err := f.asks("one"); err != nil || d != 0 {
			t.Errorf("known key during the outage: got %v after %v", err, d)
		}
		if _, _, err := f.asks("new"); !errors.Is(err, errNotChecked) {
			t.Errorf("unknown kid during the outage: got %v, want errNotChecked", err)
		}
		time.Sleep(defaultRefresh*2 + time.Minute)
		if _, _, err := f.asks("one"); !errors.Is(err, errNotChecked) {
			t.Errorf("stale key: got %v, want errNotChecked", err)
		}
		f.end()
	})
}

// TestWithdrawnKeyIsRefusedAfterRefresh: the gateway learns of it only by a fetch.
func TestWithdrawnKeyIsRefusedAfterRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := ecPair("one"), ecPair("two")
		f := newFakeKeys(func() (string, error) { return authtest.KeySet(one.JWK(), two.JWK()), nil })
		f.keepFresh()
		synctest.Wait()
		k1, _, _ := f.asks("one")
		k2, _, _ := f.asks("two")
		f.answers(authtest.KeySet(two.JWK()), nil)
		time.Sleep(defaultRefresh + defaultRefresh/10 + time.Second)
		if _, _, err := f.asks("one"); !errors.Is(err, errUnknownKey) {
			t.Errorf("got %v, want errUnknownKey", err)
		}
		if !k1.withdrawn.Load() || k2.withdrawn.Load() || f.withdrawals != 1 {
			t.Error("the key that is gone must be withdrawn, and the other must not")
		}
		if again, _, _ := f.asks("two"); again != k2 {
			t.Error("a key that is still published must stay the same value")
		}
		f.end()
	})
}

// TestUnusableKeySetWithdrawsNoKey: a 200 without a usable key is a failed fetch.
func TestUnusableKeySetWithdrawsNoKey(t *testing.T) {
	many := make([]string, maxKeys+1)
	for i := range many {
		many[i] = `{"kty":"oct"}`
	}
	for name, text := range map[string]string{
		"empty set":         `{"keys":[]}`,
		"no keys":           `{}`,
		"keys null":         `{"keys":null}`,
		"keys a string":     `{"keys":"x"}`,
		"keys twice":        `{"keys":[],"keys":[]}`,
		"an array":          `[]`,
		"HTML":              `<html>`,
		"nothing":           ``,
		"cut off":           authtest.KeySet(ecPair("one").JWK())[:40],
		"two values":        authtest.KeySet(ecPair("one").JWK()) + "{}",
		"only secrets":      `{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"one"}]}`,
		"only encryption":   authtest.KeySet(authtest.NewKey("one", "RS256", authtest.RSA()).JWK(`"use":"enc"`)),
		"name in capitals":  `{"KEYS":[` + ecPair("one").JWK() + `]}`,
		"too many keys":     authtest.KeySet(many...),
		"error as 200":      `{"error":"maintenance"}`,
		"private keys only": authtest.KeySet(ecPair("one").JWK(`"d":"AAAA"`)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := ecPair("one")
				f := newFakeKeys(func() (string, error) { return authtest.KeySet(one.JWK()), nil })
				f.asks("one")
				f.answers(text, nil)
				time.Sleep(time.Minute)
				if _, _, err := f.asks("new"); !errors.Is(err, errNotChecked) {
					t.Errorf("unknown kid: got %v, want errNotChecked", err)
				}
				if _, _, err := f.asks("one"); err != nil {
					t.Errorf("known key: %v", err)
				}
				if f.status().LastError == "" {
					t.Error("status shows no error")
				}
			})
		})
	}
}

// TestKeySetSelectsKeysByAlgorithm checks which keys may be used with which algorithm.
func TestKeySetSelectsKeysByAlgorithm(t *testing.T) {
	r, small := authtest.NewKey("r", "RS256", authtest.RSA()), authtest.NewKey("s", "RS256", authtest.SmallRSA())
	e := ecPair("e")
	e384, ed := authtest.NewKey("e384", "ES384", authtest.EC(elliptic.P384())), authtest.NewKey("ed", "EdDSA", authtest.Ed25519())
	anonymous := authtest.NewKey("", "ES256", authtest.EC(elliptic.P256()))
	cases := map[string]struct {
		set      string
		kid, alg string
		want     error
	}{
		"RSA for RS256":                    {authtest.KeySet(r.JWK()), "r", "RS256", nil},
		"RSA for PS512":                    {authtest.KeySet(r.JWK()), "r", "PS512", nil},
		"RSA for ES256":                    {authtest.KeySet(r.JWK()), "r", "ES256", errUnknownKey},
		"RSA for HS256":                    {authtest.KeySet(r.JWK()), "r", "HS256", errUnknownKey},
		"RSA said to be for RS256":         {authtest.KeySet(r.JWK(`"alg":"RS256"`)), "r", "PS256", errUnknownKey},
		"RSA said to be for encryption":    {authtest.KeySet(r.JWK(`"alg":"RSA-OAEP"`), e.JWK()), "r", "RS256", errUnknownKey},
		"use sig":                          {authtest.KeySet(r.JWK(`"use":"sig"`)), "r", "RS256", nil},
		"use enc":                          {authtest.KeySet(r.JWK(`"use":"enc"`), e.JWK()), "r", "RS256", errUnknownKey},
		"use empty":                        {authtest.KeySet(r.JWK(`"use":""`), e.JWK()), "r", "RS256", errUnknownKey},
		"key_ops verify":                   {authtest.KeySet(r.JWK(`"key_ops":["verify"]`)), "r", "RS256", nil},
		"key_ops encrypt":                  {authtest.KeySet(r.JWK(`"key_ops":["encrypt"]`), e.JWK()), "r", "RS256", errUnknownKey},
		"key_ops none":                     {authtest.KeySet(r.JWK(`"key_ops":[]`), e.JWK()), "r", "RS256", errUnknownKey},
		"RSA of 1024 bits":                 {authtest.KeySet(small.JWK(), e.JWK()), "s", "RS256", errUnknownKey},
		"RSA with e of one":                {authtest.KeySet(strings.Replace(r.JWK(), `"e":"AQAB"`, `"e":"AQ"`, 1), e.JWK()), "r", "RS256", errUnknownKey},
		"a private key":                    {authtest.KeySet(r.JWK(`"d":"AAAA"`), e.JWK()), "r", "RS256", errUnknownKey},
		"P-256 for ES256":                  {authtest.KeySet(e.JWK()), "e", "ES256", nil},
		"P-256 for ES384":                  {authtest.KeySet(e.JWK()), "e", "ES384", errUnknownKey},
		"P-384 for ES384":                  {authtest.KeySet(e384.JWK()), "e384", "ES384", nil},
		"P-384 for ES256":                  {authtest.KeySet(e384.JWK()), "e384", "ES256", errUnknownKey},
		"a point that is not on the curve": {authtest.KeySet(strings.Replace(e.JWK(), `"P-256","x":"`, `"P-256","x":"A`, 1), r.JWK()), "e", "ES256", errUnknownKey},
		"Ed25519 for EdDSA":                {authtest.KeySet(ed.JWK()), "ed", "EdDSA", nil},
		"Ed25519 by its newer name":        {authtest.KeySet(ed.JWK(`"alg":"Ed25519"`)), "ed", "EdDSA", nil},
		"unknown members":                  {authtest.KeySet(r.JWK(`"x5t":"a","x5c":["b"],"issuer":"c","nbf":1`)), "r", "RS256", nil},
		"other keys that are not read":     {authtest.KeySet(`{"kty":"OKP","crv":"Ed448","x":"AA"}`, `{"kty":"new"}`, `{"kty":7}`, `7`, r.JWK()), "r", "RS256", nil},
		"a key with a name twice":          {authtest.KeySet(`{"kty":"RSA",`+r.JWK()[1:], e.JWK()), "r", "RS256", errNotChecked},
		"kid in another letter case":       {authtest.KeySet(r.JWK()), "R", "RS256", errUnknownKey},
		"no kid, one key fits":             {authtest.KeySet(r.JWK(), e.JWK()), "", "ES256", nil},
		"no kid, none fits":                {authtest.KeySet(r.JWK()), "", "ES256", errUnknownKey},
		"no kid, two fit":                  {authtest.KeySet(e.JWK(), anonymous.JWK()), "", "ES256", nil},
		"no kid, five fit":                 {authtest.KeySet(e.JWK(), ecPair("1").JWK(), ecPair("2").JWK(), ecPair("3").JWK(), ecPair("4").JWK()), "", "ES256", errAmbiguousKey},
		"kid, only a key without one":      {authtest.KeySet(anonymous.JWK()), "e", "ES256", errUnknownKey},
		"the same key twice":               {authtest.KeySet(e.JWK(), e.JWK()), "e", "ES256", nil},
		"two keys with one kid":            {authtest.KeySet(e.JWK(), ecPair("e").JWK()), "e", "ES256", errAmbiguousKey},
		"two kinds of key with one kid":    {authtest.KeySet(e.JWK(), authtest.NewKey("e", "RS256", authtest.RSA()).JWK()), "e", "ES256", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFakeKeys(func() (string, error) { return c.set, nil })
			found, err := f.resolve(context.Background(), c.kid, c.alg)
			if !errors.Is(err, c.want) || (found.n == 0) != (c.want != nil) {
				t.Errorf("got %d keys and %v, want %v", found.n, err, c.want)
			}
		})
	}
}

// TestKeyConfusionCausesFewFetches uses a known kid with another algorithm.
func TestKeyConfusionCausesFewFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeKeys(func() (string, error) { return authtest.KeySet(ecPair("one").JWK()), nil })
		f.asks("one")
		for range 1000 {
			if _, err := f.resolve(context.Background(), "one", "RS256"); !errors.Is(err, errUnknownKey) {
				t.Errorf("got %v, want errUnknownKey", err)
			}
		}
		if f.count() != 2 {
			t.Errorf("%d fetches, want 2", f.count())
		}
	})
}

// TestThumbprint is the example of RFC 7638, section 3.1.
func TestThumbprint(t *testing.T) {
	k, _, err := readKey([]byte(`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := k.name(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; got != want {
		t.Errorf("thumbprint %s, want %s", got, want)
	}
}

// TestRunLeavesNoGoroutine checks that Run returns when its context ends, even while the
// issuer hangs. Later nothing is fetched, not even for a new Auth.
func TestRunLeavesNoGoroutine(t *testing.T) {
	p := newProvider(t)
	p.Answer(authtest.Hang())
	before := runtime.NumGoroutine()
	a, chain := newAuth(t, authtest.NewClock(), p.config())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.memory.Run(ctx) }()
	for p.Requests() == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	awaitGoroutines(t, before)
	requests, token := p.Requests(), ecPair("one").Token(p.claims(authtest.NewClock().Now(), nil))
	want(t, chain, token, IssuerUnavailable)
	again := p.config()
	again.Audience = []string{"batch"}
	later, err := activeAuth(t, a.memory, Config{Issuers: map[string]IssuerConfig{"corp": again}}).Route(Demand{Callers: []string{"issuer/corp"}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, later, token, IssuerUnavailable)
	if n := p.Requests(); n != requests {
		t.Errorf("%d requests after Run", n-requests)
	}
}

// awaitGoroutines waits until no more goroutines run than before.
func awaitGoroutines(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			text := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, text[:runtime.Stack(text, true)])
		}
	}
}
