package auth

import (
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

// TestIntrospectionCheckReportsFaults checks the place and the text of each fault, and that
// valid settings have none.
func TestIntrospectionCheckReportsFaults(t *testing.T) {
	const client = "client_id: gateway\nclient_secret: {env: SECRET}\n"
	for name, c := range map[string]struct{ issuer, text, field, problem string }{
		"smallest":            {text: client},
		"all":                 {text: client + "url: https://login.example.com/introspect\nclient_auth: post\ncertificate: {cert: a.pem, key: a.key}\nprefix: ory_at_\njwt: true\nsigned: true\nmax_age: 30s\nnegative_max_age: 5s\ntimeout: 2s\nconcurrency: 64\n"},
		"a certificate alone": {text: "client_id: gateway\ncertificate: {cert: a.pem, key: a.key}\n"},
		"with jwks":           {issuer: "jwks: https://login.example.com/certs\n", text: client + "url: https://login.example.com/introspect\n"},
		"with jwks, no url":   {"jwks: https://login.example.com/certs\n", client, "url", "jwks replaces discovery"},
		"http":                {"", client + "url: http://login.example.com/introspect\n", "url", "http to another machine"},
		"insecure http":       {issuer: "insecure_http: true\n", text: client + "url: http://login.example.com/introspect\n"},
		"a metadata service":  {"", client + "url: https://169.254.169.254/\n", "url", "never dialed"},
		"no client":           {"", "client_secret: {env: SECRET}\n", "client_id", "clients that it knows"},
		"no secret":           {"", "client_id: gateway\n", "client_secret", "nothing proves the gateway"},
		"client_auth":         {"", client + "client_auth: client_secret_basic\n", "client_auth", "not a way"},
		"no key":              {"", client + "certificate: {cert: a.pem}\n", "certificate.key", "a certificate without its key"},
		"no certificate":      {"", client + "certificate: {key: a.pem}\n", "certificate.cert", "a certificate without its file"},
		"prefix with a space": {"", client + "prefix: \"a b\"\n", "prefix", "no token begins so"},
		"long prefix":         {"", client + "prefix: " + strings.Repeat("a", 65) + "\n", "prefix", "no token begins so"},
		"prefix of API keys":  {"", client + "prefix: sp_a\n", "prefix", "API keys of the gateway"},
		"max_age":             {"", client + "max_age: 2h\n", "max_age", "out of bounds"},
		"negative_max_age":    {"", client + "negative_max_age: 1ms\n", "negative_max_age", "out of bounds"},
		"timeout":             {"", client + "timeout: 1m\n", "timeout", "out of bounds"},
		"concurrency":         {"", client + "concurrency: 1000\n", "concurrency", "out of bounds"},
	} {
		t.Run(name, func(t *testing.T) {
			var file struct {
				Issuers map[string]IssuerConfig `yaml:"issuers"`
			}
			indented := func(text, by string) string {
				return strings.ReplaceAll(by+strings.TrimSpace(text), "\n", "\n"+by) + "\n"
			}
			text := "issuers:\n  corp:\n" + indented("url: https://login.example.com\naudience: models\n"+c.issuer, "    ") + "    introspection:\n" + indented(c.text, "      ")
			_, faults := setting.Decode("gateway.yaml", []byte(text), &file)
			ic := file.Issuers["corp"]
			ic.Check("issuers.corp", &faults)
			switch {
			case c.problem == "" && len(faults) > 0:
				t.Errorf("got faults %v, want none", faults)
			case c.problem != "" && len(faults) != 1:
				t.Errorf("got faults %v, want one", faults)
			case c.problem != "" && (faults[0].Path != "issuers.corp.introspection."+c.field || !strings.Contains(faults[0].Problem, c.problem) || faults[0].Cure == ""):
				t.Errorf("got %v, want one at %s with %q and a cure", faults[0], c.field, c.problem)
			}
		})
	}
}
