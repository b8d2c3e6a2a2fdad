package login

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"
)

// keycloakRecord returns a session as large as Keycloak 26 makes it, with RS256 and its usual scopes.
func keycloakRecord() record {
	random := rand.NewChaCha8([32]byte{1})
	secret := func(n int) string {
		b := make([]byte, n)
		_, _ = random.Read(b)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := base64.RawURLEncoding.EncodeToString
	const (
		issuer  = "https://login.example.com/realms/lab"
		subject = "5f1c1f2e-7e1b-4a4e-9c59-0d0e1f6c7a11"
		sid     = "8e9c0a5e-6b5b-4f0e-9d7e-2f1f5a5c7e11"
	)
	claims := `{"exp":1796004900,"iat":1796004600,"auth_time":1796004599,"jti":"0b2d3c55-8f4c-4b5c-8a11-6d1f0e9a7b21","iss":"` + issuer +
		`","aud":"pages","sub":"` + subject + `","typ":"ID","azp":"pages","nonce":"` + secret(24) + `","sid":"` + sid + `","at_hash":"` + secret(16) +
		`","acr":"1","email_verified":true,"name":"Ada Person","groups":["ml-team","readers"],"preferred_username":"ada","given_name":"Ada","family_name":"Person","email":"ada@example.com"}`
	refresh := `{"exp":1796006400,"iat":1796004600,"jti":"1d7e5f0a-3c52-4a5f-b2d0-7c6a8e9f1b33","iss":"` + issuer + `","aud":"` + issuer +
		`","sub":"` + subject + `","typ":"Refresh","azp":"pages","sid":"` + sid + `","scope":"openid web-origins acr roles profile email basic"}`
	return record{
		id: sessionID{7}, generation: 1, begun: 1796004600, issued: 1796004600, seen: 1796004600, expires: 1796040600, authTime: 1796004599,
		accessFrom: 1796004600, accessUntil: 1796004900, issuer: issuer, subject: subject, sid: sid, acr: "1", claims: claims,
		key:     "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE",
		hint:    pack(text([]byte(`{"alg":"RS256","typ" : "JWT","kid" : "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`)) + ".." + secret(256)),
		refresh: pack(text([]byte(`{"alg":"HS512","typ" : "JWT","kid" : "a6b7c8d9-0e1f-4a2b-8c3d-4e5f6a7b8c9d"}`)) + "." + text([]byte(refresh)) + "." + secret(64)),
	}
}

// BenchmarkUnseal unseals a session as large as Keycloak's, without judging its claims.
func BenchmarkUnseal(b *testing.B) {
	l := &Login{keys: keysOf(b, NewKey()), cookie: hostPrefix + sessionName}
	r := keycloakRecord()
	values := split(l.keys.seal(nil, r.encode(), l.additional(purposeSession, "models.example")))
	field := l.partName(0) + "=" + values[0]
	c, found, err := l.ReadCookie(field)
	if !found || err != nil || len(values) != 1 {
		b.Fatal(found, err, len(values))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.unseal("models.example", &c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(field)), "bytes")
}

// BenchmarkCookieField finds the session beside two cookies of an application, and removes it, as each
// request does.
func BenchmarkCookieField(b *testing.B) {
	l := &Login{cookie: hostPrefix + sessionName}
	field := "_xsrf=2|1b2c; " + l.partName(0) + "=1." + strings.Repeat("x", 1200) + "; theme=dark"
	b.ReportAllocs()
	for b.Loop() {
		if _, found, err := l.ReadCookie(field); !found || err != nil || Strip(field) == field {
			b.Fatal(found, err)
		}
	}
}

// BenchmarkEncode encodes the same session, as each sealing does.
func BenchmarkEncode(b *testing.B) {
	r := keycloakRecord()
	b.ReportAllocs()
	for b.Loop() {
		r.encode()
	}
}
