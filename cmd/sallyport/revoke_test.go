package main

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRevokeMakesTheRunningGatewayReload adds a line while serve runs, and reads what the command says.
func TestRevokeMakesTheRunningGatewayReload(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "gateway.yaml")
	for name, text := range map[string]string{"revoked.txt": "", "gateway.yaml": `listen: {https: "127.0.0.1:0", http: off, health: off, control: g.sock}
tls: {local: {}}
revoked: revoked.txt
reload: {watch: false}
routes:
  - {host: a.example, upstream: "http://127.0.0.1:1", callers: anonymous, rules: [{allow: "*"}]}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run([]string{"serve", "-c", config}, io.Discard, w)
		_ = w.Close()
	}()
	var out, faults strings.Builder
	revoked := make(chan int, 1)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), `"msg":"ready"`) {
			go func() { // the log must be read meanwhile
				revoked <- run([]string{"revoke", "-c", config, "key", "acme-1"}, &out, &faults)
				_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
			}()
		}
	}
	if got := <-status; got != exitOK {
		t.Errorf("serve: status %d", got)
	}
	if got := <-revoked; got != exitOK || !strings.Contains(out.String(), ": key acme-1\nconfig ") || strings.Count(out.String(), "revoked changed") != 1 {
		t.Errorf("revoke: status %d, %s%s", got, out.String(), faults.String())
	}
}
