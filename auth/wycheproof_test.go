package auth

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"sallyport/auth/authtest"
)

// validVector is Project Wycheproof's verdict on a signature that must be accepted.
const validVector = "valid"

// Why this package refuses signatures that Wycheproof calls valid.
const (
	symmetric = ", accepted are RS256, RS384,"           // HMAC: whoever verifies could sign
	noClaims  = "token claims: empty segment"            // an access token has claims
	otherAlg  = "; none of the issuer's 1 keys matches"  // its key names another alg
	badAlg    = ": no usable key"                        // its key names ES521, which is not registered
	notBase64 = "not canonical base64url"                // characters that some decoders skip
	encrypted = "the token does not have three segments" // JWE
)

// refusedVectors lists the valid vectors that are refused: file, cause, tcIds.
var refusedVectors = map[string]map[string][]int{
	"json_web_signature_test.json": {
		symmetric: {1, 348, 352, 357, 358, 359, 376, 377},
		noClaims:  {259, 264, 268, 272, 320, 325},
		otherAlg:  {346, 350},
		badAlg:    {347, 351},
		notBase64: {372, 373},
	},
	"json_web_key_test.json":    {symmetric: {2, 13, 14, 15}},
	"json_web_crypto_test.json": {symmetric: {1, 48}, encrypted: {50, 67}},
}

// TestWycheproofTokens verifies Project Wycheproof's JSON Web Signatures as tokens of an issuer. It
// stops before the claims, which the vectors lack.
func TestWycheproofTokens(t *testing.T) {
	type file struct {
		Groups []struct {
			Private, Public json.RawMessage
			Tests           []struct {
				ID       int `json:"tcId"`
				Comment  string
				JWS, JWE json.RawMessage
				Result   string
			}
		} `json:"testGroups"`
	}
	for name, refused := range refusedVectors {
		t.Run(name, func(t *testing.T) {
			valid, accepted, invalid := 0, 0, 0
			for _, g := range readVectors[file](t, name).Groups {
				set := g.Public
				if set == nil { // symmetric keys have no public half
					set = g.Private
				}
				v := vectorVerification(t, set)
				for _, x := range g.Tests {
					cause := v.vector(t, slices.Concat(x.JWS, x.JWE))
					if x.Result != validVector {
						if invalid++; cause == "" {
							t.Errorf("vector %d (%s) is invalid and was accepted", x.ID, x.Comment)
						}
						continue
					}
					valid++
					want := ""
					for why, ids := range refused {
						if slices.Contains(ids, x.ID) {
							want = why
						}
					}
					if cause == "" {
						accepted++
					}
					if (cause == "") != (want == "") || !strings.Contains(cause, want) {
						t.Errorf("vector %d (%s) is valid and was refused because %q, want %q", x.ID, x.Comment, cause, want)
					}
				}
			}
			if accepted == 0 || invalid == 0 {
				t.Errorf("%d accepted, %d invalid", accepted, invalid)
			}
			t.Logf("%s: %d invalid signatures, %d valid ones, %d accepted", name, invalid, valid, accepted)
		})
	}
}

// vectorVerification returns a verification for an issuer that publishes this key or key set.
func vectorVerification(t *testing.T, set json.RawMessage) *verification {
	t.Helper()
	var several struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(set, &several); err != nil {
		t.Fatal(err)
	}
	keys := []string{string(set)}
	if several.Keys != nil {
		keys = nil
		for _, k := range several.Keys {
			keys = append(keys, string(k))
		}
	}
	p := newProvider(t, keys...)
	a, _ := newAuth(t, authtest.NewClock(), p.config())
	b, err := a.newBearer([]string{"issuer/corp"}, &Demand{})
	if err != nil {
		t.Fatal(err)
	}
	return &verification{bearer: b.(*bearer), request: &Request{}}
}

// vector returns why the signature of a vector is refused, or "" if it is valid.
func (v *verification) vector(t *testing.T, text json.RawMessage) string {
	t.Helper()
	var compact string
	if json.Unmarshal(text, &compact) != nil {
		compact = string(text) // the JSON serialization, which is an object
	}
	tok := new(token)
	if err := tok.parseJWS(compact); err != nil {
		return err.Error()
	}
	_, err := v.check(t.Context(), &v.candidates[0], tok)
	if err == nil || err.KeyID != "" { // the signature is valid, and only the missing claims were refused
		return ""
	}
	return err.Error()
}

// readVectors reads a file of the module github.com/c2sp/wycheproof.
func readVectors[T any](t *testing.T, name string) (file T) {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return file
}

// TestWycheproofSignatures tries the vectors of each algorithm: verify accepts all valid
// signatures and no other. It refuses a DigestInfo without NULL, which the vectors call acceptable.
func TestWycheproofSignatures(t *testing.T) {
	type file struct {
		Groups []struct {
			DER   string `json:"publicKeyDer"`
			Tests []struct {
				ID      int `json:"tcId"`
				Comment string
				Message string `json:"msg"`
				Sig     string
				Result  string
			}
		} `json:"testGroups"`
	}
	for alg, names := range map[string][]string{
		"RS256": {"rsa_signature_2048_sha256", "rsa_signature_3072_sha256", "rsa_signature_4096_sha256", "rsa_signature_8192_sha256"},
		"RS384": {"rsa_signature_2048_sha384", "rsa_signature_3072_sha384", "rsa_signature_4096_sha384", "rsa_signature_8192_sha384"},
		"RS512": {"rsa_signature_2048_sha512", "rsa_signature_3072_sha512", "rsa_signature_4096_sha512", "rsa_signature_8192_sha512"},
		"PS256": {"rsa_pss_2048_sha256_mgf1_32", "rsa_pss_3072_sha256_mgf1_32", "rsa_pss_4096_sha256_mgf1_32"},
		"PS384": {"rsa_pss_2048_sha384_mgf1_48", "rsa_pss_4096_sha384_mgf1_48"},
		"PS512": {"rsa_pss_4096_sha512_mgf1_64"},
		"ES256": {"ecdsa_secp256r1_sha256_p1363"},
		"ES384": {"ecdsa_secp384r1_sha384_p1363"},
		"ES512": {"ecdsa_secp521r1_sha512_p1363"},
		"EdDSA": {"ed25519"},
	} {
		for _, name := range names {
			t.Run(alg+" "+name, func(t *testing.T) {
				valid, others := 0, 0
				for _, g := range readVectors[file](t, name+"_test.json").Groups {
					public, err := x509.ParsePKIXPublicKey(unhex(t, g.DER))
					if err != nil {
						t.Fatal(err)
					}
					k := publicKey(t, public)
					for _, x := range g.Tests {
						holds := k.verify(alg, unhex(t, x.Message), unhex(t, x.Sig), new([64]byte))
						if holds != (x.Result == validVector) {
							t.Errorf("vector %d (%s) is %s: verified %v", x.ID, x.Comment, x.Result, holds)
						}
						if x.Result == validVector {
							valid++
						} else {
							others++
						}
					}
				}
				if valid == 0 || others == 0 {
					t.Errorf("%d valid vectors, %d others", valid, others)
				}
				t.Logf("%s, %s: %d valid signatures, %d others", alg, name, valid, others)
			})
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
