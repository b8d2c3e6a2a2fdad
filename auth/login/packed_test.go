package login

import (
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

// plainEncode encodes a record as releases with plainVersion did.
func plainEncode(r *record) []byte {
	var w writer
	w.number(plainVersion)
	w.raw(r.id[:])
	w.number(r.expires)
	w.number(0)
	for _, n := range [...]int64{r.generation, r.begun, r.issued, r.seen, r.authTime, r.accessFrom, r.accessUntil} {
		w.number(n)
	}
	for _, s := range [...]string{r.issuer, r.subject, r.sid, r.acr, r.key, r.claims, r.hint.text(), r.refresh.text()} {
		w.text(s)
	}
	return w.b
}

// TestCookieOfEarlierReleaseOpens unseals a session in the form that releases before this one sealed.
func TestCookieOfEarlierReleaseOpens(t *testing.T) {
	l := &Login{keys: keysOf(t, NewKey()), cookie: hostPrefix + sessionName}
	want := keycloakRecord()
	for name, text := range map[string][]byte{"before": plainEncode(&want), "now": want.encode()} {
		c, found, err := l.ReadCookie(l.partName(0) + "=" + split(l.keys.seal(nil, text, l.additional(purposeSession, "host")))[0])
		if !found || err != nil {
			t.Fatal(found, err)
		}
		if got, err := l.unseal("host", &c); err != nil || *got != want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	text := want.encode()
	text[0] = 3
	if _, err := decodeRecord(text); err == nil {
		t.Error("a record of a later version opens")
	}
}

// TestSealedFormStays checks that a record of this version opens as its release encoded it. A change that
// breaks this test signs people out; it needs another version.
func TestSealedFormStays(t *testing.T) {
	const encoded = "020102030000000000000000000000000098cfb5d8060002f8b5b3d80601a006efebe6b00d00d8042e5b007b3a0f0104612e0d1f3505086164613286000c6d6c225d7995112f0c6164616b61ce0100185253323536227d371103000001033f01117369676e02063036a296aab9efada247a72b"
	b, err := hex.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	want := record{
		id: sessionID{1, 2, 3}, generation: 2, begun: 1796004600, issued: 1796004599, seen: 1796005000, expires: 1796040600, authTime: 0,
		accessFrom: 1796004600, accessUntil: 1796004900, issuer: "https://a.example", subject: "ada", key: "k", claims: `{"iss":"https://a.example","sub":"ada","groups":["ml"]}`,
		hint: pack("eyJhbGciOiJSUzI1NiJ9..c2lnbg"), refresh: pack("0.opaque-token+"),
	}
	if got, err := decodeRecord(b); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v, encoded %x", got, err, want, want.encode())
	}
}

// TestSessionOfKeycloakIsSmall checks that nothing is stored twice, in base64 or in plain.
func TestSessionOfKeycloakIsSmall(t *testing.T) {
	r := keycloakRecord()
	if before, now := len(plainEncode(&r)), len(r.encode()); now > before/2 {
		t.Errorf("%d bytes of %d", now, before)
	}
}

// TestTokensAreStoredWithoutLoss packs tokens whose segments are base64url, nearly so, or not at all.
func TestTokensAreStoredWithoutLoss(t *testing.T) {
	text := base64.RawURLEncoding.EncodeToString
	object, signature := text([]byte(`{"sub":"alice"}`)), text([]byte("\xff\xfe\xfd a signature of random bytes"))
	for name, c := range map[string]struct {
		token string
		most  int // bytes
	}{
		"JWT":                     {object + "." + object + "." + signature, 70},
		"JWT without claims":      {object + ".." + signature, 56},
		"JWE":                     {object + "." + signature + "." + signature + "." + signature + "." + signature, 150},
		"more segments":           {strings.Repeat(signature+".", 8) + signature, 4*34 + 5*44},
		"opaque":                  {strings.Repeat("Az09-_Zz", 50), 310},
		"not canonical, 2 left":   {strings.Repeat("abcd", 20) + "zz", 66},
		"not canonical, 3 left":   {strings.Repeat("abcd", 20) + "zzz", 67},
		"no length of base64":     {strings.Repeat("abcd", 20) + "z", 65},
		"padding":                 {base64.URLEncoding.EncodeToString([]byte("ab")), 16},
		"other alphabet":          {"1//0a+b/c" + signature, 100},
		"line end":                {"abcd\nabcd\r\n", 16},
		"line end in a JWT":       {object + ".ab\ncd." + signature, 70},
		"a line end at the end":   {"abc\n", 8},
		"empty segments":          {"....", 8},
		"many empty segments":     {".......", 16},
		"one dot":                 {".", 4},
		"not ASCII":               {"tokén.\x00.\xff", 16},
		"64 KiB":                  {strings.Repeat("x", 64<<10), 50 << 10},
		"64 KiB, not base64":      {strings.Repeat("!", 64<<10), 65 << 10},
		"JSON that is the secret": {object, 18},
		"none":                    {"", 0},
	} {
		p := pack(c.token)
		if got := p.text(); got != c.token {
			t.Errorf("%s: %q becomes %q", name, c.token, got)
		}
		if p.size() > c.most {
			t.Errorf("%s: it takes %d bytes, want at most %d", name, p.size(), c.most)
		}
		if (p == packed{}) != (c.token == "") {
			t.Errorf("%s: packed as %q", name, p)
		}
	}
	if p := pack(object); p.shared != "" {
		t.Error("an opaque token is compressed, so its length tells of its content")
	}
	if p := pack(object + "." + object + "." + object); p.shared != `{"sub":"alice"}{"sub":"alice"}` {
		t.Errorf("compressed of a JWT is %q", p.shared)
	}
}

// FuzzPacked packs any token, and unpacks it from a record with others.
func FuzzPacked(f *testing.F) {
	r := keycloakRecord()
	for _, s := range []string{r.hint.text(), r.refresh.text(), "", ".", "abc\n", "zz", "eyJ9.e30.e30"} {
		f.Add(s, "{}")
		f.Add("a"+s, r.claims)
	}
	f.Fuzz(func(t *testing.T, token, claims string) {
		if len(token)+len(claims) > maxShared/4 {
			return // such sessions are refused
		}
		r := record{claims: claims, issuer: token, hint: pack(token), refresh: pack("x" + token)}
		got, err := decodeRecord(r.encode())
		if err != nil || got != r || got.hint.text() != token || got.refresh.text() != "x"+token {
			t.Errorf("%q with claims %q becomes %q and %q, %v", token, claims, got.hint.text(), got.refresh.text(), err)
		}
	})
}

// TestCompressedTextIsReadBack compresses texts that repeat themselves or the common text, and random ones.
func TestCompressedTextIsReadBack(t *testing.T) {
	random := make([]byte, 5000)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(random)
	for name, c := range map[string]struct {
		text string
		most int
	}{
		"empty":              {"", 1},
		"one byte":           {"a", 4},
		"one byte, repeated": {strings.Repeat("a", 5000), 40},
		"common":             {commonText, len(commonText) / 4},
		"random":             {string(random), 5100},
		"random, twice":      {string(random) + string(random), 5200},
		"JSON":               {keycloakRecord().claims, 400},
	} {
		b := compress([]byte(c.text))
		got, ok := decompress(b)
		if !ok || string(got) != c.text {
			t.Errorf("%s: not read back: %q", name, got)
		}
		if len(b) > c.most {
			t.Errorf("%s: %d bytes become %d, want at most %d", name, len(c.text), len(b), c.most)
		}
		if _, ok := decompress(b[:len(b)-1]); ok {
			t.Errorf("%s: it opens without its last byte", name)
		}
	}
}

// FuzzDecompress opens any bytes.
func FuzzDecompress(f *testing.F) {
	f.Add(compress([]byte(keycloakRecord().claims)))
	f.Add([]byte("\xff\xff\xff\x7f\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, ok := decompress(b)
		if !ok {
			return
		}
		if len(text) > maxShared {
			t.Errorf("%d bytes become %d", len(b), len(text))
		}
		if again, ok := decompress(compress(text)); !ok || string(again) != string(text) {
			t.Errorf("%q becomes %q", text, again)
		}
	})
}
