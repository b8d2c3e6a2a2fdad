package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
	"sallyport/proxy/setting"
)

// secretOf is a secret of the tests, by a name.
func secretOf(name string) []byte {
	sum := sha512.Sum512([]byte("secret of " + name))
	return sum[:]
}

func literal(b []byte) setting.Secret {
	return setting.Literal([]byte(base64.StdEncoding.EncodeToString(b)))
}

func pemOf(t testing.TB, kind string, key any) []byte {
	t.Helper()
	var der []byte
	var err error
	switch kind {
	case "PUBLIC KEY":
		der, err = x509.MarshalPKIXPublicKey(key)
	case "PRIVATE KEY":
		der, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeFile(t testing.TB, content []byte) setting.Path {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return setting.Path(name)
}

func TestReadSigningKeys(t *testing.T) {
	private := authtest.Ed25519()
	all := map[string]SigningKeyConfig{
		"secret":  {Principal: "acme", Secret: literal(secretOf("a"))},
		"least":   {Principal: "acme", Secret: literal(secretOf("b")[:32])},
		"newline": {Principal: "acme", Secret: setting.Literal([]byte(" " + base64.StdEncoding.EncodeToString(secretOf("c")) + " \r\n"))},
		"public":  {Principal: "orbit", PublicKey: writeFile(t, pemOf(t, "PUBLIC KEY", authtest.Ed25519().Public()))},
		"private": {PrivateKey: setting.Literal(pemOf(t, "PRIVATE KEY", private)), Use: setting.List[string]{SignResponse}},
	}
	keys, err := ReadSigningKeys(all)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for id, want := range map[string]struct {
		algorithm httpsig.Algorithm
		uses      []string
		principal string
		published bool
	}{
		"secret":  {httpsig.HMACSHA256, []string{VerifyRequest, SignResponse}, "key:acme", false},
		"least":   {httpsig.HMACSHA256, []string{VerifyRequest, SignResponse}, "key:acme", false},
		"newline": {httpsig.HMACSHA256, []string{VerifyRequest, SignResponse}, "key:acme", false},
		"public":  {httpsig.Ed25519, []string{VerifyRequest}, "key:orbit", false},
		"private": {httpsig.Ed25519, []string{SignResponse}, "", true},
	} {
		k := keys[id]
		var uses []string
		for _, use := range append(keyUses(), "", "sign") {
			if got := k.For(use, now); got != nil {
				uses = append(uses, use)
				if got.ID() != id || got.Algorithm() != want.algorithm {
					t.Errorf("%s: got %s", id, got)
				}
			}
		}
		if !slices.Equal(uses, want.uses) || k.principal.String() != want.principal || (k.Public() != nil) != want.published {
			t.Errorf("%s: for %v, of %q, public %v", id, uses, k.principal.String(), k.Public() != nil)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			shown := fmt.Sprintf(verb, k)
			if strings.Contains(shown, string(secretOf("a")[:8])) || strings.Contains(shown, fmt.Sprintf("%x", secretOf("a")[:8])) || strings.Contains(shown, fmt.Sprintf("%x", private.Seed()[:8])) {
				t.Errorf("%s: %s shows what it holds", id, verb)
			}
		}
	}
	if !bytes.Equal(keys["private"].Public(), private.Public().(ed25519.PublicKey)) {
		t.Error("the public half is another")
	}
}

// TestSigningKeysThatOthersWriteAreRefused: whoever can replace a key, even a public one, decides
// whose signatures verify.
func TestSigningKeysThatOthersWriteAreRefused(t *testing.T) {
	public := writeFile(t, pemOf(t, "PUBLIC KEY", authtest.Ed25519().Public()))
	for mode, refused := range map[os.FileMode]bool{0o644: false, 0o600: false, 0o660: true, 0o602: true, 0o664: true} {
		if err := os.Chmod(string(public), mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSigningKeys(map[string]SigningKeyConfig{"orbit": {Principal: "orbit", PublicKey: public}})
		if refused && (err == nil || !strings.Contains(err.Error(), "chmod go-w "+string(public))) || !refused && err != nil {
			t.Errorf("%v: got %v", mode, err)
		}
	}
}

// TestSigningKeyValidityExcludesItsEnd: not_before is inclusive, not_after exclusive.
func TestSigningKeyValidityExcludesItsEnd(t *testing.T) {
	from, to := time.Unix(1_800_000_000, 0), time.Unix(1_800_000_100, 0)
	at := func(s int64) time.Time { return time.Unix(1_800_000_000+s, 0) }
	for _, c := range []struct {
		from, to time.Time
		at       int64
		counts   bool
	}{
		{from, to, -1, false}, {from, to, 0, true}, {from, to, 99, true}, {from, to, 100, false}, {from, to, 101, false},
		{time.Time{}, to, -1e9, true}, {time.Time{}, to, 100, false}, {from, time.Time{}, 1e9, true}, {from, time.Time{}, -1, false}, {time.Time{}, time.Time{}, 0, true},
	} {
		keys, err := ReadSigningKeys(map[string]SigningKeyConfig{"k": {Principal: "acme", Secret: literal(secretOf("a")), NotBefore: setting.Time{Time: c.from}, NotAfter: setting.Time{Time: c.to}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := keys["k"].For(VerifyRequest, at(c.at)) != nil; got != c.counts {
			t.Errorf("from %v to %v, at %v: counts %v", c.from, c.to, at(c.at), got)
		}
		if got := keys["k"].principal.Expires; !got.Equal(c.to) {
			t.Errorf("what the key proves ends %v; want %v", got, c.to)
		}
	}
	var none *SigningKey
	if none.For(VerifyRequest, from) != nil {
		t.Error("no key is for something")
	}
}

func TestUnreadableSigningKeysAreReported(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(secretOf("a"))
	secret := func(text string) SigningKeyConfig {
		return SigningKeyConfig{Principal: "acme", Secret: setting.Literal([]byte(text))}
	}
	public := func(content []byte) SigningKeyConfig {
		return SigningKeyConfig{Principal: "acme", PublicKey: writeFile(t, content)}
	}
	private := func(content []byte) SigningKeyConfig {
		return SigningKeyConfig{PrivateKey: setting.Literal(content), Use: setting.List[string]{SignResponse}}
	}
	ed, ec := authtest.Ed25519(), authtest.EC(elliptic.P256())
	for name, c := range map[string]SigningKeyConfig{
		"31 bytes":                         secret(base64.StdEncoding.EncodeToString(secretOf("a")[:31])),
		"no bytes":                         secret("\n"),
		"base64url":                        secret(base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff, 0xfe}, 32))),
		"without padding":                  secret(strings.TrimRight(good, "=")),
		"bits that stand for nothing":      secret(good[:len(good)-3] + "B=="),
		"hexadecimal":                      secret(fmt.Sprintf("%x!", secretOf("a"))),
		"two lines":                        secret(good[:40] + "\n" + good[40:] + "\nx"),
		"no file":                          {Principal: "acme", PublicKey: setting.Path(filepath.Join(t.TempDir(), "none"))},
		"no PEM":                           public([]byte("x")),
		"a private key in place of public": public(pemOf(t, "PRIVATE KEY", ed)),
		"an elliptic public key":           public(pemOf(t, "PUBLIC KEY", ec.Public())),
		"an RSA public key":                public(pemOf(t, "PUBLIC KEY", authtest.RSA().Public())),
		"a public key under another name":  public(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})),
		"a public key in place of private": private(pemOf(t, "PUBLIC KEY", ed.Public())),
		"an elliptic private key":          private(pemOf(t, "PRIVATE KEY", ec)),
		"no private PEM":                   private([]byte("x")),
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := ReadSigningKeys(map[string]SigningKeyConfig{"k": c, "other": {Principal: "orbit", Secret: literal(secretOf("other"))}})
			var broken *KeyError
			if !errors.As(err, &broken) || broken.ID != "k" || keys["k"] != nil {
				t.Fatalf("got %v, %v", keys["k"], err)
			}
			if keys["other"] == nil {
				t.Error("the other key is lost")
			}
			for _, part := range []string{good[:12], fmt.Sprintf("%x", secretOf("a")[:6])} {
				if strings.Contains(err.Error(), part) {
					t.Errorf("the error shows the secret: %v", err)
				}
			}
		})
	}
}

