package login

import (
	"strings"
	"testing"
)

// BenchmarkUnseal unseals a session as large as Keycloak's, without judging its claims.
func BenchmarkUnseal(b *testing.B) {
	l := &Login{keys: keysOf(b, NewKey()), cookie: hostPrefix + sessionName}
	r := record{claims: strings.Repeat("c", 700), hint: strings.Repeat("h", 450), refresh: strings.Repeat("r", 700), issuer: "https://login.example/realms/lab", subject: "5f1c1f2e-7e1b-4a4e-9c59-0d0e1f6c7a11"}
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
}
