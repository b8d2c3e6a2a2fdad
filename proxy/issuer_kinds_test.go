package proxy_test

import (
	"crypto/elliptic"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// frontHouse is a house whose issuer `front` has its tokens in a field that the given peers add.
func frontHouse(t *testing.T, peers string) (h *house, front *authtest.Issuer) {
	t.Helper()
	front, at := newIssuer(t)
	return build(t, plan{issuers: fmt.Sprintf("  front: {url: '%s', audience: models, token_from: {header: Cf-Access-Jwt-Assertion, from: %s}}\n", at, peers), routes: `
  - {host: models.test, path: /both, upstream: '%s', callers: [issuer/front, issuer/corp], rules: [{allow: "*"}]}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, upstream: '%s', callers: issuer/front, rules: [{allow: "*"}]}
`}), front
}

// A proxy that asks for decisions may add the token itself, although clients must not send its field. Where
// the field proves nobody, it is one that the client may have sent.
func TestForwardAuthTakesTheTokenOfItsProxy(t *testing.T) {
	front, at := newIssuer(t)
	h := build(t, plan{
		listen:  ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: nginx}",
		more:    "trusted_proxies: 127.0.0.1\n",
		issuers: fmt.Sprintf("  front: {url: '%s', audience: models, token_from: {header: Cf-Access-Jwt-Assertion, from: 127.0.0.1}}\n", at),
		routes: `
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, upstream: '%s', callers: issuer/front, rules: [{allow: "*"}]}
`})
	token, err := front.Sign(front.Claims("carol"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/": 200, "/open": 403} {
		if r := h.askAs(append(told("nginx", "GET", "models.test", path), "Cf-Access-Jwt-Assertion: "+token)...); r.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, r.StatusCode, r.Header, want)
		}
	}
	if r := h.askAs(append(told("nginx", "GET", "models.test", "/"), "Cf-Access-Jwt-Assertion: x.y.z")...); r.StatusCode != 401 {
		t.Errorf("a bad token: %d", r.StatusCode)
	}
	h.untouched()
}