// TestSharedSecretIsRefused checks that two principals, or a client and an upstream,
// cannot have the same secret: each could sign for the other.
func TestSharedSecretIsRefused(t *testing.T) {
	same, file := literal(secretOf("a")), writeFile(t, pemOf(t, "PUBLIC KEY", authtest.Ed25519().Public()))
	key := func(principal string, use ...string) SigningKeyConfig {
		return SigningKeyConfig{Principal: principal, Secret: same, Use: use}
	}
	for name, c := range map[string]struct {
		keys map[string]SigningKeyConfig
		bad  string // the ids that are refused
	}{
		"two principals":           {map[string]SigningKeyConfig{"a": key("acme"), "b": key("orbit")}, "b"},
		"two ids of one principal": {map[string]SigningKeyConfig{"a": key("acme"), "b": key("acme")}, ""},
		"two uses":                 {map[string]SigningKeyConfig{"a": key("acme"), "b": key("acme", SignResponse)}, "b"},
		"two legs":                 {map[string]SigningKeyConfig{"a": key("", SignRequest), "b": key("acme")}, "b"},
		"both ways of one leg":     {map[string]SigningKeyConfig{"a": key("", SignRequest), "b": key("", VerifyResponse)}, "b"},
		"three, two of them alike": {map[string]SigningKeyConfig{"a": key("acme"), "b": key("orbit"), "c": key("orbit")}, "b c"},
		"three, the last right":    {map[string]SigningKeyConfig{"a": key("acme"), "b": key("orbit"), "c": key("acme")}, "b"},
		"four of as many":          {map[string]SigningKeyConfig{"a": key("a"), "b": key("b"), "c": key("c"), "d": key("d")}, "b c d"},
		"public keys":              {map[string]SigningKeyConfig{"a": {Principal: "acme", PublicKey: file}, "b": {Principal: "orbit", PublicKey: file}}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := ReadSigningKeys(c.keys)
			var bad []string
			for id := range c.keys {
				if keys[id] == nil {
					bad = append(bad, id)
				}
			}
			slices.Sort(bad)
			if got := strings.Join(bad, " "); got != c.bad || (err != nil) != (c.bad != "") {
				t.Errorf("refused are %q, want %q (%v)", got, c.bad, err)
			}
		})
	}
}
