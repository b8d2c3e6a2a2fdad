package httpsig_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"sallyport/auth/httpsig"
)

func hmacOf(t *testing.T, id string, fill byte) *httpsig.Key {
	t.Helper()
	k, err := httpsig.HMACKey(id, bytes.Repeat([]byte{fill}, 64))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ed25519Of(t *testing.T, id string, fill byte) (private, public *httpsig.Key) {
	t.Helper()
	p := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{fill}, ed25519.SeedSize))
	private, err := httpsig.Ed25519Key(id, p)
	if err != nil {
		t.Fatal(err)
	}
	if public, err = httpsig.Ed25519PublicKey(id, p.Public().(ed25519.PublicKey)); err != nil {
		t.Fatal(err)
	}
	return private, public
}

// TestKeysAreEqualIfTheyVerifyTheSame compares id, algorithm and material, whether or not a
// key can sign.
func TestKeysAreEqualIfTheyVerifyTheSame(t *testing.T) {
	private, public := ed25519Of(t, "a", 1)
	otherPrivate, otherPublic := ed25519Of(t, "a", 2)
	renamed, _ := ed25519Of(t, "b", 1)
	groups := [][]*httpsig.Key{
		{hmacOf(t, "a", 1), hmacOf(t, "a", 1)}, {hmacOf(t, "a", 2)}, {hmacOf(t, "b", 1)},
		{private, public}, {otherPrivate, otherPublic}, {renamed},
	}
	for i, one := range groups {
		for j, other := range groups {
			for _, k := range one {
				for _, o := range other {
					if k.Equal(o) != (i == j) {
						t.Errorf("groups %d and %d: equal %v", i, j, k.Equal(o))
					}
				}
			}
		}
	}
}

// TestRecheckIgnoresTimeAndNothingElse: a signature that was fresh stays good under a
// policy that it satisfies, and under no other.
func TestRecheckIgnoresTimeAndNothingElse(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	clock := func() time.Time { return now }
	key := hmacOf(t, "a", 1)
	signer, err := httpsig.NewSigner(httpsig.RequestProfile(), clock)
	if err != nil {
		t.Fatal(err)
	}
	fields := httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest(nil)}, {Name: "x-tenant", Value: "a"}}
	m := &httpsig.Message{Method: "GET", Scheme: "https", Authority: "models.test", Path: "/", Fields: &fields}
	made, err := signer.Sign(key, m, "")
	if err != nil {
		t.Fatal(err)
	}
	fields = append(fields, httpsig.Line{Name: "signature-input", Value: made.Input}, httpsig.Line{Name: "signature", Value: made.Signature})
	verifier := func(key *httpsig.Key, authority string, change func(*httpsig.Policy)) *httpsig.Verifier {
		p := httpsig.RequestPolicy()
		if change != nil {
			change(&p)
		}
		v, err := httpsig.NewVerifier(p, httpsig.VerifierOptions{Now: clock, Authority: func(a string) bool { return a == authority },
			Key: func(id string) *httpsig.Key {
				if key != nil && key.ID() == id {
					return key
				}
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	signature, err := verifier(key, "models.test", nil).Verify(m)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(24 * time.Hour)
	for name, c := range map[string]struct {
		v    *httpsig.Verifier
		want httpsig.Code
	}{
		"the same":          {verifier(hmacOf(t, "a", 1), "models.test", nil), ""},
		"another secret":    {verifier(hmacOf(t, "a", 2), "models.test", nil), httpsig.BadSignature},
		"no key":            {verifier(nil, "models.test", nil), httpsig.UnknownKey},
		"another authority": {verifier(key, "other.test", nil), httpsig.WrongAuthority},
		"a required field":  {verifier(key, "models.test", func(p *httpsig.Policy) { p.Require = append(p.Require, "x-tenant") }), httpsig.Coverage},
		"a field there":     {verifier(key, "models.test", func(p *httpsig.Policy) { p.IfPresent = append(p.IfPresent, "x-tenant") }), httpsig.Coverage},
		"a field not there": {verifier(key, "models.test", func(p *httpsig.Policy) { p.IfPresent = append(p.IfPresent, "x-other") }), ""},
	} {
		var fault *httpsig.Error
		err := c.v.Recheck(m, signature)
		if (err == nil) != (c.want == "") || err != nil && (!errors.As(err, &fault) || fault.Code != c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := verifier(key, "models.test", nil).Verify(m); err == nil {
		t.Error("the signature is not stale, so the test shows nothing")
	}
}
