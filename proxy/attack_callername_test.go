package proxy_test

import (
	"fmt"
	"net/http"
	"testing"
)

// TestAttackNameInBasic: a person's name with a colon is not read as a shorter name with a password of its own, by
// servers that look at no password; and no two names are sent alike.
func TestAttackNameInBasic(t *testing.T) {
	s := &shown{}
	one := newModelServer(t, s.ServeHTTP)
	h := build(t, plan{
		more:   fmt.Sprintf("upstreams: {one: {rest: %q, credentials: {basic: {caller: true, password: {file: secret}}}}}\n", one.URL),
		routes: "\n  - {host: models.test, upstream: one, callers: issuer/corp, rules: [{allow: \"*\"}]}\n",
		files:  map[string]string{"secret": credentialFiles + "\n"},
	})
	for name, want := range map[string]string{
		"root:x": "root%3Ax", "root%3Ax": "root%253Ax", "Müller": "Müller", "a b": "a b", ":": "%3A",
	} {
		token, err := h.issuer.Sign(h.issuer.Claims(name))
		if err != nil {
			t.Fatal(err)
		}
		if r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + token}); r.StatusCode != 200 {
			t.Fatalf("%s: %d %s", name, r.StatusCode, r.body)
		}
		got := http.Request{Header: http.Header{"Authorization": s.values("authorization")}}
		if user, password, ok := got.BasicAuth(); !ok || user != want || password != credentialFiles || len(got.Header["Authorization"]) != 1 {
			t.Errorf("%s: the server got the user %q, %v", name, user, got.Header["Authorization"])
		}
	}
}
