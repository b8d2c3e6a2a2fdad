//go:build !race

package clientcert

import (
	"testing"

	"sallyport/auth/authtest"
)

// TestVerifiedChainAllocatesNothing bounds the allocations for a chain that is verified already.
func TestVerifiedChainAllocatesNothing(t *testing.T) {
	clock := newClock()
	root := authtest.NewCA("root", clock.now(), nil)
	sub := root.CA("sub", nil)
	trust := trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, root.Revoke(clock.now(), nil), sub.Revoke(clock.now(), nil)) }, root, sub)
	chain := authtest.ChainOf(sub.Client("alice", nil), sub)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := trust.Verify(chain); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkVerified(b *testing.B) {
	clock := newClock()
	root := authtest.NewCA("root", clock.now(), nil)
	sub := root.CA("sub", nil)
	trust := trusting(b, clock, nil, root)
	chain := authtest.ChainOf(sub.Client("alice", nil), sub)
	for b.Loop() {
		if _, err := trust.Verify(chain); err != nil {
			b.Fatal(err)
		}
	}
}
