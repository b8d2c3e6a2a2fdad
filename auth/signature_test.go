package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
)

// TestSignaturesAsGoOIDC: every algorithm with every kind of key, true signatures and
// spoilt ones, and the verdict is that of go-oidc's own keys.
func TestSignaturesAsGoOIDC(t *testing.T) {
	signers := []struct {
		key  crypto.Signer
		algs []string
	}{
		{rsaOne(), []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
		{rsaTwo(), []string{"RS256", "PS256"}},
		{newEC(elliptic.P256()), []string{"ES256"}},
		{newEC(elliptic.P256()), []string{"ES256"}},
		{newEC(elliptic.P384()), []string{"ES384"}},
		{newEC(elliptic.P521()), []string{"ES512"}},
		{newEd(), []string{"EdDSA"}},
		{newEd(), []string{"EdDSA"}},
	}
	held, refused := 0, 0
	for i, signer := range signers {
		for _, made := range signer.algs {
			for _, said := range algorithms {
				text := b64([]byte(`{"alg":"`+said+`"}`)) + "." + b64([]byte(`{"exp":1}`))
				true1 := sign(made, signer.key, text)
				for _, signature := range spoilt(true1) {
					for j, holder := range signers {
						raw := text + "." + b64(signature)
						tok := new(token)
						if err := tok.parse(raw); err != nil {
							t.Fatal(err)
						}
						k := &key{public: holder.key.Public()}
						keys := oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{k.public}}
						_, err := keys.VerifySignature(t.Context(), raw)
						ours := checkSignature(t.Context(), raw, tok, k) == nil
						if ours != (err == nil) {
							t.Fatalf("signed as %s, said to be %s, key %T: we say %v, go-oidc %v", made, said, k.public, ours, err)
						}
						if ours != (made == said && i == j && slices.Equal(signature, true1)) {
							t.Fatalf("signed as %s, said to be %s, key %T, true signature %v: %v", made, said, k.public, slices.Equal(signature, true1), ours)
						}
						if ours {
							held++
						} else {
							refused++
						}
					}
				}
			}
		}
	}
	if held != 14 || refused == 0 {
		t.Errorf("%d held and %d did not", held, refused)
	}
}

// spoilt is a signature and what is none: changed, cut short, longer, of zeros.
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
	text := b64([]byte(`{"alg":"PS256"}`)) + "." + b64([]byte(`{"exp":1}`))
	h := crypto.SHA256.New()
	h.Write([]byte(text))
	for salt, want := range map[int]bool{32: true, 0: false, 20: false, 64: false} {
		signature, err := rsa.SignPSS(rand.Reader, rsaOne(), crypto.SHA256, h.Sum(nil), &rsa.PSSOptions{SaltLength: max(salt, 1)})
		if salt == 0 {
			signature, err = rsa.SignPSS(rand.Reader, rsaOne(), crypto.SHA256, h.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto})
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := (&key{public: rsaOne().Public()}).verify("PS256", []byte(text), signature, new([64]byte)); got != want {
			t.Errorf("salt of %d bytes (0: as long as fits): %v", salt, got)
		}
	}
}

// TestSignatureOfWhatWasRead: the key set of one check answers for no other token.
func TestSignatureOfWhatWasRead(t *testing.T) {
	k := ecPair("k")
	raw := k.token(`{"exp":1}`)
	tok := new(token)
	if err := tok.parse(raw); err != nil {
		t.Fatal(err)
	}
	set := &oneKey{raw, tok, &key{public: k.private.(*ecdsa.PrivateKey).Public()}}
	if payload, err := set.VerifySignature(t.Context(), raw); err != nil || string(payload) != "{}" {
		t.Errorf("the token itself: %q, %v", payload, err)
	}
	if _, err := set.VerifySignature(t.Context(), k.token(`{"exp":2}`)); err == nil {
		t.Error("another token of the same key was taken for it")
	}
	if _, err := set.VerifySignature(t.Context(), strings.TrimRight(raw, "=")+"."); err == nil {
		t.Error("a longer text was taken for it")
	}
}

// TestTokensOutliveTheirMemory: what was learned of a token stays when the memory that
// it was read in serves another.
func TestTokensOutliveTheirMemory(t *testing.T) {
	k := ecPair("k")
	one, two := new(token), k.token(`{"iss":"other","sub":"mallory","aud":["x","y","z"],"exp":9,"scope":"all of it","realm":{"roles":["admin","root","wheel"]}}`)
	if err := one.parse(k.token(`{"iss":"a","sub":"alice","aud":["m","n"],"exp":7,"scope":"p q","realm":{"roles":["user"]}}`)); err != nil {
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

// TestHeadersAreReadAnew: a header is taken for the last one only if it is that to the
// byte, and one that was refused is refused again.
func TestHeadersAreReadAnew(t *testing.T) {
	tok := new(token)
	parse := func(header string) string {
		if err := tok.parse(b64([]byte(header)) + "." + b64([]byte(`{"exp":1}`)) + ".AA"); err != nil {
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
