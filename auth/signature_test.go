package auth

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"sallyport/auth/authtest"
)

// TestSignaturesAgreeWithGoOIDC tries every algorithm with every type of key, with valid and
// spoilt signatures: verify accepts exactly those that go-oidc accepts.
func TestSignaturesAgreeWithGoOIDC(t *testing.T) {
	signers := []struct {
		key  crypto.Signer
		algs []string
	}{
		{authtest.RSA(), []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
		{authtest.OtherRSA(), []string{"RS256", "PS256"}},
		{authtest.EC(elliptic.P256()), []string{"ES256"}},
		{authtest.EC(elliptic.P256()), []string{"ES256"}},
		{authtest.EC(elliptic.P384()), []string{"ES384"}},
		{authtest.EC(elliptic.P521()), []string{"ES512"}},
		{authtest.Ed25519(), []string{"EdDSA"}},
		{authtest.Ed25519(), []string{"EdDSA"}},
	}
	verified, refused := 0, 0
	for i, signer := range signers {
		for _, made := range signer.algs {
			for _, said := range algorithms {
				text := authtest.Base64([]byte(`{"alg":"`+said+`"}`)) + "." + authtest.Base64([]byte(`{"exp":1}`))
				true1 := authtest.Signature(made, signer.key, text)
				for _, signature := range spoilt(true1) {
					for j, holder := range signers {
						raw := text + "." + authtest.Base64(signature)
						tok := new(token)
						if err := tok.parse(raw); err != nil {
							t.Fatal(err)
						}
						k := publicKey(t, holder.key.Public())
						keys := oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{holder.key.Public()}}
						_, err := keys.VerifySignature(t.Context(), raw)
						ours := k.verify(tok.alg, tok.signed, tok.signature, &tok.digest)
						if ours != (err == nil) {
							t.Fatalf("signed as %s, said to be %s, key %T: we say %v, go-oidc %v", made, said, k.public, ours, err)
						}
						if ours != (made == said && i == j && slices.Equal(signature, true1)) {
							t.Fatalf("signed as %s, said to be %s, key %T, true signature %v: %v", made, said, k.public, slices.Equal(signature, true1), ours)
						}
						if ours {
							verified++
						} else {
							refused++
						}
					}
				}
			}
		}
	}
	if verified != 14 || refused == 0 {
		t.Errorf("%d verified, %d refused; want 14 verified", verified, refused)
	}
}

// publicKey returns a key like readKey, but without id, thumbprint and algorithms.
func publicKey(t *testing.T, public crypto.PublicKey) *key {
	t.Helper()
	if r, ok := public.(*rsa.PublicKey); ok {
		prepared, err := newRSAKey(r)
		if err != nil {
			t.Fatal(err)
		}
		public = prepared
	}
	return &key{public: public}
}

// spoilt returns a signature and invalid variants: changed, truncated, longer, zeros.
func spoilt(signature []byte) [][]byte {
	first, last := slices.Clone(signature), slices.Clone(signature)
	first[0] ^= 1
	last[len(last)-1] ^= 1
	half := len(signature) / 2
	return [][]byte{
		signature, first, last, signature[1:], signature[:len(signature)-1],
		append([]byte{0}, signature...), append(slices.Clone(signature), 0),
		slices.Concat(signature[half:], signature[:half]), make([]byte, len(signature)), {0},
	}
}

// TestSaltIsAsLongAsTheHash: RFC 7518, section 3.5, leaves no choice, though RSA-PSS does.
func TestSaltIsAsLongAsTheHash(t *testing.T) {
	text := authtest.Base64([]byte(`{"alg":"PS256"}`)) + "." + authtest.Base64([]byte(`{"exp":1}`))
	h := crypto.SHA256.New()
	h.Write([]byte(text))
	for salt, want := range map[int]bool{32: true, 0: false, 20: false, 64: false} {
		signature, err := rsa.SignPSS(rand.Reader, authtest.RSA(), crypto.SHA256, h.Sum(nil), &rsa.PSSOptions{SaltLength: max(salt, 1)})
		if salt == 0 {
			signature, err = rsa.SignPSS(rand.Reader, authtest.RSA(), crypto.SHA256, h.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto})
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := publicKey(t, authtest.RSA().Public()).verify("PS256", []byte(text), signature, new([64]byte)); got != want {
			t.Errorf("salt of %d bytes (0: as long as fits): %v", salt, got)
		}
	}
}

