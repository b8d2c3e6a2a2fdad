package proxy_test

import (
	"crypto/elliptic"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

// refusedTokens are requests whose token is missing or invalid. A cause contains claims only if the
// token's signature is valid.
func refusedTokens(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{audience: "[models, spare], require: {tier: [gold, silver]}, max_lifetime: 1h, algorithms: [ES256, RS256]", routes: `
  - {host: models.test, path: /narrow, upstream: '%s', callers: issuer/corp, audience: spare, rules: [{allow: "*"}]}
  - {host: models.test, path: /strict, upstream: '%s', callers: issuer/corp, step_up: {acr_values: [mfa, hwk], max_age: 10m}, rules: [{allow: "*"}]}
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`})}
	with := func(changes map[string]any) string {
		all := map[string]any{"tier": "gold", "azp": "web"}
		for name, value := range changes {
			all[name] = value
		}
		return r.ask("GET / HTTP/1.1", "Authorization: Bearer "+r.bearer(all))
	}
	bare := func(value string) string { return r.ask("GET / HTTP/1.1", "Authorization: "+value) }
	who := `; its sub "alice", azp "web", iss "http://127.0.0.1:PORT"`
	ago := func(s int) int64 { return time.Now().Unix() - int64(s) }

	r.expect("no_credential", 401, "there is no field Authorization; the route takes issuer/corp", r.ask("GET / HTTP/1.1"))
	r.expect("unlisted_credential", 401, "Authorization has the scheme Basic; the route takes issuer/corp", bare("Basic "+r.secret("YWxpY2U6c2VjcmV0")))
	r.expect("unlisted_credential", 401, "Authorization has another scheme than Bearer; the route takes issuer/corp", bare(r.secret("sk-secret-of-alice")))
	r.expect("unlisted_credential", 401, "X-Api-Key has a key; the route takes issuer/corp", r.ask("GET / HTTP/1.1", "X-Api-Key: "+r.secret("sk-other-of-alice")))
	r.expect("unlisted_credential", 401, "Api-Key has a key; the route takes issuer/corp", r.ask("GET / HTTP/1.1", "Api-Key: "+r.secret("azure-secret-of-alice")))
	r.expect("unlisted_credential", 401, "the request is signed; the route takes issuer/corp", r.ask("GET / HTTP/1.1", `Signature-Input: a=("@method");created=1;tag="sallyport-req"`, "Signature: a=:AAAA:"))
	r.expect("no_credential", 401, "there is no field Authorization; the route takes issuer/corp", r.ask("GET / HTTP/1.1", `Signature-Input: a=("@method");created=1;tag="web-bot-auth"`, "Signature: a=:AAAA:"))
	r.expect("bad_credential", 401, "the token does not have three segments", bare("Bearer "+r.secret("opaque-token-of-alice")))
	r.expect("bad_credential", 401, "token header: not a JSON object", bare("Bearer "+r.secret("c2VjcmV0")+".e30.AA"))
	claims := authtest.Claims(r.issuer.URL, time.Now(), map[string]any{"sub": r.secret("unproven-subject"), "azp": r.secret("unproven-client")})
	forged := authtest.NewKey("kid-of-nobody", "ES256", authtest.EC(elliptic.P256()))
	r.expect("bad_credential", 401, `issuer corp: the token has kid "kid-of-nobody" and alg "ES256"; none of the issuer's 1 keys matches`, bare("Bearer "+forged.Token(claims)))
	r.expect("bad_credential", 401, `issuer corp: the token has kid "`+strings.Repeat("k", 48)+`…" and alg "ES256"; none of the issuer's 1 keys matches`, bare("Bearer "+authtest.NewKey(strings.Repeat("k", 500), "ES256", authtest.EC(elliptic.P256())).Token(claims)))
	r.expect("bad_credential", 401, `issuer corp: alg is "HS256", accepted are ES256, RS256`, bare("Bearer "+authtest.HS256(`{"alg":"HS256","kid":"a"}`, claims, []byte(r.secret("mac-secret")))))
	r.expect("bad_credential", 401, `issuer corp: typ is of unusual form, accepted are jwt, at+jwt, absent`, bare("Bearer "+authtest.HS256(`{"alg":"ES256","kid":"a","typ":"x\u0000y"}`, claims, nil)))
	r.expect("bad_credential", 401, "issuer corp: the signature does not match key \"…\"", bare("Bearer "+unsigned(r.bearer(map[string]any{"sub": r.secret("carol-unproven")}))+signature(r.bearer(nil))))
	r.expect("bad_credential", 401, `iss differs from the url of issuer corp, "http://127.0.0.1:PORT", only by a slash at its end`, with(map[string]any{"iss": r.issuer.URL + "/"}))
	r.expect("bad_credential", 401, `iss matches no issuer of the route; the route takes "http://127.0.0.1:PORT"`, with(map[string]any{"iss": r.secret("https://unproven.test")}))
	r.expect("bad_credential", 401, `iss is absent; the route takes "http://127.0.0.1:PORT"`, with(map[string]any{"iss": nil}))
	r.expect("token_expired", 401, "expired … s ago, skew is 1m"+who, with(map[string]any{"exp": ago(90), "iat": ago(300)}))
	r.expect("token_not_yet_valid", 401, "valid in … s (nbf), skew is 1m"+who, with(map[string]any{"nbf": ago(-1000)}))
	r.expect("token_not_yet_valid", 401, "issued … s in the future (iat), skew is 1m"+who, with(map[string]any{"iat": ago(-1000), "exp": ago(-2000)}))
	r.expect("wrong_audience", 401, `aud is "account", the route takes "models", "spare"`+who, with(map[string]any{"aud": "account"}))
	r.expect("wrong_audience", 401, `aud is absent, the route takes "models", "spare"`+who, with(map[string]any{"aud": nil}))
	r.expect("wrong_audience", 401, `aud is "models", the route takes "spare"`+who, r.ask("GET /narrow HTTP/1.1", "Authorization: Bearer "+r.bearer(map[string]any{"tier": "gold", "azp": "web"})))
	r.expect("missing_claim", 401, "exp is absent"+who, with(map[string]any{"exp": nil}))
	r.expect("missing_claim", 401, "iat is absent, and max_lifetime is set"+who, with(map[string]any{"iat": nil}))
	r.expect("missing_claim", 401, `tier is "bronze", require wants "gold", "silver"`+who, with(map[string]any{"tier": "bronze"}))
	r.expect("missing_claim", 401, `tier is absent, require wants "gold", "silver"`+who, with(map[string]any{"tier": nil}))
	r.expect("missing_claim", 401, `the claim of the principal is absent or not a string: sub; its azp "web", iss "http://127.0.0.1:PORT"`, with(map[string]any{"sub": nil}))
	r.expect("token_lifetime", 401, "exp is 7200 s after iat, max_lifetime is 1h"+who, with(map[string]any{"iat": ago(0), "exp": ago(-7200)}))
	r.expect("token_bound", 401, "cnf binds the token to a key, and bound_tokens of its issuer is off"+who, with(map[string]any{"cnf": map[string]any{"jkt": r.secret("thumbprint-of-key")}}))
	strict := func(changes map[string]any) string {
		changes["tier"], changes["azp"] = "gold", "web"
		return r.ask("GET /strict HTTP/1.1", "Authorization: Bearer "+r.bearer(changes))
	}
	r.expect("step_up", 401, `acr is absent, demanded is one of "mfa", "hwk"`+who, strict(map[string]any{"auth_time": ago(1)}))
	r.expect("step_up", 401, `acr is "`+strings.Repeat("1", 64)+`…", demanded is one of "mfa", "hwk"`+who, strict(map[string]any{"acr": strings.Repeat("1", 600)}))
	r.expect("step_up", 401, "auth_time is … s ago, max_age is 600 s, skew is 1m"+who, strict(map[string]any{"acr": "hwk", "auth_time": ago(700)}))
	long := strings.Repeat("ö\x01\"", 60)
	r.expect("wrong_audience", 401, "…", with(map[string]any{"aud": []string{long, long, long}, "azp": long}))

	bad := "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + r.bearer(map[string]any{"tier": "gold", "azp": "web", "aud": "account"}) + "\r\n\r\n"
	for _, status := range r.pipeline(bad, 1000, 429) {
		if status == 429 {
			r.expect("too_many_failures", 429, "more than 200 failed checks from 127.0.0.1; one is forgiven every 50ms", "")
		} else {
			r.expect("wrong_audience", 401, `aud is "account", the route takes "models", "spare"`+who, "")
		}
	}
	return r
}

