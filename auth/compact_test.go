package auth

import (
	"slices"
	"strings"
	"testing"
)

// TestCompactClaimsAreTheSame as those that they were made of, but for those left out.
func TestCompactClaimsAreTheSame(t *testing.T) {
	tok := new(token)
	tok.payload = []byte(`{"active":true,"sub":"alice","aud":["a","b"],"su":"x","none":[],"":"empty name","b":"","realm_access":{"roles":["r","s"],"n":7},"long":"` + strings.Repeat("x", 1000) + `"}`)
	if err := tok.readClaims(); err != nil {
		t.Fatal(err)
	}
	set, kept := tok.claims.compacted("active")
	for _, c := range tok.claims {
		want := c.values
		if c.path == "active" {
			want = nil
		}
		if got := kept.Claim(c.path); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", c.path, got, want)
		}
		if got := set.Claim(c.path); !slices.Equal(got, want) {
			t.Errorf("%q of the set: got %q, want %q", c.path, got, want)
		}
	}
	for _, path := range []string{"s", "subs", "lon", "realm_access", "active", "nobody"} {
		if got := kept.Claim(path); got != nil {
			t.Errorf("%q: got %q", path, got)
		}
	}
	if len(tok.claims) != len(set)+1 {
		t.Errorf("%d claims of %d are left", len(set), len(tok.claims))
	}
}
