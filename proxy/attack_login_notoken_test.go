package proxy_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/auth/apikey"
	"sallyport/proxy"
)

const noTokenRoutes = `
  - {host: models.test, path: /token-first, upstream: '%s', callers: [issuer/corp, login/corp], rules: [{allow: "*"}]}
  - {host: models.test, path: /session-first, upstream: '%s', callers: [login/corp, issuer/corp], rules: [{allow: "*"}]}
  - {host: models.test, path: /keys, upstream: '%s', callers: [apikey, issuer/corp, login/corp], rules: [{allow: "*"}]}
  - {host: models.test, path: /tokens, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /socket, upstream: '%s', callers: [issuer/corp, login/corp], websocket: true, websocket_token: openai, rules: [{allow: "*"}]}
`

// TestAttackNoTokenBesideSession sends what scripts write into Authorization if they have no token, beside a good
// session, which then counts. It does not count beside any credential that failed, nor for pages of other sites,
// and nothing but a session counts beside no token.
func TestAttackNoTokenBesideSession(t *testing.T) {
	key := apikey.New()
	l := openLobby(t, plan{routes: noTokenRoutes, files: map[string]string{"revoked.txt": "# none yet\n"}, more: unwatched +
		fmt.Sprintf("revoked: revoked.txt\nprincipals: {alice: ['issuer/corp:alice', 'apikey:k']}\napi_keys: {k: {hash: '%s'}}\n", apikey.HashText(key)) + loginSections})
	b := l.browser(true)
	b.signIn()
	own := map[string]string{"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Origin": "https://models.test"}
	ask := func(b *browser, path, authorization string, more ...string) *reply {
		header := map[string]string{"Authorization": authorization}
		for name, value := range own {
			header[name] = value
		}
		for i := 0; i < len(more); i += 2 {
			header[more[i]] = more[i+1]
		}
		return b.request("POST", path, "x", header)
	}
	refused := func(name string, r *reply, hits int64, status int, reason string) {
		t.Helper()
		if r.StatusCode != status || r.reason() != reason || l.model.hits.Load() != hits {
			t.Errorf("%s: got %d %s; want %d %s, and the upstream untouched", name, r.StatusCode, r.body, status, reason)
		}
	}
	none := []string{"Bearer", "Bearer ", "bearer   ", "Bearer undefined", "bearer undefined", "Bearer null", "Bearer  null", "Bearer [object Object]", "Bearer [object Promise]"}
	for _, value := range none {
		for _, path := range []string{"/token-first", "/session-first", "/keys"} {
			r := ask(b, path, value)
			seen, _ := l.model.seen()
			if r.StatusCode != 200 || seen.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" || seen.Header.Get("Authorization") != "" {
				t.Errorf("%s %q: %d %s; the upstream got %v", path, value, r.StatusCode, r.body, seen.Header)
			}
		}
		hits := l.model.hits.Load()
		refused(value+" from another site", ask(b, "/token-first", value, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"), hits, 403, "cross_site")
		refused(value+" from another host", ask(b, "/session-first", value, "Sec-Fetch-Site", "same-site", "Origin", "https://sub.models.test"), hits, 403, "cross_site")
		refused(value+" where tokens alone count", ask(b, "/tokens", value), hits, 401, "bad_credential")
		refused(value+" and an API key", ask(b, "/keys", value, "X-Api-Key", key), hits, 401, "bad_credential")
		stranger := l.browser(true)
		for _, path := range []string{"/token-first", "/session-first", "/keys", "/tokens"} {
			r := ask(stranger, path, value)
			refused(value+" without a session", r, hits, 401, "bad_credential")
			if got := r.Header.Get("WWW-Authenticate"); !strings.Contains(got, `error="invalid_token"`) {
				t.Errorf("the challenge is %s", got)
			}
		}
		refused(value+" with a bad session", ask(stranger, "/token-first", value, "Cookie", "__Host-sallyport=1.AAAA"), hits, 401, "bad_session")
	}
	l.until("a record says that Authorization did not count", func() bool {
		return slices.ContainsFunc(l.audit.records(t), func(r map[string]any) bool {
			return r["dropped"] == "authorization" && r["credential"] == "login" && r["status"] == 200.0
		})
	})

	// Whatever could be somebody's token must be good.
	claims := l.issuer.Claims("alice", "models.predict")
	claims["jti"] = "a-1"
	withdrawn, err := l.issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	if r := ask(b, "/token-first", "Bearer "+withdrawn); r.StatusCode != 200 {
		t.Fatalf("before it is revoked: %d %s", r.StatusCode, r.body)
	}
	line, err := proxy.ParseRevocation("jti issuer/corp a-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Revoke(filepath.Join(filepath.Dir(l.file), "revoked.txt"), line); err != nil {
		t.Fatal(err)
	}
	l.reload("changed")
	claims["jti"], claims["exp"] = "a-2", claims["iat"].(int64)-1000
	expired, err := l.issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	good := l.token()
	for value, reason := range map[string]string{
		withdrawn: "revoked", expired: "token_expired", good[:len(good)-8] + "AAAAAAAA": "bad_credential", good + "undefined": "bad_credential", "undefined" + good: "bad_credential",
		"Undefined": "bad_credential", "NULL": "bad_credential", "undefined.undefined.undefined": "bad_credential", "undefined undefined": "bad_credential", "\"\"": "bad_credential",
		"null,": "bad_credential", "[object Object],": "bad_credential", "x": "bad_credential", "sp_undefined": "",
	} {
		for _, path := range []string{"/token-first", "/session-first", "/keys"} {
			if value == "sp_undefined" && path != "/keys" { // a key, which these routes do not take
				continue
			}
			hits, reason := l.model.hits.Load(), reason
			if value == "sp_undefined" {
				reason = "api_key_unknown"
			}
			refused(path+" "+value[:min(len(value), 20)], ask(b, path, "Bearer "+value), hits, 401, reason)
		}
	}
	hits := l.model.hits.Load()
	refused("two tokens", ask(b, "/token-first?access_token=x", "Bearer undefined"), hits, 401, "bad_credential")
	socket := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
		"Sec-Fetch-Site": "same-origin", "Origin": "https://models.test", "Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.undefined"}
	one := l.browser(false)
	one.signIn()
	refused("no token in a subprotocol", one.request("GET", "/socket", "", socket), hits, 401, "bad_credential")
	if r := ask(b, "/token-first", "Bearer "+good); r.StatusCode != 200 {
		t.Errorf("a good token: %d %s", r.StatusCode, r.body)
	}
	if r := b.request("POST", "/.sallyport/sign-out", "", own); r.StatusCode != 200 {
		t.Errorf("sign-out: %d %s", r.StatusCode, r.body)
	}
	refused("signed out", ask(b, "/token-first", "Bearer undefined"), hits+1, 401, "bad_credential")
}
