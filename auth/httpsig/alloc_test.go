//go:build !race

package httpsig_test

import (
	"testing"

	"sallyport/auth/httpsig"
)

// TestAllocations bounds allocations: two for a verification, two for a signature, none
// for parsing and comparing a digest, and one for making a digest. It does not run with
// the race detector, which drops items of pools at random.
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
	content := []byte(body)
	compared := testing.AllocsPerRun(200, func() {
		d, err := httpsig.ParseContentDigest(m.Fields)
		if err == nil {
			err = d.Match(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	made := testing.AllocsPerRun(200, func() { _ = httpsig.ContentDigest(content) })
	if verify > 2 || signed > 2 {
		t.Errorf("%v allocations to verify and %v to sign; want at most 2 each", verify, signed)
	}
	if compared > 0 || made > 1 {
		t.Errorf("%v allocations to compare a digest and %v to make one; want none and one", compared, made)
	}
}
