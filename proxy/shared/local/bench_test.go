package local

import (
	"context"
	"testing"
	"time"

	"sallyport/proxy/shared"
)

// BenchmarkClaim makes 10000 claims a second under eight keys, with about 0.8 million live.
func BenchmarkClaim(b *testing.B) {
	r, at := steady(b)
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	n := uint64(1 << 40)
	b.ReportAllocs()
	for b.Loop() {
		n++
		*at = at.Add(100 * time.Microsecond)
		if err := r.Claim(context.Background(), keys[n%8], numbered(n), *at, at.Add(maxAge)); err != nil {
			b.Fatal(err)
		}
	}
}

// steady returns a store in steady state.
func steady(b *testing.B) (r *Replay, at *time.Time) {
	b.Helper()
	start := noon
	at = &start
	r, err := started(startConfig{Nonces: 1 << 20, PerKey: 1 << 20, Window: maxAge, Skew: skew, Now: func() time.Time { return *at }})
	if err != nil {
		b.Fatal(err)
	}
	*at = at.Add(2 * skew)
	for n := range uint64(1_200_000) {
		*at = at.Add(100 * time.Microsecond)
		if err := r.Claim(context.Background(), "a", numbered(n), *at, at.Add(maxAge)); err != nil {
			b.Fatal(err)
		}
	}
	return r, at
}

func BenchmarkReplayed(b *testing.B) {
	r, at := steady(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Claim(context.Background(), "a", numbered(1_199_999), *at, at.Add(maxAge)); err != shared.ErrReplayed {
			b.Fatal(err)
		}
	}
}

// BenchmarkClaimParallel claims on all processors, by the system clock.
func BenchmarkClaimParallel(b *testing.B) {
	r, err := started(startConfig{Nonces: 1 << 26, PerKey: 1 << 26, Window: maxAge, Skew: skew})
	if err != nil {
		b.Fatal(err)
	}
	created := time.Now().Add(2 * skew)
	b.ReportAllocs()
	next := make(chan uint64, 1)
	next <- 0
	b.RunParallel(func(pb *testing.PB) {
		n := <-next
		next <- n + 1<<32
		for pb.Next() {
			n++
			if err := r.Claim(context.Background(), "a", numbered(n), created, created.Add(maxAge)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
