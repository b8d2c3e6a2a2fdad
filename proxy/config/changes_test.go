package config

import (
	"strings"
	"testing"
	"time"
)

// Operators read these lines after each edit.
func TestReloadSaysWhatChangedAndWhyNothingDid(t *testing.T) {
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
	at := time.Now()
	if got, want := UnchangedSummary(before, at, at), "as loaded at "+at.Local().Format("15:04:05")+"; the gateway watches them, so an edit from before that counts already; if you edited one later, "; !strings.Contains(got, want) {
		t.Errorf("watched: %s", got)
	}
	if got := UnchangedSummary(parse(text+"reload: {watch: false}\n"), at, at); strings.Contains(got, "watches") {
		t.Errorf("not watched: %s", got)
	}
}
