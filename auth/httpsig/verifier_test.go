package httpsig_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
)

// clock is when all tests of this file take place.
var clock = time.Unix(1_800_000_000, 0)

func now() time.Time { return clock }

func secretKey(t testing.TB, id string) *httpsig.Key {
	t.Helper()
	secret := make([]byte, 64)
	copy(secret, id)
	key, err := httpsig.HMACKey(id, secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// body and request are a typical signed request, before it is signed.
const body = `{"instances": [[1.0, 2.0, 5.0]]}`

func request() *httpsig.Message {
	return &httpsig.Message{
		Method: "POST", Scheme: "https", Authority: "models.example.com", Path: "/v1/models/half:predict",
		Query: "trace=1", HasQuery: true,
		Fields: httpsig.Lines{
			{Name: "content-type", Value: "application/json"},
			{Name: "content-digest", Value: httpsig.ContentDigest([]byte(body))},
		},
	}
}

func signer(t testing.TB, p httpsig.Profile) *httpsig.Signer {
	t.Helper()
	s, err := httpsig.NewSigner(p, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sign signs m as p says and adds the fields.
func sign(t testing.TB, p httpsig.Profile, key *httpsig.Key, m *httpsig.Message, nonce string) *httpsig.Message {
	t.Helper()
	signed, err := signer(t, p).Sign(key, m, nonce)
	if err != nil {
		t.Fatal(err)
	}
	return with(m, httpsig.Line{Name: "signature-input", Value: signed.Input}, httpsig.Line{Name: "signature", Value: signed.Signature})
}

func with(m *httpsig.Message, lines ...httpsig.Line) *httpsig.Message {
	c := *m
	c.Fields = append(slices.Clone(m.Fields.(httpsig.Lines)), lines...)
	return &c
}

func set(m *httpsig.Message, name, value string) *httpsig.Message {
	c := *m
	c.Fields = append(without(m.Fields.(httpsig.Lines), name), httpsig.Line{Name: name, Value: value})
	return &c
}

func get(m *httpsig.Message, name string) string {
	value, _ := m.Fields.Line(name, 0)
	return value
}

// edit replaces text in both fields of the signature.
func edit(m *httpsig.Message, pairs ...string) *httpsig.Message {
	r := strings.NewReplacer(pairs...)
	m = set(m, "signature-input", r.Replace(get(m, "signature-input")))
	return set(m, "signature", r.Replace(get(m, "signature")))
}

func verifier(t testing.TB, p httpsig.Policy, keys ...*httpsig.Key) *httpsig.Verifier {
	t.Helper()
	v, err := httpsig.NewVerifier(p, httpsig.VerifierOptions{
		Key: func(id string) *httpsig.Key {
			for _, k := range keys {
				if k.ID() == id {
					return k
				}
			}
			return nil
		},
		Authority: func(a string) bool { return a == "models.example.com" },
		Now:       now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func code(err error) httpsig.Code {
	var e *httpsig.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestVerify(t *testing.T) {
	key := secretKey(t, "k1")
	m := sign(t, httpsig.RequestProfile(), key, request(), "")
	s, err := verifier(t, httpsig.RequestPolicy(), key).Verify(m)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"@method", "@authority", "@path", "@query", "content-digest", "content-type"}
	if !slices.Equal(s.Components(), want) || !s.Covers("@query") || s.Covers("@query;req") || s.Covers("date") {
		t.Errorf("covers %v, want %v", s.Components(), want)
	}
	if s.Key != key || len(s.Nonce) != 22 || !s.Created.Equal(clock) || !s.Expires.Equal(clock.Add(time.Minute)) ||
		!s.Until().Equal(clock.Add(time.Minute)) || s.Claim == [16]byte{} {
		t.Errorf("%+v", s)
	}
	again := sign(t, httpsig.RequestProfile(), key, request(), "")
	s2, err := verifier(t, httpsig.RequestPolicy(), key).Verify(again)
	if err != nil || s2.Claim == s.Claim || s2.Nonce == s.Nonce {
		t.Errorf("two equal requests: %v, claims %x and %x", err, s.Claim, s2.Claim)
	}
}

// What peers do otherwise and what is well all the same.
func TestVerifyInterop(t *testing.T) {
	key := secretKey(t, "k1")
	v := verifier(t, httpsig.RequestPolicy(), key)
	profile := func(change func(*httpsig.Profile)) *httpsig.Message {
		p := httpsig.RequestProfile()
		change(&p)
		return sign(t, p, key, request(), "")
	}
	for name, m := range map[string]*httpsig.Message{
		"another label":   profile(func(p *httpsig.Profile) { p.Label = "pyhms" }),
		"with alg":        profile(func(p *httpsig.Profile) { p.Alg = true }),
		"without expires": profile(func(p *httpsig.Profile) { p.Lifetime = 0 }),
		"another order":   profile(func(p *httpsig.Profile) { slices.Reverse(p.Cover) }),
		"the target as a whole": profile(func(p *httpsig.Profile) {
			p.Cover = []string{"@target-uri", "content-digest", "@method"}
		}),
		"a foreign signature beside": edit(profile(func(*httpsig.Profile) {}), "sp=(",
			`other=("@nonsense";x=1 "date";bs;sf);tag="web-bot-auth", sp=(`, "sp=:", "other=:AAAA:, sp=:"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := v.Verify(m); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each rule of the verifier, and what it says.
func TestVerifyRefusals(t *testing.T) {
	key := secretKey(t, "k1")
	good := sign(t, httpsig.RequestProfile(), key, request(), "nonce-1")
	policy := httpsig.RequestPolicy()
	other := func(change func(p *httpsig.Profile)) *httpsig.Message {
		p := httpsig.RequestProfile()
		change(&p)
		return sign(t, p, key, request(), "nonce-1")
	}
	cover := func(ids ...string) *httpsig.Message {
		return other(func(p *httpsig.Profile) { p.Cover, p.IfPresent = ids, []string{"content-type"} })
	}
	in, sig := get(good, "signature-input"), get(good, "signature")
	many := ""
	for i := range 30 {
		many += fmt.Sprintf(` "x-%d"`, i)
	}
	aged := func(d time.Duration) *httpsig.Message {
		s, err := httpsig.NewSigner(httpsig.RequestProfile(), func() time.Time { return clock.Add(d) })
		if err != nil {
			t.Fatal(err)
		}
		signed, err := s.Sign(key, request(), "")
		if err != nil {
			t.Fatal(err)
		}
		return set(set(good, "signature-input", signed.Input), "signature", signed.Signature)
	}
	cases := []struct {
		name string
		m    *httpsig.Message
		want httpsig.Code
	}{
		{"no fields at all", &httpsig.Message{Method: "GET", Authority: "models.example.com"}, httpsig.Missing},
		{"no signature", request(), httpsig.Missing},
		{"only foreign tags", other(func(p *httpsig.Profile) { p.Tag = "web-bot-auth" }), httpsig.Missing},
		{"a response's tag", other(func(p *httpsig.Profile) { p.Tag = httpsig.TagResponse }), httpsig.Missing},
		{"no input", set(good, "signature-input", ""), httpsig.Malformed},
		{"no value", set(good, "signature", ""), httpsig.Malformed},
		{"two lines of input", with(good, httpsig.Line{Name: "signature-input", Value: in}), httpsig.Malformed},
		{"two lines of values", with(good, httpsig.Line{Name: "signature", Value: sig}), httpsig.Malformed},
		{"input too long", edit(good, "sp=(", `a=();x="`+strings.Repeat("x", 4096)+`", sp=(`), httpsig.Malformed},
		{"too many labels", edit(good, "sp=(", "a=(),b=(),c=(),d=(),sp=(", "sp=:", "a=::,b=::,c=::,d=::,sp=:"), httpsig.Malformed},
		{"too many components", edit(good, "sp=(", "sp=("+strings.TrimSpace(many)+" "), httpsig.Malformed},
		{"nonce too long", edit(good, "nonce-1", strings.Repeat("n", 65)), httpsig.Malformed},
		{"nonce with other characters", edit(good, "nonce-1", "nonce/1"), httpsig.Malformed},
		{"keyid too long", edit(good, `keyid="k1"`, `keyid="`+strings.Repeat("k", 129)+`"`), httpsig.Malformed},
		{"label twice in input", edit(good, "sp=(", "sp=(),sp=("), httpsig.Malformed},
		{"label twice in values", edit(good, "sp=:", "sp=:AAAA:,sp=:"), httpsig.Malformed},
		{"parameter twice", edit(good, ";keyid", `;keyid="k2";keyid`), httpsig.Malformed},
		{"labels differ", set(good, "signature", "x"+sig), httpsig.Malformed},
		{"a value too many", set(good, "signature", sig+", x=:AAAA:"), httpsig.Malformed},
		{"a value too few", edit(good, "sp=(", "a=(), sp=("), httpsig.Malformed},
		{"two with our tag", set(set(good, "signature-input", in+", b"+in), "signature", sig+", b"+sig), httpsig.Malformed},
		{"a component twice", edit(good, `("@method"`, `("@method" "@method"`), httpsig.Malformed},
		{"a component twice, parameters in another order",
			edit(good, `("@method"`, `("x";bs;req "x";req;bs "@method"`), httpsig.Malformed},
		{"an unknown component", edit(good, `("@method"`, `("@nonsense" "@method"`), httpsig.Malformed},
		{"@signature-params", edit(good, `("@method"`, `("@signature-params" "@method"`), httpsig.Malformed},
		{"a field with capitals", edit(good, `("@method"`, `("Date" "@method"`), httpsig.Malformed},
		{"an unknown parameter of a component", edit(good, `("@method"`, `("date";xx "@method"`), httpsig.Malformed},
		{"bs and sf", edit(good, `"content-digest"`, `"content-digest";bs;sf`), httpsig.Malformed},
		{"bs and key", edit(good, `"content-digest"`, `"content-digest";bs;key="sha-256"`), httpsig.Malformed},
		{"tr of a derived component", edit(good, `"@method"`, `"@method";tr`), httpsig.Malformed},
		{"a component that is a token", edit(good, `"@method"`, `method`), httpsig.Malformed},
		{"base64 without its end", set(good, "signature", strings.Replace(sig, "=:", ":", 2)), httpsig.Malformed},
		{"no created", edit(good, ";created=1800000000", ""), httpsig.Malformed},
		{"created as a string", edit(good, "created=1800000000", `created="1800000000"`), httpsig.Malformed},
		{"created as a decimal", edit(good, "created=1800000000", "created=1800000000.0"), httpsig.Malformed},
		{"no keyid", edit(good, `;keyid="k1"`, ""), httpsig.Malformed},
		{"no nonce", edit(good, `;nonce="nonce-1"`, ""), httpsig.Malformed},
		{"another alg", edit(good, ";tag=", `;alg="ed25519";tag=`), httpsig.Malformed},
		{"a short signature", set(good, "signature", "sp=:AAAA:"), httpsig.Malformed},
		{"an empty signature", set(good, "signature", "sp=::"), httpsig.Malformed},
		{"of an algorithm that is not accepted", set(good, "signature", "sp=:"+strings.Repeat("A", 86)+"==:"), httpsig.Malformed},

		{"too old", aged(-61 * time.Second), httpsig.Stale},
		{"from the future", aged(31 * time.Second), httpsig.Future},
		{"expired", other(func(p *httpsig.Profile) { p.Lifetime = time.Second }), ""},

		{"no method", cover("@authority", "@path", "@query", "content-digest"), httpsig.Coverage},
		{"no authority", cover("@method", "@path", "@query", "content-digest"), httpsig.Coverage},
		{"no path", cover("@method", "@authority", "@query", "content-digest"), httpsig.Coverage},
		{"no query", cover("@method", "@authority", "@path", "content-digest"), httpsig.Coverage},
		{"no digest", cover("@method", "@authority", "@path", "@query"), httpsig.Coverage},
		{"one member of the digest", cover("@method", "@target-uri", `content-digest;key="sha-256"`), httpsig.Coverage},
		{"the digest as bytes", cover("@method", "@target-uri", "content-digest;bs"), httpsig.Coverage},
		{"target without method", cover("@target-uri", "content-digest"), httpsig.Coverage},
		{"no content-type", other(func(p *httpsig.Profile) { p.IfPresent = nil }), httpsig.Coverage},
		{"an encoding came on the way", with(good, httpsig.Line{Name: "content-encoding", Value: "gzip"}), httpsig.Coverage},
		{"a request's method of another request", edit(good, `"@method"`, `"@method";req`), httpsig.Coverage},

		{"another key's id", edit(good, `"k1"`, `"k2"`), httpsig.BadSignature},
		{"an unknown key", edit(good, `"k1"`, `"nobody"`), httpsig.UnknownKey},
		{"a component that is missing", edit(good, `"content-digest"`, `"content-digest" "x-missing"`), httpsig.BadSignature},
		{"a status in a request", edit(good, `"content-digest"`, `"content-digest" "@status"`), httpsig.BadSignature},
		{"req in a request", edit(good, `"content-digest"`, `"content-digest" "date";req`), httpsig.BadSignature},
		{"a line break", set(good, "content-type", "application/json\n\"@path\": /"), httpsig.BadSignature},
		{"a byte that is not ASCII", set(good, "content-type", "application/jsön"), httpsig.BadSignature},
		{"no content-type any more", set(good, "x", "y"), ""},
		{"content-type removed", &httpsig.Message{Method: "POST", Scheme: "https", Authority: "models.example.com",
			Path: good.Path, Query: good.Query, HasQuery: true,
			Fields: without(good.Fields.(httpsig.Lines), "content-type")}, httpsig.BadSignature},
		{"a field named like a component", with(set(good, "content-type", "text/plain"),
			httpsig.Line{Name: `"content-type"`, Value: "application/json"}), httpsig.BadSignature},
		{"a second line of a covered field", with(good, httpsig.Line{Name: "content-type", Value: "x"}), httpsig.BadSignature},
	}
	v := verifier(t, policy, key, secretKey(t, "k2"))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, err := v.Verify(c.m)
			if code(err) != c.want || (s == nil) != (err != nil) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestVerifyExpires(t *testing.T) {
	key := secretKey(t, "k1")
	p := httpsig.RequestProfile()
	p.Lifetime = 5 * time.Second
	m := sign(t, p, key, request(), "")
	for later, want := range map[time.Duration]httpsig.Code{5 * time.Second: "", 6 * time.Second: httpsig.Stale} {
		v, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
			Key:       func(string) *httpsig.Key { return key },
			Authority: func(string) bool { return true },
			Now:       func() time.Time { return clock.Add(later) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(m); code(err) != want {
			t.Errorf("after %s: %v, want %q", later, err, want)
		}
	}
}

// What the policy does not say is refused: no keys, no authorities, no policy.
func TestVerifierZero(t *testing.T) {
	none := func(string) *httpsig.Key { return nil }
	for name, p := range map[string]httpsig.Policy{
		"zero":               {},
		"no age":             {Tag: "t"},
		"no tag":             {MaxAge: time.Minute},
		"unknown algorithm":  {Tag: "t", MaxAge: time.Minute, Algorithms: []httpsig.Algorithm{"none"}},
		"wrong component":    {Tag: "t", MaxAge: time.Minute, Require: []string{"@nonsense"}},
		"wrong field":        {Tag: "t", MaxAge: time.Minute, IfPresent: []string{"Content-Type"}},
		"the same one twice": {Tag: "t", MaxAge: time.Minute, Require: []string{"x;req;tr", "x;tr;req"}},
	} {
		if _, err := httpsig.NewVerifier(p, httpsig.VerifierOptions{Key: none}); err == nil {
			t.Errorf("%s: a verifier was made", name)
		}
	}
	if _, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{}); err == nil {
		t.Error("a verifier without keys was made")
	}
	key := secretKey(t, "k1")
	v, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{Key: func(string) *httpsig.Key { return key }, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	m := sign(t, httpsig.RequestProfile(), key, request(), "")
	if _, err := v.Verify(m); code(err) != httpsig.WrongAuthority {
		t.Errorf("without an answer about authorities: %v", err)
	}
}

// The key is looked up only for what would hold but for the key, and what follows
// is the same work whether there is one or not.
func TestVerifyOrder(t *testing.T) {
	key := secretKey(t, "k1")
	asked := 0
	v, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
		Key:       func(string) *httpsig.Key { asked++; return nil },
		Authority: func(a string) bool { return a == "models.example.com" },
		Now:       now,
	})
	if err != nil {
		t.Fatal(err)
	}
	good := sign(t, httpsig.RequestProfile(), key, request(), "n")
	elsewhere := *good
	elsewhere.Authority = "other.example.com"
	for name, m := range map[string]*httpsig.Message{
		"malformed": edit(good, "keyid", "keyid;keyid"),
		"stale":     edit(good, "created=18", "created=17"),
		"coverage":  edit(good, `"@path" `, ""),
		"authority": &elsewhere,
		"length":    set(good, "signature", "sp=:AAAA:"),
	} {
		if _, err := v.Verify(m); err == nil || asked != 0 {
			t.Errorf("%s: %v, keys asked for: %d", name, err, asked)
		}
	}
	if _, err := v.Verify(good); code(err) != httpsig.UnknownKey || code(err).Public() != httpsig.BadSignature || asked != 1 {
		t.Errorf("%v, keys asked for: %d", err, asked)
	}
}

// An ed25519 key never verifies a MAC and the other way round, whatever alg says:
// a public key used as a secret is the classic confusion.
func TestVerifyAlgorithms(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	edKey, err := httpsig.Ed25519Key("k1", private)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, err := httpsig.Ed25519PublicKey("k1", public)
	if err != nil {
		t.Fatal(err)
	}
	confused, err := httpsig.HMACKey("k1", public)
	if err != nil {
		t.Fatal(err)
	}
	policy := httpsig.RequestPolicy()
	policy.Algorithms = []httpsig.Algorithm{httpsig.HMACSHA256, httpsig.Ed25519}
	v := verifier(t, policy, edPublic)
	if _, err := v.Verify(sign(t, httpsig.RequestProfile(), edKey, request(), "")); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(sign(t, httpsig.RequestProfile(), confused, request(), "")); code(err) != httpsig.BadSignature {
		t.Errorf("a MAC under the public key: %v", err)
	}
	if _, err := verifier(t, httpsig.RequestPolicy(), edPublic).Verify(sign(t, httpsig.RequestProfile(), edKey, request(), "")); code(err) != httpsig.Malformed {
		t.Errorf("ed25519 where only MACs are accepted: %v", err)
	}
	if _, err := signer(t, httpsig.RequestProfile()).Sign(edPublic, request(), ""); err == nil {
		t.Error("a public key signed")
	}
}

func TestKeys(t *testing.T) {
	for name, make := range map[string]func() error{
		"short secret":    func() error { _, err := httpsig.HMACKey("k", make([]byte, 31)); return err },
		"no id":           func() error { _, err := httpsig.HMACKey("", make([]byte, 32)); return err },
		"id with a quote": func() error { _, err := httpsig.HMACKey(`a"b`, make([]byte, 32)); return err },
		"long id":         func() error { _, err := httpsig.HMACKey(strings.Repeat("k", 129), make([]byte, 32)); return err },
		"short private":   func() error { _, err := httpsig.Ed25519Key("k", make([]byte, 32)); return err },
		"short public":    func() error { _, err := httpsig.Ed25519PublicKey("k", make([]byte, 31)); return err },
	} {
		if make() == nil {
			t.Errorf("%s: a key was made", name)
		}
	}
	key, err := httpsig.HMACKey("k1", []byte(strings.Repeat("secret", 10)))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{key, *key, struct{ K *httpsig.Key }{key}} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "secret") || strings.Contains(got, "7365637265") {
				t.Errorf("%s shows the secret: %s", verb, got)
			}
		}
	}
}