// refusedForIssuers are requests whose token cannot be checked.
func refusedForIssuers(t *testing.T) *refusals {
	broken := map[string]*authtest.Issuer{"slash": authtest.Start(t), "other": authtest.Start(t), "down": authtest.Start(t), "keyless": authtest.Start(t), "hidden": authtest.Start(t)}
	key := authtest.NewKey("k", "ES256", authtest.EC(elliptic.P256()))
	issuers, callers := "", ""
	for name, iss := range broken {
		iss.Publish(key.JWK())
		issuers += fmt.Sprintf("  %s: {url: '%s', audience: models}\n", name, iss.URL)
		callers += ", issuer/" + name
	}
	broken["slash"].Identify(broken["slash"].URL + "/")
	broken["other"].Identify("https://login.test/realms/ml")
	broken["down"].Answer(authtest.Status(503))
	broken["keyless"].Publish()
	broken["hidden"].Answer(authtest.Text("<html>"))
	logged := &lines{}
	r := &refusals{house: build(t, plan{options: proxy.Options{Log: slog.New(slog.NewTextHandler(logged, nil))}, issuers: issuers + "  gone: {url: 'http://127.0.0.1:1', audience: models}\n", routes: `
  - {host: models.test, upstream: '%s', callers: [issuer/gone` + callers + `], rules: [{allow: "*"}]}
`})}
	ask := func(url string) string {
		token := key.Token(authtest.Claims(url, time.Now(), map[string]any{"sub": r.secret("unproven-subject")}))
		return r.ask("GET / HTTP/1.1", "Authorization: Bearer "+r.secret(token))
	}
	where := "http://127.0.0.1:PORT/.well-known/openid-configuration"
	r.expect("issuer_unavailable", 503, `issuer slash: keys not fetched: write url: http://127.0.0.1:PORT/, as `+where+` says; the configuration has "http://127.0.0.1:PORT"`, ask(broken["slash"].URL))
	r.expect("issuer_unavailable", 503, `issuer other: keys not fetched: `+where+`: the document names another issuer: it says "https://login.test/realms/ml", the configuration says "http://127.0.0.1:PORT": if the document is right, correct url, else discovery`, ask(broken["other"].URL))
	r.expect("issuer_unavailable", 503, `issuer down: keys not fetched: `+where+`: bad status 503`, ask(broken["down"].URL))
	r.expect("issuer_unavailable", 503, `issuer keyless: keys not fetched: http://127.0.0.1:PORT/jwks: no usable key`, ask(broken["keyless"].URL))
	r.expect("issuer_unavailable", 503, `issuer hidden: keys not fetched: `+where+`: garbage: …`, ask(broken["hidden"].URL))
	r.expect("issuer_unavailable", 503, `issuer gone: keys not fetched: `+where+`: unreachable: connection refused`, ask("http://127.0.0.1:1"))
	for _, want := range []string{"url=http://127.0.0.1:1/.well-known/openid-configuration", "write url: " + broken["slash"].URL + "/"} {
		if !strings.Contains(logged.text(), want) {
			t.Errorf("the log lacks %q: %s", want, logged.text())
		}
	}
	return r
}

