package config

import (
	"strings"
	"testing"
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
