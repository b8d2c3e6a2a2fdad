package doctor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
)

// TestTokens compares what is said about tokens with the golden file. No finding may repeat a part of
// a token or a key.
func TestTokens(t *testing.T) {
	models := server(t, http.NotFoundHandler())
	corp, other := issuerOn(t), issuerOn(t)
	sign := func(i *authtest.Issuer, changes map[string]any) string {
		claims := i.Claims("batch", "models.predict")
		for name, value := range changes {
			claims[name] = value
		}
		token, err := i.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	key := apikey.New()
	config := start + fmt.Sprintf("issuers: {corp: {url: %q, audience: models}, other: {url: %q, audience: models}}\n", corp.URL, other.URL) +
		"api_keys: {lab: {hash: \"" + apikey.HashText(key) + "\"}}\nroutes:\n" +
		fmt.Sprintf("  - {name: chat, host: chat.localhost, upstream: \"http://%s\", callers: issuer/corp, rules: [{allow: post, who: {scope: models.predict}}]}\n", models) +
		fmt.Sprintf("  - {name: admin, host: chat.localhost, path: /admin, upstream: \"http://%s\", callers: issuer/corp, rules: [{allow: post, who: {scope: admin}}]}\n", models) +
		fmt.Sprintf("  - {name: lab, host: lab.localhost, upstream: \"http://%s\", callers: [issuer/other, apikey/lab], rules: [{allow: \"*\"}]}\n", models) +
		fmt.Sprintf("  - {name: open, host: open.localhost, upstream: \"http://%s\", callers: anonymous, rules: [{allow: \"*\"}]}\n", models)
	good := sign(corp, nil)
	var b strings.Builder
	for _, c := range []struct{ name, text, route string }{
		{"good", good + "\n", ""},
		{"good, for one route", good, "chat"},
		{"known, and no rule", good, "admin"},
		{"known, and no rule, by the path", good, "chat.localhost/admin/users"},
		{"not of that route", good, "https://lab.localhost/v1"},
		{"an open route", good, "open"},
		{"no such route", good, "nowhere.example/v1"},
		{"Bearer", "Bearer " + good, ""},
		{"a header", "authorization: Bearer " + good, "chat"},
		{"two lines", good[:40] + "\n" + good[40:], "chat"},
		{"blanks and quotes", ` "` + good + `" `, "chat"},
		{"the answer of the token endpoint", `{"access_token":"` + good + `","expires_in":300}`, "chat"},
		{"expired for another audience", sign(corp, map[string]any{"iat": 1700000000, "exp": 1700000300, "aud": "account"}), ""},
		{"signature cut", good[:len(good)-6], ""},
		{"API key", key, ""},
		{"API key of nobody", apikey.New(), ""},
		{"opaque", "2YotnFZFEjr1zCsicMWpAA", "chat"},
	} {
		w := newWorld(t)
		fmt.Fprintf(&b, "== %s\n", c.name)
		all := w.examine(t, config, c.text, c.route)
		i := strings.Index(all, " token ")
		b.WriteString(all[strings.LastIndex(all[:i], "\n")+1:])
		for part := range strings.FieldsFuncSeq(c.text, func(r rune) bool { return strings.ContainsRune(". \n\"", r) }) {
			if len(part) > 20 && (strings.HasPrefix(part, "ey") || strings.HasPrefix(part, apikey.Prefix)) && strings.Contains(all, part[:20]) {
				t.Errorf("%s: the findings repeat the token", c.name)
			}
		}
	}
	golden(t, "tokens.txt", hashes(b.String()))
}

// hashes replaces hashes of keys.
func hashes(text string) string {
	for i := strings.Index(text, "sha256:"); i >= 0; i = strings.Index(text, "sha256:") {
		end := i + strings.IndexAny(text[i:], "\n;")
		text = text[:i] + "HASH" + text[end:]
	}
	return text
}

// issuerOn serves an issuer with its own key on loopback.
func issuerOn(t *testing.T) *authtest.Issuer {
	t.Helper()
	var handler http.Handler
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	i, err := authtest.NewIssuer(authtest.IssuerConfig{URL: s.URL, Audience: "models", Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	handler = i
	return i
}

func TestTokenFileThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	o := w.options(w.file(t, "gateway.yaml", start+"routes:\n"+route("a.localhost", "http://127.0.0.1:1", "callers: anonymous")))
	for name, want := range map[string]string{
		filepath.Join(w.dir, "nowhere"):                         "no such file",
		w.file(t, "empty", " \n"):                               "is empty",
		w.file(t, "large", strings.Repeat("a", maxTokenFile+1)): "is larger than",
		os.TempDir(): "is a directory",
	} {
		o.Token = name
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}