// refusedSignatures are signed requests with an invalid signature or content.
func refusedSignatures(t *testing.T) *refusals {
	r := &refusals{house: signed(t, plan{https: fmt.Sprintf("127.0.0.1:%d", freePort(t)), more: twoProofs + "integrity: {memory: 1MiB}\n", routes: `
  - {host: models.test, path: /all, upstream: '%s', callers: {all: [issuer/corp, key]}, rules: [{allow: "*"}]}
  - {host: models.test, upstream: '%s', callers: key/acme, rules: [{allow: "*"}], integrity: {buffer: 1MiB}}
`})}
	send := func(e errand, change func(*errand)) string {
		made := e.signed(t)
		r.secret(strings.Trim(strings.TrimPrefix(made.signature, "sp="), ":"))
		if change != nil {
			change(made)
		}
		return r.tell(made.raw())
	}
	r.expect("signature_missing", 401, "there is no signature for this gateway; the route takes key/acme", r.ask("GET / HTTP/1.1"))
	r.expect("malformed", 401, "the signature cannot be read: …", send(errand{}, func(e *errand) { e.input = "sp=(" }))
	r.expect("stale", 401, "the signature is too old; compare the clocks: … s old, expired … s ago", send(errand{at: -time.Hour}, nil))
	r.expect("stale", 401, "the signature is too old; compare the clocks: … s old, accepted are 60 s", send(errand{at: -time.Hour, forever: true}, nil))
	r.expect("future", 401, "the signature is from the future; compare the clocks: … s ahead, accepted are 30 s", send(errand{at: time.Hour}, nil))
	r.expect("coverage", 401, "the signature does not cover all that it must: content-type is present and not covered", send(errand{cover: []string{"@authority", "@path", "@query", "content-digest"}}, nil))
	r.expect("bad_signature", 401, `the signature does not match: keyid "acme-1"`, send(errand{key: mustKey("acme-1", "wrong")}, nil))
	r.expect("bad_signature", 401, `the key is unknown: keyid "nobody-1"`, send(errand{key: keyOf("nobody-1")}, nil))
	r.expect("key_expired", 401, "the signing key has expired; use the new one: ended-1 ended … ago, at 2020-01-01T00:00:00Z (not_after)", send(errand{key: keyOf("ended-1")}, nil))
	r.expect("key_not_yet_valid", 401, "the signing key is not valid yet: early-1 begins in …, at 2100-01-01T00:00:00Z (not_before)", send(errand{key: keyOf("early-1")}, nil))
	r.expect("authority", 421, `the signature is for another host: "models.test:444"`, send(errand{authority: "models.test:444"}, nil))
	r.expect("digest_missing", 400, "the digest of the content is missing: no sha-256 or sha-512", send(errand{digest: "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"}, nil))
	r.expect("digest_mismatch", 400, "the content does not match its digest", send(errand{}, func(e *errand) { e.body = strings.ToUpper(e.body) }))
	r.expect("proofs_differ", 401, "the request proves both issuer/corp:bob and key:acme, and no entry of principals has both", func() string {
		e := errand{target: "/all"}
		e.fields = httpsig.Lines{{Name: "Authorization", Value: "Bearer " + r.bearer(map[string]any{"sub": "bob"})}}
		return send(e, nil)
	}())
	e := errand{}.signed(t)
	r.tell(e.raw())
	r.expect("replayed", 401, `the signature was used before: keyid "acme-1"`, r.tell(e.raw()))
	large := errand{method: "POST", body: strings.Repeat("x", 900<<10)}
	held := r.dial("models.test")
	_, _ = io.WriteString(held, strings.TrimSuffix(large.signed(t).raw(), strings.Repeat("x", 100<<10)))
	r.until("most of the memory is held", func() bool { return r.signatures().MemoryUsed >= 700<<10 })
	r.expect("body_memory", 503, "the body needs 928KiB, and …KiB of 1MiB are left (integrity.memory)", send(large, nil))
	_ = held.Close()
	r.until("it is given back", func() bool { return r.signatures().MemoryUsed == 0 })
	r.expect("client_gone", 499, "the client closed the connection within the request", "")
	return r
}

