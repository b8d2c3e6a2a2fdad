package auth

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sallyport/auth/authtest"
	"sallyport/auth/fetch"
)

// FuzzToken: no text makes the parser panic, and what it accepts is the one
// encoding of what it read.
func FuzzToken(f *testing.F) {
	k := ecPair("one")
	good := k.Token(authtest.Claims("https://issuer.example", authtest.NewClock().Now(), nil))
	f.Add(good)
	f.Add(good + ".")
	f.Add("..")
	f.Add("e30.e30.AA")
	f.Add(authtest.Base64([]byte(`{"alg":"ES256"}`)) + "." + authtest.Base64([]byte(`{"exp":1e9,"aud":["a"],"x":{"y":[null,true]}}`)) + ".AA")
	f.Fuzz(func(t *testing.T, s string) {
		tok := tokenPool.Get().(*token)
		defer tok.release()
		if tok.parse(s) != nil {
			return
		}
		parts := strings.Split(s, ".")
		if len(parts) != 3 {
			t.Fatalf("%d segments were accepted", len(parts))
		}
		for _, p := range parts {
			b, err := base64.RawURLEncoding.DecodeString(p)
			if err != nil || authtest.Base64(b) != p || p == "" {
				t.Fatalf("segment %q is not the encoding of what it holds", p)
			}
		}
		if authtest.Base64(tok.payload) != parts[1] || tok.alg == "" || len(s) > maxToken {
			t.Fatal("accepted what is not strict")
		}
	})
}

// FuzzClaims: where our reading of the claims accepts, encoding/json agrees on
// every exact name and value, though it folds case and takes the last duplicate.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{
		`{"iss":"a","sub":"b","aud":"c","exp":1,"nbf":2,"iat":3}`,
		`{"aud":["a","b"],"exp":1.5,"scope":"x y","a":{"b":[1,true,"z"]}}`,
		`{"exp":1,"exp":2}`, `{"EXP":1}`, `{"\u0065xp":1}`, `{"aud":[]}`, `{"a.b":1,"a":{"b":2}}`, `{"sub":0}`, `{"sub":1e400}`, `{"sub":[{"a":1e400}]}`, `{"exp":1e400}`, `[]`, `{} {}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tok := tokenPool.Get().(*token)
		defer tok.release()
		tok.payload = append(tok.payload[:0], text...)
		if tok.readClaims() != nil {
			return
		}
		c, set := tok.registered, tok.claims
		var loose map[string]json.RawMessage
		if err := json.Unmarshal(text, &loose); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		for name, has := range map[string]bool{"iss": c.hasIss, "exp": c.hasExp, "nbf": c.hasNbf, "iat": c.hasIat, "cnf": c.bound.present} {
			if _, ok := loose[name]; ok != has {
				t.Fatalf("%s: encoding/json says %v, we say %v", name, ok, has)
			}
		}
		var typed struct {
			Iss           string
			Sub           json.RawMessage // of any type: only who takes it as the principal wants a string
			Exp, Nbf, Iat float64
		}
		if err := json.Unmarshal(text, &typed); err != nil {
			t.Fatalf("a folding reader sees other types: %v", err)
		}
		var sub string
		_ = json.Unmarshal(typed.Sub, &sub)
		if typed.Iss != c.iss || sub != c.sub || int64(typed.Exp) != c.exp || int64(typed.Iat) != c.iat || c.nbf-int64(typed.Nbf) > 1 {
			t.Fatalf("a folding reader sees other values: %+v, we see %+v", typed, c)
		}
		for _, claim := range set {
			for _, v := range claim.values {
				if !utf8.ValidString(v) {
					t.Fatalf("%q is not UTF-8", v)
				}
			}
		}
	})
}

// FuzzAnswer: an issuer's answer is accepted only if encoding/json reads active as true in it too,
// and the audience as ours.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"active":true,"sub":"alice","aud":"models","exp":1800003600}`, `{"active":true,"sub":"alice","aud":["x","models"],"cnf":{}}`,
		`{"active":true,"sub":"alice","aud":["models",1e400]}`, `{"active":true,"sub":"alice","aud":"models","exp":1e400,"x":1e400}`, `{"active":false}`, `{"active":"true"}`, `{"Active":true,"sub":"alice","aud":"models"}`, `{"active":true,"active":false}`, `{}`, `null`, `<html>`,
	} {
		f.Add([]byte(s))
	}
	o := newOpaque(f, nil)
	in := o.auth.issuers["corp"].memory.Load().introspector
	f.Fuzz(func(t *testing.T, text []byte) {
		v, why, err := in.judge(t.Context(), &look{}, &fetch.Answer{Type: plainAnswer, Text: text})
		if (v != nil) == (why != nil || err != nil) || why != nil && err != nil {
			t.Fatalf("%v, %v and %v", v, why, err)
		}
		if v == nil {
			return
		}
		var loose struct {
			Active bool
			Sub    string
			Aud    any
		}
		if err := json.Unmarshal(text, &loose); err != nil || !loose.Active || loose.Sub != v.principal.Name {
			t.Fatalf("encoding/json reads %+v, %v; we accept %s", loose, err, v.principal.String())
		}
		if all, several := loose.Aud.([]any); loose.Aud != "models" && (!several || !slices.Contains(all, any("models"))) {
			t.Fatalf("accepted for the audience %v", loose.Aud)
		}
	})
}
