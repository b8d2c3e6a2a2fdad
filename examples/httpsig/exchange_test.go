package interop_test

import (
	"crypto/ed25519"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
)

// All that is signed here lives for an hour, so that no test depends on how long
// it takes.
const lifetime = time.Hour

// secret is of 64 bytes: yaronf takes no shorter ones.
var (
	secret  = []byte(strings.Repeat("sixteen bytes ..", 4))
	private = ed25519.NewKeyFromSeed(secret[:ed25519.SeedSize])
)

func key(t testing.TB, s *sample) *httpsig.Key {
	t.Helper()
	k, err := httpsig.HMACKey("k", secret)
	if s.ed25519 {
		k, err = httpsig.Ed25519Key("k", private)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signed is the sample with a signature of ours. It is nil if there is no value
// for a component: then others must not sign it either.
func signed(t testing.TB, s *sample) *sample {
	t.Helper()
	signer, err := httpsig.NewSigner(httpsig.Profile{Tag: tag, Label: "sig", Cover: names(s.cover), Lifetime: lifetime, Nonce: true, Alg: s.alg}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := signer.Sign(key(t, s), s.message(), "")
	if err != nil {
		return nil
	}
	return s.attach(made.Input, made.Signature)
}

// verified reports whether ours takes a signature, with all covered that should be.
func verified(t testing.TB, s *sample) error {
	t.Helper()
	k := key(t, s)
	v, err := httpsig.NewVerifier(
		httpsig.Policy{Tag: tag, Require: names(s.cover), MaxAge: lifetime, Skew: time.Minute, Algorithms: []httpsig.Algorithm{k.Algorithm()}},
		httpsig.VerifierOptions{Key: func(string) *httpsig.Key { return k }, Authority: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(s.message())
	return err
}

// peer is another library. cannot says by which of its known differences it reads
// or writes a component of a sample in another way, or "".
type peer struct {
	name   string
	cannot func(s *sample, c covered) string
	sign   func(t testing.TB, s *sample) (*sample, error)
	verify func(t testing.TB, s *sample) error
}

// exchange has a sample signed by each side and verified by the other, and what
// was changed on the way refused by all. Components that a peer is known to take
// for another are left out. It returns what was covered.
func exchange(t *testing.T, p peer, all *sample) []covered {
	s := all.clone()
	s.cover = slices.DeleteFunc(slices.Clone(s.cover), func(c covered) bool { return p.cannot(s, c) != "" })
	if len(s.cover) == 0 {
		return nil
	}
	ours := signed(t, s)
	theirs, err := p.sign(t, s)
	if ours == nil || err != nil {
		if (ours == nil) != (err != nil) {
			t.Errorf("%+v: ours signs it: %v; %s: %v", s, ours != nil, p.name, err)
		}
		return nil
	}
	for by, message := range map[string]*sample{"ours": ours, p.name: theirs} {
		if err := verified(t, message); err != nil {
			t.Errorf("signed by %s: ours says %v\n%+v", by, err, message)
		}
		if err := p.verify(t, message); err != nil {
			t.Errorf("signed by %s: %s says %v\n%+v", by, p.name, err, message)
		}
		for _, c := range s.cover {
			changed := message.changed(c)
			if verified(t, changed) == nil {
				t.Errorf("signed by %s, another %s: ours does not see it\n%+v", by, c, changed)
			}
			if p.verify(t, changed) == nil {
				t.Errorf("signed by %s, another %s: %s does not see it\n%+v", by, c, p.name, changed)
			}
		}
	}
	return s.cover
}

// What one side signs the other verifies, for many messages, the same each time.
func TestExchange(t *testing.T) {
	for _, p := range []peer{dadrus(), yaronf()} {
		t.Run(p.name, func(t *testing.T) {
			r, done, covered := rand.New(rand.NewPCG(9421, 9530)), 0, make(map[string]int)
			for range 1500 {
				data := make([]byte, 64)
				for i := range data {
					data[i] = byte(r.Uint32())
				}
				s := made(&choices{data})
				cover := exchange(t, p, s)
				done += min(1, len(cover))
				for _, c := range cover {
					c.key, c.param = "", ""
					covered[c.String()]++
				}
				if t.Failed() {
					return
				}
			}
			t.Logf("%d messages, both ways: %v", done, covered)
			if done < 500 || len(covered) < 25 {
				t.Errorf("only %d messages, with %d kinds of components", done, len(covered))
			}
		})
	}
}

func FuzzExchange(f *testing.F) {
	for _, data := range [][]byte{nil, {1, 1, 4, 0, 1, 4, 5}, {4, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 0, 1, 7, 9, 20, 30, 12, 14}} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := made(&choices{data})
		exchange(t, dadrus(), s)
		exchange(t, yaronf(), s)
	})
}
