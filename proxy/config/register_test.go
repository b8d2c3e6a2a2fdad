package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRegistrationsNameTheURLsOfEachLogin(t *testing.T) {
	const logins = `
tls: {local: {}}
issuers: {corp: {url: https://login.example.com, audience: models}}
logins:
  all: {issuer: corp, client_id: pages, session: {kind: memory}}
  any: {issuer: corp, client_id: wiki, session: {kind: memory}}
  one: {issuer: corp, client_id: site, session: {kind: memory, cookie_domain: example.com, sign_in_host: a.example.com}}
  unused: {issuer: corp, client_id: other, session: {kind: memory}}
routes:
  - {host: [x.test, "*.test"], upstream: "http://127.0.0.1:1", callers: login/all, rules: [{allow: "*"}]}
  - {host: "*.any.example", upstream: "http://127.0.0.1:1", callers: login/any, rules: [{allow: "*"}]}
  - {host: [a.example.com, b.example.com], upstream: "http://127.0.0.1:1", callers: login/one, rules: [{allow: "*"}]}
`
	for listen, port := range map[string]string{"listen: {https: ':443'}": "", "listen: {https: '127.0.0.1:8443'}": ":8443", "listen: {https: ':8443'}\npublic_https: 443": "", "public_https: 9443": ":9443"} {
		c, err := Parse("gateway.yaml", []byte(listen+logins))
		if err != nil {
			t.Fatal(err)
		}
		want := []Registration{
			{
				Login: "all", Issuer: "corp", ClientID: "pages",
				Redirects: []string{"https://x.test" + port + "/.sallyport/callback/all"}, SignedOut: []string{"https://x.test" + port + "/.sallyport/signed-out"},
				BackChannel: "https://x.test" + port + "/.sallyport/backchannel-logout", Wildcards: []string{"*.test"},
			},
			{Login: "any", Issuer: "corp", ClientID: "wiki", Redirects: []string{}, SignedOut: []string{}, Wildcards: []string{"*.any.example"}},
			{
				Login: "one", Issuer: "corp", ClientID: "site",
				Redirects: []string{"https://a.example.com" + port + "/.sallyport/callback/one"}, SignedOut: []string{"https://a.example.com" + port + "/.sallyport/signed-out"},
				BackChannel: "https://a.example.com" + port + "/.sallyport/backchannel-logout",
			},
		}
		if diff := cmp.Diff(want, c.Registrations()); diff != "" {
			t.Errorf("%s: %s", listen, diff)
		}
	}
}
