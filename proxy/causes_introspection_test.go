package proxy_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// refusedByIntrospection are requests whose token an issuer was asked about. Neither a record
// nor the log holds the token or the secret of the client.
func refusedByIntrospection(t *testing.T) *refusals {
	iss := map[string]*authtest.Issuer{"asked": authtest.Start(t), "broken": authtest.Start(t), "stranger": authtest.Start(t)}
	const secret = "introspection-s3cret"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	issuers, callers := "", ""
	for name, i := range iss {
		issuers += fmt.Sprintf("  %s: {url: '%s', audience: models, introspection: {client_id: gateway, client_secret: {file: '%s'}, prefix: %s_}}\n", name, i.URL, file, name)
		callers += ", issuer/" + name
	}
	logged := &lines{}
	r := &refusals{house: build(t, plan{options: proxy.Options{Log: slog.New(slog.NewTextHandler(logged, nil))}, issuers: issuers, routes: `
  - {host: models.test, upstream: '%s', callers: [` + callers[2:] + `], rules: [{allow: "*"}]}
`})}
	r.secret(secret)
	ask := func(token string) string { return r.ask("GET / HTTP/1.1", "Authorization: Bearer "+r.secret(token)) }
	know := func(changes map[string]any) string {
		claims := iss["asked"].Claims("alice", "models.predict")
		for name, value := range changes {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		token := fmt.Sprintf("asked_0paque-t0ken-%d", len(r.rows))
		iss["asked"].Know(token, claims)
		return ask(token)
	}
	iss["broken"].AnswerLookUps(authtest.Text("<html>"))
	iss["stranger"].AnswerLookUps(authtest.Status(401))
	who := `; its sub "alice", iss "http://127.0.0.1:PORT"`
	r.expect("token_inactive", 401, `issuer asked: the issuer says that the token is not active: it has ended, was revoked, is unknown there, or client "gateway" may not see it`, ask("asked_unknown-t0ken"))
	r.expect("token_inactive", 401, "issuer asked: the issuer says that the token is not active: …", r.ask("GET / HTTP/1.1", "Authorization: Bearer asked_unknown-t0ken"))
	r.expect("bad_credential", 401, "the token is not a JWT, and has none of the prefixes of the route's issuers", ask("0paque-of-nobody"))
	r.expect("bad_credential", 401, "the token has characters that no bearer token has", ask("asked_0paque|x"))
	r.expect("bad_credential", 401, `issuer asked: it says that iss of the token is "https://other.test"`, know(map[string]any{"iss": "https://other.test"}))
	r.expect("bad_credential", 401, `issuer asked: token_type is "refresh_token", not that of an access token`, know(map[string]any{"token_type": "refresh_token"}))
	r.expect("token_bound", 401, "cnf binds the token to a key, and bound_tokens of its issuer is off"+who, know(map[string]any{"cnf": map[string]any{"jkt": "x"}}))
	r.expect("wrong_audience", 401, `aud is "account", the route takes "models"`+who, know(map[string]any{"aud": "account"}))
	r.expect("wrong_audience", 401, `aud is absent, the route takes "models"`+who, know(map[string]any{"aud": nil}))
	r.expect("token_expired", 401, "expired … s ago, skew is 1m"+who, know(map[string]any{"exp": time.Now().Unix() - 100}))
	r.expect("issuer_unavailable", 503, `issuer broken: token not looked up: http://127.0.0.1:PORT/introspect: unusable answer: its type is "text/html", not application/json`, ask("broken_0paque"))
	r.expect("issuer_unavailable", 503, `issuer broken: token not looked up: the issuer failed just before: http://127.0.0.1:PORT/introspect: unusable answer: …`, ask("broken_an0ther"))
	r.expect("issuer_unavailable", 503, `issuer stranger: token not looked up: http://127.0.0.1:PORT/introspect: bad status 401: the issuer refuses the gateway itself: correct client_id, client_secret, client_auth or certificate, or let this client introspect there`, ask("stranger_0paque"))
	for _, s := range r.secrets {
		if strings.Contains(logged.text(), s) {
			t.Errorf("the log holds the secret %q", s)
		}
	}
	if !strings.Contains(logged.text(), "issuer not asked about a token") {
		t.Errorf("the log lacks the failing issuers: %s", logged.text())
	}
	if metrics := r.get("/metrics"); !strings.Contains(metrics, `sallyport_introspection_lookups_total{issuer="broken",outcome="failed"} 1`) ||
		!strings.Contains(metrics, `sallyport_introspection_fault{issuer="stranger"} 1`) || !strings.Contains(metrics, `sallyport_introspection_cached_total{issuer="asked",outcome="refused"} 1`) {
		t.Error("the metrics lack the look-ups")
	}
	return r
}
