package auth

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/auth/authtest"
)

// entry is a verified token with a text of the given length.
func entry(c *tokenCache, name string, length int) *verified {
	raw := name + strings.Repeat("x", max(length-len(name), 0))
	return &verified{hash: c.hash(raw), raw: raw, key: &key{}, notAfter: 1 << 40, size: entryOverhead}
}

func (c *tokenCache) holds(e *verified) bool { return c.get(e.issuer, e.hash, e.raw) == e }

// TestCacheIsBounded checks the limits of tokens and bytes with random operations.
func TestCacheIsBounded(t *testing.T) {
	for name, limits := range map[string]CacheLimits{
		"tokens": {Tokens: 1600},
		"bytes":  {Bytes: 2 << 20},
		"both":   {Tokens: 1000, Bytes: 1 << 20},
		"tiny":   {Tokens: 1, Bytes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTokenCache(limits)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range 20_000 {
				e := entry(c, fmt.Sprint(i), r.IntN(4000))
				c.put(e)
				if r.IntN(2) == 0 {
					c.holds(e)
				}
				if r.IntN(10) == 0 {
					c.drop(e)
				}
			}
			st := c.status()
			if limits.Tokens > 0 && st.Tokens > max(limits.Tokens, shards) || limits.Bytes > 0 && st.Bytes > limits.Bytes {
				t.Errorf("%+v is over %+v", st, limits)
			}
			c.sweep(1 << 41)
			if st := c.status(); st.Tokens != 0 || st.Bytes != 0 {
				t.Errorf("after the sweep: %+v", st)
			}
			for i := range c.shards {
				if n := len(c.shards[i].ghosts.set); n > c.shards[i].tokens {
					t.Errorf("%d ghosts, want at most %d", n, c.shards[i].tokens)
				}
			}
		})
	}
}

// TestDefaultCacheHoldsTenThousandTokens uses tokens of 1.2 KiB with the usual claims.
func TestDefaultCacheHoldsTenThousandTokens(t *testing.T) {
	c := newTokenCache(CacheLimits{})
	all := make([]*verified, 10_000)
	for i := range all {
		all[i] = entry(c, fmt.Sprint(i), 1200)
		all[i].size += 1500
		c.put(all[i])
	}
	missing := 0
	for _, e := range all {
		if !c.holds(e) {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d tokens are missing", missing, len(all))
	}
}

// TestOneOffTokensDoNotFlushTheCache checks that tokens in use stay cached while a million
// others are used once.
func TestOneOffTokensDoNotFlushTheCache(t *testing.T) {
	c := newTokenCache(CacheLimits{Tokens: 8000})
	regulars := make([]*verified, 4000)
	for i := range regulars {
		regulars[i] = entry(c, fmt.Sprint("regular-", i), 0)
		c.put(regulars[i])
	}
	lost := 0
	for round := range 20 {
		for i, e := range regulars {
			if !c.holds(e) {
				lost++
				c.put(entry(c, fmt.Sprint("regular-", i), 0))
			}
		}
		for i := range 5000 {
			c.put(entry(c, fmt.Sprint("one-off-", round, "-", i), 0))
		}
	}
	if lost > len(regulars)/100 {
		t.Errorf("regular tokens were lost %d times", lost)
	}
}

// TestCacheComparesTheWholeToken: an equal hash must not be enough.
func TestCacheComparesTheWholeToken(t *testing.T) {
	c := newTokenCache(CacheLimits{})
	e := entry(c, "token", 100)
	c.put(e)
	for i := range e.raw {
		other := []byte(e.raw)
		other[i] ^= 1
		if c.get(e.issuer, e.hash, string(other)) != nil {
			t.Fatalf("a token that differs at %d was found", i)
		}
	}
	if c.get(e.issuer, e.hash, e.raw[:99]) != nil || c.get(e.issuer, e.hash, e.raw+"x") != nil || c.get(e.issuer+1, e.hash, e.raw) != nil {
		t.Error("another token or issuer was found")
	}
	if !c.holds(e) {
		t.Error("the token itself was not found")
	}
}

// TestCacheUnderRace is for the race detector.
func TestCacheUnderRace(t *testing.T) {
	c := newTokenCache(CacheLimits{Tokens: 64})
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 2000 {
				e := entry(c, fmt.Sprint(i%100), 0)
				if c.get(e.issuer, e.hash, e.raw) == nil {
					c.put(e)
				}
				switch {
				case i%50 == w:
					c.drop(e)
				case i%500 == w:
					c.sweep(0)
				}
			}
		})
	}
	all.Wait()
}

// TestCachedTokenAllocatesNothing covers the path of nearly every request.
func TestCachedTokenAllocatesNothing(t *testing.T) {
	f := newForge(t)
	h := head("Bearer " + f.rsa.Token(f.good()))
	h.Query, h.HasQuery = "a=b&c=d", true
	r := from(client, h)
	ask := func() {
		if _, err := f.chain.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if n := testing.AllocsPerRun(1000, ask); n != 0 {
		t.Errorf("%v allocations for a cached token, want 0", n)
	}
}

// TestCachedTokensKeepTheirCallers checks that the second use of each of many tokens comes
// from the cache and names the right caller.
func TestCachedTokensKeepTheirCallers(t *testing.T) {
	clock := authtest.NewClock()
	ed := authtest.NewKey("ed", "EdDSA", authtest.Ed25519())
	p := newProvider(t, ed.JWK())
	a, chain := newAuth(t, clock, p.config())
	tokens := make([]string, 500)
	for i := range tokens {
		tokens[i] = ed.Token(p.claims(clock.Now(), map[string]any{"sub": fmt.Sprint("caller-", i)}))
	}
	for range 2 {
		for i, token := range tokens {
			if got, err := ask(chain, token); err != nil || got.Name != fmt.Sprint("caller-", i) {
				t.Fatalf("token %d: got %q, %v", i, got.Name, err)
			}
		}
	}
	if st := a.memory.CacheStatus(); st.Admitted != 500 || st.Hits != 500 {
		t.Errorf("%+v, want 500 admitted and 500 hits", st)
	}
	clock.Add(2 * time.Hour)
	a.memory.tokens.sweep(clock.Now().Unix())
	if st := a.memory.CacheStatus(); st.Tokens != 0 {
		t.Errorf("%d expired tokens are kept", st.Tokens)
	}
}
