package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/auth/login"
	"sallyport/proxy/setting"
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

// TestNamesTooLongForTheFilesBesideThemAreFaults writes names that the file system takes, but not with
// the endings of the files that the gateway makes beside them.
func TestNamesTooLongForTheFilesBesideThemAreFaults(t *testing.T) {
	long := func(n int) string { return strings.Repeat("n", n) }
	for name, c := range map[string]struct{ text, path, fault, cure string }{
		"nonces": {"integrity: {state: " + long(248) + "}", "integrity.state",
			"its name is too long, since the gateway makes a file beside it with .unclean at the end of the name", "write a name of 247 bytes or less; it has 248"},
		"longest for nonces":    {text: "integrity: {state: " + long(247) + "}"},
		"audit":                 {"audit: {file: " + long(256) + "}", "audit.file", "its name is too long for the file system", "write a name of 255 bytes or less; it has 256"},
		"longest for audit":     {text: "audit: {file: " + long(255) + "}"},
		"sessions":              {"STATE: " + long(252), "logins.corp.session.state", "has a name that is too long, since the gateway makes a file beside it with .new at the end of the name", "write a name of 251 bytes or less; it has 252"},
		"sessions of 256 bytes": {"STATE: " + long(256), "logins.corp.session.state", "has a name that is too long", "write a name of 251 bytes or less; it has 256"},
		"longest for sessions":  {text: "STATE: " + long(251)},
		"local authority":       {"tls: {local: {dir: " + long(256) + "}}", "tls.local.dir", "its name is too long for the file system", "write a name of 255 bytes or less; it has 256"},
		"ACME":                  {"tls: {acme: {email: a@example.com, storage: " + long(256) + "}}", "tls.acme.storage", "its name is too long for the file system", "write a name of 255 bytes or less; it has 256"},
	} {
		dir := t.TempDir()
		state, line := "off", c.text
		if rest, found := strings.CutPrefix(c.text, "STATE: "); found {
			state, line = rest, ""
		}
		if !strings.HasPrefix(line, "tls:") {
			line += "\ntls: {local: {}}"
		}
		text := `
issuers: {corp: {url: https://login.example.com, audience: models}}
signing_keys: {acme-1: {principal: acme, secret: {file: acme.secret}}}
logins: {corp: {issuer: corp, client_id: gateway, session: {keys: {file: keys}, state: ` + state + `}}}
routes: [{host: a.example.com, upstream: 'http://a:1', callers: [issuer/corp, key, login/corp], rules: [{allow: "*"}]}]
` + line + "\n"
		for file, content := range map[string]string{"gateway.yaml": text, "acme.secret": strings.Repeat("A", 43) + "=\n", "keys": login.NewKey() + "\n"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := Load(filepath.Join(dir, "gateway.yaml"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var faults setting.Faults
		switch errors.As(cfg.CheckFiles(), &faults); {
		case c.fault == "" && len(faults) > 0:
			t.Errorf("%s: %v", name, faults)
		case c.fault == "":
		case len(faults) != 1:
			t.Errorf("%s: got %d faults: %v", name, len(faults), faults)
		case faults[0].Path != c.path || faults[0].Line == 0 || !strings.Contains(faults[0].Value, long(50)) || !strings.Contains(faults[0].Problem, c.fault) || faults[0].Cure != c.cure:
			t.Errorf("%s: %+v", name, faults[0])
		}
	}
}
