package clients

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"context"

	"sallyport/examples/story"
)

// program is a client that signs a call, verifies the answer and prints it.
type program struct {
	name, who string
	dir       string
	env       []string
	args      []string // then come what [house.call] adds
	ca        string   // the variable, or the option, that names the file of roots
}

// programs are all clients that verify, ours and others'.
func (h *house) programs(t *testing.T) []program {
	t.Helper()
	story.Need(t, "node")
	binary := filepath.Join(t.TempDir(), "client")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./go/client").CombinedOutput(); err != nil {
		t.Fatalf("building the client: %v\n%s", err, out)
	}
	node := installed(t, "node", "node/client.mjs")
	sig := installed(t, "interop", "interop/npm_http_message_sig.mjs")
	python := h.environment(t)
	return []program{
		{name: "python requests", who: "python", dir: "python", env: python, args: []string{h.python, "client.py"}, ca: "REQUESTS_CA_BUNDLE="},
		{name: "go", who: "go", dir: "go", args: []string{binary}, ca: "-ca"},
		{name: "npm http-message-signatures", who: "node", dir: node, args: []string{"node", "client.mjs"}, ca: "NODE_EXTRA_CA_CERTS="},
		{name: "npm http-message-sig", who: "interop", dir: sig, args: []string{"node", "npm_http_message_sig.mjs"}, ca: "NODE_EXTRA_CA_CERTS="},
		{name: "pypi http-message-signatures", who: "interop", dir: "interop", env: python, args: []string{h.python, "pypi_http_message_signatures.py"}, ca: "REQUESTS_CA_BUNDLE="},
		{name: "pypi requests-http-signature", who: "interop", dir: "interop", env: python, args: []string{h.python, "pypi_requests_http_signature.py"}, ca: "REQUESTS_CA_BUNDLE="},
	}
}

// installed makes a folder with a program beside the packages of node or interop.
func installed(t *testing.T, packagesOf, file string) string {
	t.Helper()
	packages := story.Installed(t, "clients-"+packagesOf, "clients/"+packagesOf+"/package-lock.json")
	dir := t.TempDir()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, filepath.Base(file)), string(b))
	if err := os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// call runs a program on a URL and returns what it printed, to standard output and
// to standard error, and whether it was content.
func (h *house) call(t *testing.T, p program, ca, url string) (out, errs string, ok bool) {
	t.Helper()
	args := append([]string(nil), p.args...)
	env := append(os.Environ(), p.env...)
	id, question := p.who+"-2026-11", `{"a": 40, "b": 2}`
	if p.ca == "-ca" {
		args = append(args, "-ca", ca, "-id", id, "-key", h.key(p.who), url, question)
	} else {
		args, env = append(args, url, id, h.key(p.who), question), append(env, p.ca+ca)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, env, &stdout, &stderr
	err := cmd.Run()
	return strings.TrimSpace(stdout.String()), strings.TrimSpace(stderr.String()), err == nil
}

// signed sees that the gateway takes what each program signs, that the app learns
// who it was, and that each program takes the answer.
func (h *house) signed(t *testing.T) {
	for _, p := range h.all {
		t.Run(p.name, func(t *testing.T) {
			want := `200 {"caller":"key:` + p.who + `","prediction":42}`
			for _, query := range []string{"", "?a=b%20c&d=%2F~'*"} {
				if out, errs, ok := h.call(t, p, h.gateway.CA, h.gateway.URL("/predict"+query)); out != want || !ok {
					t.Errorf("%q: printed %q, want %q; %s", query, out, want, errs)
				}
			}
			out, errs, ok := h.call(t, p, h.gateway.CA, h.gateway.URL("/asgi/predict"))
			if want := `200 {"prediction": 42, "caller": "key:` + p.who + `"}`; out != want || !ok {
				t.Errorf("signed by the upstream too: printed %q, want %q; %s", out, want, errs)
			}
		})
	}
}
