//go:build !race

package clientcert

import (
	"crypto/x509"
	"math/big"
	"testing"

	"sallyport/auth/authtest"
)

// TestVerifiedChainAllocatesNothing bounds the allocations for a chain that is verified already.
func TestVerifiedChainAllocatesNothing(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	sub := root.CA("sub", nil)
	trust := trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, root.Revoke(clock.Now(), nil), sub.Revoke(clock.Now(), nil)) }, root, sub)
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
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	sub := root.CA("sub", nil)
	trust := trusting(b, clock, nil, root)
	chain := authtest.ChainOf(sub.Client("alice", nil), sub)
	for b.Loop() {
		if _, err := trust.Verify(chain); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLongListTakesLittleMemory bounds what a list keeps: eight bytes for each certificate, and room
// to grow. crypto/x509 would keep about 300.
func TestLongListTakesLittleMemory(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	const n = 50_000
	text := root.Revoke(clock.Now(), func(l *x509.RevocationList) {
		for i := range n {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i) + 1), RevocationTime: clock.Now()})
		}
	})
	l, err := readList(text, []*x509.Certificate{root.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.revoked) != n || cap(l.revoked) > 2*n {
		t.Errorf("%d certificates in room for %d", len(l.revoked), cap(l.revoked))
	}
	for _, serial := range []int64{1, n / 2, n} {
		if !l.has(big.NewInt(serial)) {
			t.Errorf("%d is not found", serial)
		}
	}
	if l.has(big.NewInt(n + 1)) {
		t.Error("a certificate is found that is not in the list")
	}
}
