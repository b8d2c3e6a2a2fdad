package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// warned returns the warnings of a configuration with these routes and top-level lines.
func warned(t *testing.T, more, routes string) []string {
	t.Helper()
	c, err := Parse("gateway.yaml", []byte(more+`
issuers: {corp: {url: https://login.example.com, audience: models, groups: groups}}
signing_keys:
  acme-1: {principal: acme, secret: {env: A}}
  orbit-1: {principal: orbit, secret: {env: B}}
principals: {batch: ["issuer/corp:svc-batch", "key:acme"]}
routes:
`+routes))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range c.Warnings() {
		all = append(all, f.Path+": "+f.Problem)
	}
	return all
}

func TestUnusedSectionsAreWarnedOf(t *testing.T) {
	got := warned(t, `
tls: {local: {}}
upstreams: {used: {rest: "http://a:1"}, unused: {rest: "http://b:1"}}
policies: {used: [{allow: "*"}], unused: [{allow: get}]}`,
		`  - {host: a.example, upstream: used, callers: key, rules: used}`)
	want := []string{"upstreams.unused: no route uses it", "policies.unused: no route uses it", "issuers.corp: no route uses it"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestCredentialsThatOnlyReadAreWarnedOf(t *testing.T) {
	const logins = "tls: {local: {}}\nclient_certificates: {ca: ca.pem}\nlogins: {corp: {issuer: corp, client_id: gateway, session: {kind: memory}}}\n"
	const warning = "routes[0].cors.credentials: lets pages of these origins read with a person's session; their unsafe methods and WebSockets are refused (cross_site)"
	for _, c := range []struct {
		callers, cors string
		want          bool
	}{
		{"[login/corp]", "{origins: https://a.example, credentials: true}", true},
		{"[issuer/corp, login/corp]", "{origins: https://a.example, credentials: true}", true},
		{"[login/corp]", "{origins: https://a.example}", false},
		{"[issuer/corp]", "{origins: https://a.example, credentials: true}", false},
		{"[login/corp, cert]", "{origins: https://a.example, credentials: true}", false}, // which certificates need
	} {
		got := warned(t, logins, `  - {host: a.example, upstream: "http://a:1", callers: `+c.callers+`, cors: `+c.cors+`, rules: [{allow: "*"}]}`)
		if slices.Contains(got, warning) != c.want {
			t.Errorf("%s with %s: warned of %q; want this one: %t", c.callers, c.cors, got, c.want)
		}
	}
}

func TestWordsThatNobodyIsAskedForAreWarnedOf(t *testing.T) {
	const text = `
tls: {local: {}}
issuers:
  corp: {url: https://login.example.com, audience: models, acr: {claim: amr, ask_as: {mfa: "urn:x", otp: "urn:y", hwk: "urn:z"}}}
logins: {corp: {issuer: corp, client_id: gateway, acr_values: [mfa, hwk], session: {kind: memory}}}
routes:
  - {host: a.example, upstream: "http://a:1", callers: login/corp, STEP rules: [{allow: "*"}]}`
	for step, want := range map[string]string{
		"":                                   `gateway.yaml:4: issuers.corp.acr.ask_as.otp: "urn:y": no acr_values list otp; write otp under acr_values of a login, or of step_up of a route, or remove it`,
		"step_up: {acr_values: [otp, mfa]},": "",
	} {
		c, err := Parse("gateway.yaml", []byte(strings.Replace(text, "STEP", step, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(c.Warnings().Error()); got != want {
			t.Errorf("%s: got %s; want %s", step, got, want)
		}
	}
}

func TestLoginsAreWarnedOf(t *testing.T) {
	const login = "{issuer: corp, client_id: gateway"
	route := func(callers, who string) string {
		return "  - {host: a.example, upstream: 'http://a:1', callers: [" + callers + "], rules: [{allow: '*', who: " + who + "}]}"
	}
	const memory = login + ", session: {kind: memory}}"
	domain := func(name string) string { return login + ", session: {kind: memory, cookie_domain: " + name + "}}" }
	for _, c := range []struct {
		name, more, routes string
		want               []string
	}{
		{"fine, and the issuer is used", "logins: {corp: " + memory + "}", route("login/corp", "{group: [ml]}"), nil},
		{"a rule for the issuer's people", "logins: {corp: " + memory + "}", route("login/corp", "{principal: 'issuer/corp:alice'}"), nil},
		{"unused", "logins: {corp: " + memory + "}", route("issuer/corp", "{group: [ml]}"), []string{"logins.corp: no route uses it"}},
		{"a key of the process", "logins: {corp: " + login + "}}", route("login/corp", "{group: [ml]}"), []string{"logins.corp.session.keys: missing, so all sessions end when the gateway restarts"}},
		{"nobody can be allowed", "logins: {corp: " + memory + "}", route("login/corp, key/acme", "{principal: 'key:acme'}"), []string{"routes[0].callers[0]: no rule can ever allow this caller"}},
		{"sessions for one host in a domain", "logins: {corp: " + domain("lab.example") + "}", strings.ReplaceAll(route("login/corp", "{group: [ml]}"), "a.example", "a.lab.example"), []string{"logins.corp.session.cookie_domain: only a.lab.example has routes with this login, and all servers of the domain get its sessions"}},
		{"a domain that is too large", "logins: {corp: " + domain("lab.example") + "}", strings.ReplaceAll(route("login/corp", "{group: [ml]}"), "a.example", "[a.ml.lab.example, '*.b.ml.lab.example']"), []string{"logins.corp.session.cookie_domain: all hosts of its routes are in ml.lab.example, and the other servers of the domain get its sessions too"}},
		{"the least domain", "logins: {corp: " + domain("lab.example") + "}", strings.ReplaceAll(route("login/corp", "{group: [ml]}"), "a.example", "[a.lab.example, B.Lab.Example.]"), nil},
		{"all hosts of a domain", "logins: {corp: " + domain("lab.example") + "}", strings.ReplaceAll(route("login/corp", "{group: [ml]}"), "a.example", "'*.lab.example'"), nil},
		{"pages for nobody", "pages: {title: Lab}", route("issuer/corp", "{group: [ml]}"), []string{"pages: there are no logins, so nobody sees these pages"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := warned(t, "tls: {local: {}}\n"+c.more, c.routes); !slices.Equal(got, c.want) {
				t.Errorf("got %q; want %q", got, c.want)
			}
		})
	}
}

// Files of secrets that every user can read are named wherever the configuration has one.
func TestReadableSecretsAreWarnedOf(t *testing.T) {
	file := func(mode os.FileMode) string {
		name := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(name, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		return name
	}
	got := warned(t, fmt.Sprintf(`
tls: {local: {}}
logins: {corp: {issuer: corp, client_id: gateway, client_secret: {file: %q}, session: {keys: {file: %q}}}}
upstreams: {m: {rest: 'https://m:1', credentials: {bearer: {file: %q}}}}
`, file(0o600), file(0o644), file(0o604)), `  - {host: a.example, upstream: m, callers: [login/corp], rules: [{allow: '*', who: {group: [ml]}}]}`)
	for i, path := range []string{"logins.corp.session.keys: ", "upstreams.m.credentials.bearer: "} {
		if len(got) != 2 || !strings.HasPrefix(got[i], path) || !strings.HasSuffix(got[i], "can be read by every user of this machine") {
			t.Errorf("got %q", got)
		}
	}
}

func TestUnusedAPIKeysAreWarnedOf(t *testing.T) {
	hash := func(digit string) string { return "hash: 'sha256:" + strings.Repeat(digit, 64) + "'" }
	got := warned(t, `
tls: {local: {}}
api_keys:
  fine: {`+hash("1")+`}
  shared: {`+hash("2")+`, principal: fine}
  unused: {`+hash("4")+`}`,
		`  - {host: a.example, upstream: 'http://a:1', callers: [issuer/corp, apikey/fine], rules: [{allow: '*'}]}`)
	want := []string{"api_keys.unused: no route uses it"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
	got = warned(t, "tls: {local: {}}\napi_key_file: keys", `  - {host: a.example, upstream: 'http://a:1', callers: issuer/corp, rules: [{allow: '*'}]}`)
	if want := []string{"api_key_file: no route uses its keys"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestEndsOfAPIKeysAreWarnedOf(t *testing.T) {
	c, err := Parse("gateway.yaml", []byte(`
tls: {local: {}}
api_keys:
  far: {hash: "sha256:`+strings.Repeat("1", 64)+`", not_after: 2027-12-30}
  past: {hash: "sha256:`+strings.Repeat("2", 64)+`", not_after: 2026-11-29}
  near: {hash: "sha256:`+strings.Repeat("3", 64)+`", not_after: 2026-12-05}
routes: [{host: a.example, upstream: "http://a:1", callers: apikey, rules: [{allow: "*"}]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	var got []string
	for _, f := range c.EndWarnings(c.Ends(false, now), now) {
		got = append(got, f.Path)
	}
	if want := []string{"api_keys.past.not_after", "api_keys.near.not_after"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestEndOfAReplacedAPIKeySecretIsNoRenewalThatIsDue(t *testing.T) {
	c, err := Parse("gateway.yaml", []byte(`
tls: {local: {}}
api_keys:
  moving: {hash: ["sha256:`+strings.Repeat("1", 64)+`@2026-12-13", "sha256:`+strings.Repeat("2", 64)+`"]}
  ending: {hash: ["sha256:`+strings.Repeat("3", 64)+`@2026-12-13", "sha256:`+strings.Repeat("4", 64)+`@2026-12-13"]}
routes: [{host: a.example, upstream: "http://a:1", callers: apikey, rules: [{allow: "*"}]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	ends := c.Ends(false, time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC))
	if len(ends) != 3 {
		t.Fatalf("got %d ends, want 3: %+v", len(ends), ends)
	}
	for _, e := range ends {
		replaced := e.Name == "moving:11111111"
		if e.Renewing != replaced || strings.Contains(e.Cure, "keygen") == replaced {
			t.Errorf("%s: renewing is %t, and the cure %q", e.Name, e.Renewing, e.Cure)
		}
	}
}

// The rule asks for a group, and the issuer does not say where groups are.
func TestGroupsThatNoIssuerHasAreWarnedOf(t *testing.T) {
	for rules, want := range map[string][]string{
		`[{allow: "*", who: {group: ml}}]`:                                 {"issuer/corp", "login/corp"},
		`[{allow: "*", who: {group: ml}}, {allow: get}]`:                   nil,
		`[{allow: "*", who: {scope: ml}}, {allow: get, who: {group: ml}}]`: nil,
		`[{allow: "*"}, {deny: "*", who: {group: banned}}]`:                nil,
	} {
		c, err := Parse("gateway.yaml", []byte(`
tls: {local: {}}
issuers: {corp: {url: https://login.example.com, audience: models}}
logins: {corp: {issuer: corp, client_id: gateway, session: {kind: memory}}}
routes: [{host: a.example, upstream: "http://a:1", callers: [issuer/corp, login/corp], rules: `+rules+`}]
`))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range c.Warnings() {
			got = append(got, f.Value)
			if !strings.Contains(f.Problem, "issuers.corp has no groups") || !strings.Contains(f.Cure, "groups:") {
				t.Errorf("%s: %+v", rules, f)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q; want %q", rules, got, want)
		}
	}
}

// A group that is misspelt shows beside the one that the rule wants.
func TestWarningOfAnAPIKeyNamesItsGroups(t *testing.T) {
	const hash = "{hash: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	for groups, want := range map[string]string{
		"":                             "those of this caller have no groups",
		", groups: [ml-teem, b]":       `those of this caller have only the groups "b", "ml-teem"`,
		" # and a file":                "API keys bring groups, and no scopes or claims",
		", groups: [ml-team, ml-teem]": "",
	} {
		more, rule := "tls: {local: {}}\napi_keys: {nb: "+hash+groups, "group: ml-team"
		if strings.Contains(groups, "file") {
			more, rule = "tls: {local: {}}\napi_key_file: x\napi_keys: {nb: "+hash, "scope: x"
		}
		got := warned(t, more+"}}", "  - {host: a.example, upstream: 'http://a:1', callers: apikey/nb, rules: [{allow: '*', who: {"+rule+"}}]}\n  - {host: b.example, respond: 503, callers: issuer/corp}")
		if (want == "") != (len(got) == 0) || want != "" && !strings.Contains(got[0], want) {
			t.Errorf("%q: got %q; want %q", groups, got, want)
		}
	}
}

func TestCallersWhomNoRuleCanAllowAreWarnedOf(t *testing.T) {
	for _, c := range []struct {
		callers, rules string
		never          []string // paths of the callers
	}{
		{"[issuer/corp, key/acme]", `[{allow: "*", who: {scope: models.predict}}]`, []string{"[1]"}},
		{"[issuer/corp, key]", `[{allow: "*", who: {group: ml}}]`, []string{"[1]"}},
		{"[issuer/corp, key]", `[{allow: "*", who: {claim: {team: ml}}}]`, []string{"[1]"}},
		{"[issuer/corp, key/acme]", `[{allow: "*", who: {scope: models.predict}}, {allow: post, who: {principal: "key:acme"}}]`, nil},
		{"[issuer/corp, key/acme]", `[{allow: "*", who: {scope: models.predict}}, {allow: post, who: {principal: batch}}]`, nil},
		{"[issuer/corp, key/orbit]", `[{allow: "*", who: {principal: batch}}]`, []string{"[1]"}},
		{"[key/acme, key/orbit]", `[{allow: "*", who: {principal: "key:acme"}}]`, []string{"[1]"}},
		{"[issuer/corp, key/acme]", `[{allow: "*", who: {principal: "key:acme"}}]`, []string{"[0]"}},
		{"[issuer/corp, key/acme]", `[{allow: "*", who: {principal: "key:acme", scope: models.predict}}]`, []string{"[0]", "[1]"}},
		{"[issuer/corp, key/acme]", `[{allow: "*"}]`, nil},
		{"[issuer/corp, key/acme]", `[{allow: "*"}, {deny: "*"}]`, []string{"[0]", "[1]"}},
		{"[issuer/corp, key/acme]", `[{allow: "*"}, {deny: "*", who: {scope: banned}}]`, nil},
		{"issuer/corp, serves: openai", `[{allow: "*", models: "*"}, {deny: "*", models: "secret-*"}]`, nil},
		{"issuer/corp, serves: openai", `[{allow: "*", models: [a, b]}, {deny: "*", models: a}]`, nil},
		{"issuer/corp, serves: openai", `[{allow: "*", models: [a, b]}, {deny: "*", models: a}, {deny: "*", models: b}]`, []string{""}},
		{"issuer/corp, serves: openai", `[{allow: "*", models: [a, b]}, {deny: "*", models: "**"}]`, []string{""}},
		{"issuer/corp, serves: openai", `[{allow: "*", models: a}, {deny: "*", models: a, who: {scope: banned}}]`, nil},
		{"{all: [issuer/corp, key/acme]}", `[{allow: "*", who: {scope: models.predict}}]`, nil},
		{"{all: [key/acme, issuer/corp]}", `[{allow: "*", who: {scope: models.predict}}]`, []string{".all[0]"}},
		{"anonymous", `[{allow: "*", who: {principal: "issuer/corp:alice"}}]`, []string{""}},
		{"anonymous", `[{allow: "*", who: {principal: anonymous}}]`, nil},
	} {
		got := warned(t, "tls: {local: {}}", "  - {host: a.example, upstream: 'http://a:1', callers: "+c.callers+", rules: "+c.rules+"}\n  - {host: b.example, respond: 503, callers: issuer/corp}")
		var want []string
		for _, at := range c.never {
			want = append(want, "routes[0].callers"+at+": no rule can ever allow this caller")
		}
		if len(got) != len(want) {
			t.Errorf("%s %s\ngot  %q\nwant %q", c.callers, c.rules, got, want)
			continue
		}
		for i := range want {
			if !strings.HasPrefix(strings.Replace(got[i], "callers[0]: no", "callers"+c.never[i]+": no", 1), want[i]) {
				t.Errorf("%s %s\ngot  %q\nwant %q", c.callers, c.rules, got, want)
			}
		}
	}
}

func TestAllowFromThatIncludesABalancerIsWarnedOf(t *testing.T) {
	const route = "  - {host: a.example, upstream: 'http://a:1', callers: issuer/corp, rules: [{allow: '*'}], allow_from: FROM}"
	for _, c := range []struct{ more, from, want string }{
		{"tls: {local: {}}\ntrusted_proxies: 10.0.0.5", "10.0.0.0/8", "overlaps with 10.0.0.5/32 of trusted_proxies"},
		{"tls: {local: {}}\ntrusted_proxies: 10.0.0.0/16", "10.0.0.7", "overlaps with 10.0.0.0/16 of trusted_proxies"},
		{"tls: {local: {}}\ntrusted_proxies: 10.0.0.5", "192.0.2.0/24", ""},
		{"tls: {local: {}}\ntrusted_proxies: 10.0.0.5", "10.0.0.0/8, deny_from: 10.0.0.4/31", ""},
		{"tls: {local: {}}\nlisten: {proxy_protocol: {from: 10.0.0.5}}", "10.0.0.0/8", ""},
		{"tls: {local: {}}\nlisten: {proxy_protocol: {from: 10.0.0.5, optional: true}}", "10.0.0.0/8", "overlaps with 10.0.0.5/32 of listen.proxy_protocol.from"},
	} {
		got := strings.Join(warned(t, c.more, strings.ReplaceAll(route, "FROM", c.from)), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s, allow_from %s\ngot  %s\nwant %s", c.more, c.from, got, c.want)
		}
	}
}

// TestRevocationsOfNobodyAreWarnedOf: a mistyped name must not look like a revocation.
func TestRevocationsOfNobodyAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	revoked, keys, config := filepath.Join(dir, "revoked.txt"), filepath.Join(dir, "keys"), filepath.Join(dir, "gateway.yaml")
	hash := "sha256:" + strings.Repeat("1", 64)
	for file, text := range map[string]string{
		keys: "listed " + strings.ReplaceAll(hash, "1", "2") + "\n",
		config: "tls: {local: {}}\nrevoked: revoked.txt\napi_key_file: keys\napi_keys: {fine: {hash: '" + hash + `', principal: lab}}
issuers: {corp: {url: https://login.example.com, audience: models}}
basic: {legacy: {htpasswd: {file: users}, until: 2099-01-01}}
signing_keys: {acme-1: {principal: acme, secret: {env: A}}}
routes: [{host: a.example, upstream: 'http://a:1', callers: [issuer/corp, apikey, key, basic/legacy], rules: [{allow: '*'}]}]
`,
		revoked: `# right
principal issuer/corp:alice
principal key:acme
principal apikey:lab
principal basic/legacy:bob
principal cert:spiffe://lab/batch
jti issuer/corp a-1
key issuer/corp kid
key acme-1
apikey fine
apikey fine:11111111
apikey listed
apikey listed:22222222
certificate 1f2a CN=Lab CA
# wrong
principal issuer/crop:alice
principal key:acme-1
principal basic/old:bob
jti issuer/crop a-1
key issuer/crop kid
key acme
apikey lab
apikey fine:22222222
`,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(config)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range c.RevokedWarnings() {
		_, line, _ := strings.Cut(f.Value, "revoked.txt:")
		got = append(got, line+" "+strings.TrimPrefix(f.Problem, "revokes nobody: "))
	}
	want := []string{
		`16 there is no issuer "crop"`, `17 no signing key has the principal "acme-1"`, `18 there is no entry "old" under basic`, `19 there is no issuer "crop"`,
		`20 there is no issuer "crop"`, `21 there is no signing key "acme"`, `22 there is no API key "lab"`, `23 API key fine has no such secret`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestReferenceWarnsOfNothing checks gateway.yaml, which people copy.
func TestReferenceWarnsOfNothing(t *testing.T) {
	c, err := Load("../../gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Warnings(); len(w) > 0 {
		t.Error(w)
	}
}
