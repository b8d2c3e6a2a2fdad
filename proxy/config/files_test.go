package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// includedConfig writes a configuration of two files into a folder and returns the
// name of the main one.
func includedConfig(t *testing.T, dir string) string {
	t.Helper()
	for name, text := range map[string]string{
		"gateway.yaml": `
include: conf.d/*.yaml
tls: {acme: {email: ops@example.com, ca: acme-roots.pem}}
issuers: {corp: {url: https://login.example.com, audience: models, ca: issuer.pem, introspection: {client_id: a, client_secret: {file: a.secret}, certificate: {cert: client.pem, key: client.key}}}}
signing_keys: {acme-1: {principal: acme, secret: {file: acme.secret}}}
audit: {file: audit.log}
`,
		"conf.d/churn.yaml": `
upstreams: {churn: {rest: https://churn:8000, ca: churn.pem}}
routes: [{host: churn.example.com, upstream: churn, callers: [issuer/corp, key/acme], rules: [{allow: "*"}]}]
`,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "gateway.yaml")
}

func TestConfigFilesAreAllThatItWasReadFrom(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", dir)
	c, err := Load(includedConfig(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range c.Files() {
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rel)
	}
	want := []string{"a.secret", "acme-roots.pem", "acme.secret", "client.key", "client.pem", "conf.d/churn.pem", "conf.d/churn.yaml", "gateway.yaml", "issuer.pem"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, got := range map[string]string{
		"sallyport-acme": string(c.TLS.ACME.Storage), "sallyport-nonces": string(c.Integrity.State), "audit.log": string(c.Audit.File),
	} {
		if got != filepath.Join(dir, name) {
			t.Errorf("got %s, want %s in the folder for state", got, name)
		}
	}
}

func TestFaultsOfFilesShowPathsAsWritten(t *testing.T) {
	c, err := Load(includedConfig(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	err = c.CheckFiles()
	if err == nil {
		t.Fatal("missing files are no faults")
	}
	for _, want := range []string{`issuers.corp.ca: "issuer.pem": `, `issuers.corp.introspection.client_secret: reading a secret`, `issuers.corp.introspection.certificate.cert: `, `churn.yaml:2: upstreams.churn.ca: "churn.pem": `, `tls.acme.ca: "acme-roots.pem": `} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the faults lack %q:\n%v", want, err)
		}
	}
}

func TestWordsThatNameNoFileAreFaults(t *testing.T) {
	const rest = `
issuers: {corp: {url: https://login.example.com, audience: models}}
routes: [{host: a.example.com, upstream: http://a:1, callers: issuer/corp, rules: [{allow: "*"}]}]
`
	for text, want := range map[string]string{
		"tls: {acme: {email: a@b.c, storage: off}}":           `tls.acme.storage: "off": is not a valid destination here`,
		"tls: {local: {dir: stdout}}":                         `tls.local.dir: "stdout": is not a valid destination here`,
		"tls: {local: {}}\nintegrity: {state: none}":          `integrity.state: "none": is not a valid destination here`,
		"tls: {local: {}}\naudit: {file: off}":                `audit.file: "off": the audit log cannot be switched off`,
		"tls: {local: {}}\nintegrity: {state: off}\n":         "",
		"tls: {local: {dir: ./off}}\naudit: {file: stdout}\n": "",
	} {
		_, err := Parse("gateway.yaml", []byte(text+rest))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}