// TestSignatureCoversTheTextThatWasRead checks that the header and claims of this token
// are verified, even in buffers that contained another token before.
func TestSignatureCoversTheTextThatWasRead(t *testing.T) {
	k := ecPair("k")
	public := publicKey(t, k.Private.Public())
	one, two := strings.Split(k.Token(`{"exp":1}`), "."), strings.Split(k.Token(`{"exp":2,"sub":"alice"}`), ".")
	tok := new(token)
	for _, c := range []struct {
		segments []string
		want     bool
	}{
		{one, true}, {two, true}, {one, true},
		{[]string{one[0], one[1], two[2]}, false}, {[]string{one[0], two[1], one[2]}, false},
		{[]string{authtest.Base64([]byte(`{"alg":"ES256"}`)), one[1], one[2]}, false},
	} {
		raw := strings.Join(c.segments, ".")
		if err := tok.parse(raw); err != nil {
			t.Fatal(err)
		}
		if got := string(tok.signed); got != c.segments[0]+"."+c.segments[1] {
			t.Errorf("the signature of %s was taken to be over %s", raw, got)
		}
		if got := public.verify(tok.alg, tok.signed, tok.signature, &tok.digest); got != c.want {
			t.Errorf("%s: verified %v, want %v", raw, got, c.want)
		}
	}
}

// TestResultsSurviveReuseOfBuffers checks that the claims of a token do not change when
// its buffers are reused for another.
func TestResultsSurviveReuseOfBuffers(t *testing.T) {
	k := ecPair("k")
	one, two := new(token), k.Token(`{"iss":"other","sub":"mallory","aud":["x","y","z"],"exp":9,"scope":"all of it","realm":{"roles":["admin","root","wheel"]}}`)
	if err := one.parse(k.Token(`{"iss":"a","sub":"alice","aud":["m","n"],"exp":7,"scope":"p q","realm":{"roles":["user"]}}`)); err != nil {
		t.Fatal(err)
	}
	registered, claims := one.registered, one.claims
	one.release()
	for range 3 { // of those that the pool has, one was the first
		other := tokenPool.Get().(*token)
		if err := other.parse(two); err != nil {
			t.Fatal(err)
		}
		defer other.release()
	}
	if registered.iss != "a" || registered.sub != "alice" || registered.exp != 7 || !slices.Equal(registered.aud, []string{"m", "n"}) {
		t.Errorf("registered: %+v", registered)
	}
	for path, want := range map[string][]string{"sub": {"alice"}, "aud": {"m", "n"}, "scope": {"p q"}, "realm.roles": {"user"}, "exp": {"7"}} {
		if got := claims.Claim(path); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// TestCachedHeaderNeedsEqualBytes checks that a parsed header is reused only for the same
// bytes, and that a refused header is refused again.
func TestCachedHeaderNeedsEqualBytes(t *testing.T) {
	tok := new(token)
	parse := func(header string) string {
		if err := tok.parse(authtest.Base64([]byte(header)) + "." + authtest.Base64([]byte(`{"exp":1}`)) + ".AA"); err != nil {
			return "refused"
		}
		return tok.alg + " " + tok.kid + " " + tok.typ
	}
	long := strings.Repeat("k", 500)
	for range 2 {
		for _, tt := range [][2]string{
			{`{"alg":"ES256","kid":"one","typ":"JWT"}`, "ES256 one JWT"},
			{`{"alg":"ES256","kid":"one","typ":"JWT"}`, "ES256 one JWT"},
			{`{"alg":"ES256"}`, "ES256  "},
			{`{"alg":"ES256","crit":["x"]}`, "refused"},
			{`{"alg":"ES256","crit":["x"]}`, "refused"},
			{`{"alg":"RS256","kid":"` + long + `","x":"` + long + `"}`, "RS256 " + long + " "},
			{`{"kid":"one"}`, "refused"},
		} {
			if got := parse(tt[0]); got != tt[1] {
				t.Errorf("%s: %s, want %s", tt[0], got, tt[1])
			}
		}
		if tok.parse(".e30.AA") == nil {
			t.Error("an empty header is taken")
		}
	}
}