// TestTokenFromAFrontProxy checks who may bring a token in the field of a proxy, and that the
// field reaches no upstream.
func TestTokenFromAFrontProxy(t *testing.T) {
	h, front := frontHouse(t, "[127.0.0.1]")
	of := func(i *authtest.Issuer, name string) string {
		token, err := i.Sign(i.Claims(name))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := of(front, "carol")
	const field = "Cf-Access-Jwt-Assertion"
	for name, x := range map[string]struct {
		path          string
		fields        []string // name, value, ...
		status        int
		reason, calls string
	}{
		"in the field":                   {"/", []string{field, good}, 200, "", "issuer/front:carol"},
		"with a scheme":                  {"/", []string{field, "Bearer " + good}, 200, "", "issuer/front:carol"},
		"in Authorization":               {"/", []string{"Authorization", "Bearer " + good}, 401, "unlisted_credential", ""},
		"nowhere":                        {"/", nil, 401, "no_credential", ""},
		"another issuer's":               {"/", []string{field, of(h.issuer, "alice")}, 401, "bad_credential", ""},
		"twice":                          {"/", []string{field, good, field, good}, 401, "bad_credential", ""},
		"empty":                          {"/", []string{field, ""}, 401, "bad_credential", ""},
		"an API key":                     {"/", []string{field, "sp_0123456789"}, 401, "bad_credential", ""},
		"one more in the query":          {"/?access_token=x", []string{field, good}, 401, "bad_credential", ""},
		"another spelling":               {"/", []string{"Cf_Access_Jwt_Assertion", good}, 400, "protected_field", ""},
		"both, the first listed calls":   {"/both", []string{field, good, "Authorization", "Bearer " + of(h.issuer, "alice")}, 200, "", "issuer/front:carol"},
		"the other alone":                {"/both", []string{"Authorization", "Bearer " + of(h.issuer, "alice")}, 200, "", "issuer/corp:alice"},
		"a good one beside a bad":        {"/both", []string{field, good, "Authorization", "Bearer x.y.z"}, 401, "bad_credential", ""},
		"a bad one beside a good":        {"/both", []string{field, "x.y.z", "Authorization", "Bearer " + of(h.issuer, "alice")}, 401, "bad_credential", ""},
		"on a route that does not care":  {"/open", []string{field, good}, 200, "", "anonymous"},
		"Authorization for the front":    {"/both", []string{"Authorization", "Bearer " + good}, 401, "bad_credential", ""},
		"the field for another's issuer": {"/both", []string{field, of(h.issuer, "alice")}, 401, "bad_credential", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			before := h.model.hits.Load()
			req, err := http.NewRequest("GET", "https://models.test"+x.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i+1 < len(x.fields); i += 2 {
				req.Header[x.fields[i]] = append(req.Header[x.fields[i]], x.fields[i+1])
			}
			got := h.send(h.client(false), req)
			if got.StatusCode != x.status || got.reason() != x.reason {
				t.Errorf("got %d %s, want %d %s", got.StatusCode, got.body, x.status, x.reason)
			}
			if n := h.model.hits.Load() - before; n != 0 && x.status != 200 {
				t.Fatalf("%d requests reached the upstream", n)
			} else if n == 0 {
				return
			}
			seen, _ := h.model.seen()
			if seen.Header.Get(field) != "" || seen.Header.Get("X-Sallyport-Principal") != x.calls {
				t.Errorf("the upstream saw %v", seen.Header)
			}
		})
	}
	all := h.tell("POST /open HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nCf-Access-Jwt-Assertion: " + good + "\r\n\r\n")
	if seen, _ := h.model.seen(); statuses(all) != "200" || len(seen.Trailer) != 0 {
		t.Errorf("as a trailer: %s; the upstream saw %v", statuses(all), seen.Trailer)
	}
	h.ended() // so that all records are written
	for _, rec := range h.audit.records(t) {
		if rec["principal"] == "issuer/front:carol" && rec["dropped"] != nil {
			t.Errorf("the token that proves the caller was noted as dropped: %v", rec)
		}
	}
}

// TestTokenFieldOfAStrangerDoesNotCount checks a client that sends the field of the proxy itself.
// Nobody learns more than without it, and the record says why.
func TestTokenFieldOfAStrangerDoesNotCount(t *testing.T) {
	h, front := frontHouse(t, "[10.9.8.7, \"fd00::/8\"]")
	token, err := front.Sign(front.Claims("carol"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/": 401, "/both": 200, "/open": 200} {
		got := h.do("GET", path, "", map[string]string{"Cf-Access-Jwt-Assertion": token, "X-Forwarded-For": "10.9.8.7"})
		if path == "/" && got.reason() != "unlisted_credential" || got.StatusCode != want {
			t.Errorf("%s: got %d %s", path, got.StatusCode, got.body)
		}
		if want == 200 {
			if seen, _ := h.model.seen(); seen.Header.Get("Cf-Access-Jwt-Assertion") != "" {
				t.Errorf("%s: the upstream saw the token", path)
			}
		}
	}
	if got := h.do("GET", "/", "", map[string]string{"Cf-Access-Jwt-Assertion": token, "Authorization": ""}); got.reason() != "no_credential" {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	eventually(t, "the record says why", func() bool {
		for _, r := range h.audit.records(t) {
			if r["cause"] == "cf-access-jwt-assertion came from 127.0.0.1, which token_from does not list; the route takes issuer/front in cf-access-jwt-assertion" {
				return true
			}
		}
		return false
	})
	if strings.Contains(h.audit.text(), token) {
		t.Error("a record holds the token")
	}
}

// TestKeyFileIsReadAgain checks that a change of jwks_file is in force without a restart, and
// that a broken file leaves the last good one in force.
func TestKeyFileIsReadAgain(t *testing.T) {
	one, two := authtest.NewKey("one", "ES256", authtest.EC(elliptic.P256())), authtest.NewKey("two", "ES256", authtest.EC(elliptic.P256()))
	h := build(t, plan{files: map[string]string{"keys.json": authtest.KeySet(one.JWK())}, issuers: "  offline: {url: 'https://login.test', audience: models, jwks_file: keys.json}\n", routes: `
  - {host: models.test, upstream: '%s', callers: issuer/offline, rules: [{allow: "*"}]}
`})
	file := filepath.Join(filepath.Dir(h.file), "keys.json")
	expect := func(what string, first, second int) {
		t.Helper()
		for key, want := range map[*authtest.Key]int{&one: first, &two: second} {
			token := key.Token(authtest.Claims("https://login.test", time.Now(), nil))
			if got := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + token}); got.StatusCode != want {
				t.Errorf("%s: key %s: %d, want %d: %s", what, key.ID, got.StatusCode, want, got.body)
			}
		}
	}
	write := func(text string) proxy.ReloadReport {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return h.gateway.Reload(t.Context())
	}
	expect("at the start", 200, 401)
	if r := write("{"); r.Result != proxy.ReloadRefused || !strings.Contains(r.Faults.Error(), "issuers.offline.jwks_file: \"keys.json\": not a JSON Web Key Set") {
		t.Errorf("broken: %+v", r)
	}
	expect("after a broken file", 200, 401)
	write(authtest.KeySet(two.JWK()))
	expect("after the change", 401, 200)
	old := two
	two = authtest.NewKey("two", "ES256", authtest.EC(elliptic.P256()))
	write(authtest.KeySet(two.JWK()))
	one = old // its tokens were verified and cached
	expect("after another key got the same kid", 401, 200)
	if n := h.issuer.Fetches(); n > 1 {
		t.Errorf("%d fetches of another issuer's keys", n)
	}
}
