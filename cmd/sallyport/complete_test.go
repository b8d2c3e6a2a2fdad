package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completed returns the completions of the last of args, and the directive for the shell.
func completed(t *testing.T, args ...string) (offers []string, directive string) {
	t.Helper()
	var out bytes.Buffer
	if status := run(append([]string{cobra.ShellCompNoDescRequestCmd}, args...), &out, &bytes.Buffer{}); status != exitOK {
		t.Fatalf("%v: status %d", args, status)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	text := `tls: {local: {}}
routes:
  - {name: half, host: [models.example.com, "*.example.net"], upstream: "http://127.0.0.1:8501", callers: anonymous, rules: [{allow: "*"}]}
  - {name: chat, host: chat.example.com, upstream: "http://127.0.0.1:8000", callers: anonymous, rules: [{allow: "*"}]}
`
	if err := os.WriteFile("gateway.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, []byte(strings.ReplaceAll(text, "half", "third")), 0o600); err != nil {
		t.Fatal(err)
	}
	const noFiles = ":4"
	for _, tt := range []struct {
		args      string
		want      string
		directive string
	}{
		{"keygen --route ", "chat half", noFiles},
		{"keygen -c " + other + " --route ", "chat third", noFiles},
		{"keygen -c nowhere.yaml --route ", "", noFiles},
		{"keygen --url ", "https://chat.example.com/ https://models.example.com/", noFiles},
		{"keygen --alg ", "hmac-sha256 ed25519", noFiles},
		{"keygen --out ", "", ":16"},
		{"keygen --partner ", "", noFiles},
		{"cert renew ", "chat.example.com models.example.com", noFiles},
		{"cert renew chat.example.com ", "models.example.com", noFiles},
		{"cert list -o ", "table json", noFiles},
		{"check --output ", "table json", noFiles},
		{"check -c ", "yaml yml", ":8"},
		{"check ", "", noFiles},
		{"version -o ", "text json", noFiles},
		{"curl ", "https://chat.example.com/ https://models.example.com/", noFiles},
		{"curl -X ", "GET HEAD POST PUT PATCH DELETE", noFiles},
		{"curl --secret ", "", ":0"},
		{"curl -o ", "", ":0"},
		{"init --upstream ", "http://127.0.0.1:8000 http://127.0.0.1:8501", noFiles},
		{"ca issue --for ", "24h", noFiles},
		{"ca issue --csr ", "csr pem", ":8"},
		{"ca issue --spiffe ", "", noFiles},
		{"ca list --output ", "table json", noFiles},
		{"ca init --dir ", "", ":16"},
		{"ca revoke --dir nowhere ", "", ":0"},
		{"revoke ", "principal jti key apikey certificate", noFiles},
		{"token --login --redirect ", "http://127.0.0.1/callback", noFiles},
		{"token --wait ", "", noFiles},
		{"verify --tag ", "sallyport-req sallyport-resp", noFiles},
	} {
		args := strings.Split(tt.args, " ")
		offers, directive := completed(t, args...)
		if got := strings.Join(offers, " "); got != tt.want || directive != tt.directive {
			t.Errorf("%q: got %q with %s, want %q with %s", tt.args, got, directive, tt.want, tt.directive)
		}
	}
	if offers, _ := completed(t, ""); !slices.Contains(offers, "completion") {
		t.Errorf("completion is not offered among %q", offers)
	}
}

// A shell offers files for a flag without a completion.
func TestEveryFlagHasACompletion(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				return
			}
			if _, ok := c.GetFlagCompletionFunc(f.Name); !ok {
				t.Errorf("%s --%s has no completion", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}