// refusedNonces are signed requests whose nonce cannot be remembered or recognized.
func refusedNonces(t *testing.T) *refusals {
	r := &refusals{house: signed(t, plan{more: "integrity: {nonces: 3000, nonces_per_key: 1000}\n"})}
	c := r.client(false)
	for range 1000 {
		r.send(c, errand{method: "GET"}.signed(t).request(t))
	}
	r.expect("replay_full", 503, `no room to remember another signature of key "acme-1" (integrity.nonces_per_key)`, r.tell(errand{method: "GET"}.signed(t).raw()))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(r.file), noNonces)); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.expect("replay_window", 503, "signatures created before … may have been used", r.tell(errand{}.signed(t).raw()))
	return r
}

// refusedByRules are calls of known callers that no rule allows.
func refusedByRules(t *testing.T) *refusals {
	r := &refusals{house: signed(t, plan{audience: "models, groups: roles", more: `
policies:
  readers: [{deny: delete}, {allow: get}, {allow: put, who: {scope: admin}}]
`, routes: `
  - {host: models.test, path: /scope, upstream: '%s', callers: [issuer/corp, key], rules: [{allow: get, who: {scope: models.read}}, {allow: post, who: {scope: [models.predict, admin]}}]}
  - {host: models.test, path: /some, upstream: '%s', callers: issuer/corp, rules: [{allow: get}, {allow: post, who: {scope: admin}}]}
  - {host: models.test, path: /group, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {group: [ml-admins, ops], scope: admin}}]}
  - {host: models.test, path: /policy, upstream: '%s', callers: issuer/corp, rules: readers}
  - {host: models.test, path: /claim, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {claim: {tier: gold}}}]}
  - {host: models.test, path: /bob, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {principal: issuer/corp:bob}}]}
  - {host: models.test, path: /not-alice, upstream: '%s', callers: issuer/corp, rules: [{deny: "*", who: {principal: issuer/corp:alice}}, {allow: "*"}]}
  - host: models.test
    path: /v1
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules: [{allow: "*", models: [public, "meta/*"]}, {deny: "*", models: secret}]
`})}
	ask := func(line string, changes map[string]any) string {
		return r.ask(line, "Authorization: Bearer "+r.bearer(changes), "Content-Length: 0")
	}
	scopes := map[string]any{"scope": "openid profile"}
	r.expect("insufficient_scope", 403, `rules[0] would allow get with scope models.read; rules[1] would allow post with scope models.predict or admin; the token has "openid profile"`, ask("POST /scope HTTP/1.1", scopes))
	r.expect("insufficient_scope", 403, `rules[0] would allow get with scope models.read; rules[1] would allow post with scope models.predict or admin; the token has no scopes`, ask("POST /scope HTTP/1.1", map[string]any{"scope": nil}))
	r.expect("forbidden", 403, `rules[0] would allow get with scope models.read; rules[1] would allow post with scope models.predict or admin; the caller has no scopes`, r.tell(errand{target: "/scope"}.signed(t).raw()))
	r.expect("insufficient_scope", 403, `rules[1] would allow it with scope admin; the token has "openid profile"`, ask("POST /some HTTP/1.1", scopes))
	r.expect("forbidden", 403, `no rule allows delete: rules[0] allows get; rules[1] allows post`, ask("DELETE /some HTTP/1.1", scopes))
	r.expect("forbidden", 403, `rules[0] would allow it with scope admin and group ml-admins or ops; the token has "openid profile" and the groups "dev"`, ask("GET /group HTTP/1.1", map[string]any{"scope": "openid profile", "roles": []string{"dev"}}))
	r.expect("forbidden", 403, "policies.readers[0] denies it", ask("DELETE /policy HTTP/1.1", nil))
	r.expect("forbidden", 403, `no rule allows post: policies.readers[1] allows get; policies.readers[2] allows put`, ask("POST /policy HTTP/1.1", nil))
	r.expect("forbidden", 403, `rules[0] would allow it with claim tier gold; the token has tier "bronze"`, ask("GET /claim HTTP/1.1", map[string]any{"tier": "bronze"}))
	r.expect("forbidden", 403, `rules[0] would allow it with claim tier gold; the token has no tier`, ask("GET /claim HTTP/1.1", nil))
	r.expect("forbidden", 403, `rules[0] would allow it with principal issuer/corp:bob`, ask("GET /bob HTTP/1.1", nil))
	r.expect("forbidden", 403, `rules[0] denies it`, ask("GET /not-alice HTTP/1.1", nil))
	r.expect("forbidden", 403, `no rule allows model "private": rules[0] allows public, meta/*`, r.chat("private"))
	r.expect("forbidden", 403, `rules[1] denies model "secret"`, r.chat("secret"))
	long := strings.Repeat("ö\x01\"", 400)
	r.expect("insufficient_scope", 403, "…", ask("POST /some HTTP/1.1", map[string]any{"scope": strings.Repeat("a-scope ", 300)}))
	r.expect("forbidden", 403, "…", ask("GET /claim HTTP/1.1", map[string]any{"tier": []string{long, long}}))
	return r
}

// unsigned returns a token without its signature, but with the last dot.
func unsigned(token string) string { return token[:strings.LastIndexByte(token, '.')+1] }

// signature returns the last part of a token.
func signature(token string) string { return token[strings.LastIndexByte(token, '.')+1:] }

// chat asks for a model of an OpenAI server.
func (r *refusals) chat(model string) any {
	return r.do("POST", "/v1/chat/completions", `{"model":"`+model+`"}`, map[string]string{"Authorization": "Bearer " + r.bearer(nil)})
}
