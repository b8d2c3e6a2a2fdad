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
	const encoded = "020102030000000000000000000000000098cfb5d8060002f8b5b3d80601a006efebe6b00d00d8045b26007be10e01612ea01eb10402616461d085036d6c225dbb94a82e8025006babcd005293cd007d371103000001033f01117369676e02063036a296aab9efada247a72b"
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
		r := record{claims: claims, issuer: token, hint: pack(token), refresh: pack("x" + token)}
		got, err := decodeRecord(r.encode())
		if err != nil || got != r || got.hint.text() != token || got.refresh.text() != "x"+token {
			t.Errorf("%q with claims %q becomes %q and %q, %v", token, claims, got.hint.text(), got.refresh.text(), err)
		}
	})
}

// TestCompressedTextIsReadBack compresses texts that repeat themselves near and far, and random ones.
func TestCompressedTextIsReadBack(t *testing.T) {
	random := make([]byte, 5000)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(random)
	for name, c := range map[string]struct {
		text string
		most int
	}{
		"empty":              {"", 0},
		"one byte":           {"a", 2},
		"one byte, repeated": {strings.Repeat("a", 5000), 600},
		"two, repeated":      {strings.Repeat("ab", 5000), 1200},
		"known":              {commonText, len(commonText) / 4},
		"end of the known":   {commonText[len(commonText)-5:] + commonText[:5], 6},
		"random":             {string(random), 5100},
		"random, twice":      {string(random[:1500]) + string(random[:1500]), 1800},
		"random, too far":    {string(random[:3000]) + string(random[:3000]), 6100},
		"farthest":           {string(random[:matchWindow]) + string(random[:18]), matchWindow + 20},
		"JSON":               {keycloakRecord().claims, 400},
	} {
		b := compress([]byte("before"), []byte(c.text))
		got, ok := decompress(string(b[6:]), int64(len(c.text)))
		if string(b[:6]) != "before" || !ok || got != c.text {
			t.Errorf("%s: not read back: %q", name, got)
		}
		if len(b)-6 > c.most {
			t.Errorf("%s: %d bytes become %d, want at most %d", name, len(c.text), len(b)-6, c.most)
		}
		for _, other := range []int64{int64(len(c.text)) - 1, int64(len(c.text)) + 1, 1 << 62, -1} {
			if _, ok := decompress(string(b[6:]), other); ok {
				t.Errorf("%s: it opens with a length of %d", name, other)
			}
		}
		if len(b) > 6 {
			if _, ok := decompress(string(b[6:len(b)-1]), int64(len(c.text))); ok {
				t.Errorf("%s: it opens without its last byte", name)
			}
		}
	}
	if _, ok := decompress("\x87\xff", 3); ok {
		t.Error("a match before the known text opens")
	}
}

// FuzzDecompress opens any bytes. What they hold is at most nine times as large.
func FuzzDecompress(f *testing.F) {
	f.Add(compress(nil, []byte(keycloakRecord().claims)), 600)
	f.Add([]byte("\x00a\xff\x00\xff\x00"), 37)
	f.Fuzz(func(t *testing.T, b []byte, length int) {
		text, ok := decompress(string(b), int64(length))
		if !ok {
			return
		}
		if len(text) != length || len(text) > 9*len(b) {
			t.Errorf("%d bytes become %d, want %d", len(b), len(text), length)
		}
		if again, ok := decompress(string(compress(nil, []byte(text))), int64(length)); !ok || again != text {
			t.Errorf("%q becomes %q", text, again)
		}
	})
}
