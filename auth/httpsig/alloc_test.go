//go:build !race

package httpsig_test

import (
	"testing"

	"sallyport/auth/httpsig"
)

// Allocations are gates: two for a verification, two for a signature. The race
// detector makes pools forget at random, and so has its own.
func TestAllocations(t *testing.T) {
	key := secretKey(t, "k1")
	m := sign(t, httpsig.RequestProfile(), key, request(), "")
	v := verifier(t, httpsig.RequestPolicy(), key)
	verify := testing.AllocsPerRun(200, func() {
		if _, err := v.Verify(m); err != nil {
			t.Fatal(err)
		}
	})
	s, unsigned := signer(t, httpsig.RequestProfile()), request()
	signed := testing.AllocsPerRun(200, func() {
		if _, err := s.Sign(key, unsigned, ""); err != nil {
			t.Fatal(err)
		}
	})
	if verify > 2 || signed > 2 {
		t.Errorf("%v allocations to verify and %v to sign; want at most 2 each", verify, signed)
	}
}
