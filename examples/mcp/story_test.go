// Package mcp holds the story of MCP clients, which find the issuer of a route by its metadata.
package mcp

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// program is a command that runs a program of this folder with the installed SDK.
func program(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", append([]string{name}, args...)...)
	cmd.Dir = dir
	return cmd
}

// TestClientFindsTheIssuer runs the client of the official SDK, which knows only the URL of the
// server and its own secret.
func TestClientFindsTheIssuer(t *testing.T) {
	story.Need(t, "node")
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(story.Installed(t, "mcp", "mcp/package-lock.json"), "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	provider := story.StartProvider(t)
	address := story.FreeAddress(t)
	server := program(t, dir, "server.mjs")
	server.Env = append(os.Environ(), "PORT="+address[strings.LastIndexByte(address, ':')+1:])
	story.Start(t, "MCP server", server).Listens(t, address)
	gateway := story.StartGateway(t, "https://localhost:9000", provider.URL, "../openid-provider/provider.crt", provider.CA, "127.0.0.1:7000", address)

	var roots []byte
	for _, file := range []string{gateway.CA, provider.CA} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, text...)
	}
	if err := os.WriteFile(filepath.Join(dir, "roots.pem"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
	client := program(t, dir, "client.mjs", gateway.URL("/mcp"))
	client.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS=roots.pem", "CLIENT_SECRET="+provider.Secret, "ISSUER="+provider.URL)
	stuck := time.AfterFunc(time.Minute, func() { _ = client.Process.Kill() })
	defer stuck.Stop()
	out, err := client.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{
		"POST " + gateway.URL("/mcp") + " 401",
		"GET " + gateway.URL("/.well-known/oauth-protected-resource/mcp") + " 200",
		"GET " + provider.URL + "/.well-known/oauth-authorization-server 200",
		"POST " + provider.URL + "/token 200",
		"POST " + gateway.URL("/mcp") + " 200",
	}
	if !strings.HasPrefix(string(out), strings.Join(want, "\n")+"\n") || !strings.HasSuffix(string(out), "\nissuer/lab:batch, token not seen\n") {
		t.Errorf("the client printed\n%s\nwant first\n%s", out, strings.Join(want, "\n"))
	}
}
