package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/login"
)

// Operators read these lines after each edit.
func TestReloadSaysWhichLoginChanged(t *testing.T) {
	const text = `
tls: {local: {}}
issuers: {corp: {url: https://login.example.com, audience: models}}
logins: {corp: {issuer: corp, client_id: pages, session: {kind: memory}}}
routes: [{host: x.test, upstream: "http://127.0.0.1:1", callers: login/corp, rules: [{allow: "*"}]}]
`
	parse := func(text string) *Config {
		c, err := Parse("gateway.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before, after := parse(text), parse(strings.Replace(text, "client_id: pages", "client_id: site", 1))
	if got := ChangedSummary(OutlineOf(before), OutlineOf(after)); !strings.HasSuffix(got, ": 1 login changed") {
		t.Errorf("after a change of a login: %s", got)
	}
}

// TestReloadSaysWhoSignsInAgain: an operator who replaces a key or a client learns in the answer whom it costs.
func TestReloadSaysWhoSignsInAgain(t *testing.T) {
	dir := t.TempDir()
	var lines []string
	for range 3 {
		lines = append(lines, login.NewKey()+"\n")
	}
	for name, text := range map[string]string{"one": lines[0], "two": lines[1] + lines[0], "other": lines[2], "copy": lines[0]} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outline := func(entry, url string) Outline {
		c, err := Parse(filepath.Join(dir, "gateway.yaml"), []byte(`
tls: {local: {}}
issuers: {corp: {url: "`+url+`", audience: models}}
logins: {corp: {issuer: corp, `+entry+`}}
routes: [{host: x.test, upstream: "http://127.0.0.1:1", callers: login/corp, rules: [{allow: "*"}]}]
`))
		if err != nil {
			t.Fatal(err)
		}
		return OutlineOf(c)
	}
	const (
		url    = "https://login.example.com"
		cookie = "client_id: pages, session: {keys: {file: one}}"
		all    = ": people sign in again "
		some   = ": some people sign in again "
	)
	for _, c := range []struct{ from, to, want string }{
		{cookie, "client_id: site, session: {keys: {file: one}}", all + "(client_id)"},
		{cookie, "client_id: site, session: {kind: memory}", all + "(client_id, session.kind)"},
		{"client_id: pages, session: {kind: memory}", cookie, all + "(session.kind)"},
		{cookie, "client_id: pages, session: {kind: cookie, keys: {file: copy}}", ""},
		{cookie, "client_id: pages, session: {keys: {file: two}}", ""},
		{"client_id: pages, session: {keys: {file: two}}", cookie, some + "(session.keys)"},
		{cookie, "client_id: pages, session: {keys: {file: other}}", all + "(session.keys)"},
		{cookie, "client_id: pages, session: {}", all + "(session.keys)"},
		{"client_id: pages, session: {}", cookie, all + "(session.keys)"},
		{cookie, "client_id: pages, session: {keys: {file: one}, cookie_domain: x.test}", all + "(session.cookie_domain)"},
		{cookie, "client_id: pages, acr_values: [a], session: {keys: {file: one}, absolute: 2h}", some + "(acr_values, session.absolute)"},
		{"client_id: pages, acr_values: [a], session: {keys: {file: one}}", "client_id: pages, acr_values: [a, b], session: {keys: {file: one}, absolute: 20h}", ""},
		{"client_id: pages, acr_values: [a], session: {keys: {file: one}}", cookie, ""},
		{cookie, "client_id: pages, title: Lab, prompt: login, session: {keys: {file: one}, idle: 2h}", ""},
	} {
		changes := DescribeChanges(outline(c.from, url), outline(c.to, url))
		if len(changes) != 1 || changes[0].String() != "login corp changed"+c.want {
			t.Errorf("%s to %s: got %q, want %q", c.from, c.to, changes, "login corp changed"+c.want)
		}
	}
}
