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

// TestServeDrainsAtSIGTERM checks that serve starts, and ends without an error.
func TestServeDrainsAtSIGTERM(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "gateway.yaml")
	text := `listen: {https: "127.0.0.1:0", http: off, health: off}
tls: {local: {}}
routes:
  - {host: a.example, upstream: "http://127.0.0.1:1", callers: anonymous, rules: [{allow: "*"}]}
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run([]string{"serve", "-c", config}, io.Discard, w)
		_ = w.Close()
	}()
	var said strings.Builder
	for lines := bufio.NewScanner(log); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), `"msg":"ready"`) {
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := <-status; got != exitOK {
		t.Errorf("status %d, want %d", got, exitOK)
	}
	// The folder of the authority is relative to that of the configuration.
	for _, want := range []string{`"routes":1`, `"msg":"draining"`, filepath.Join(dir, "sallyport-ca")} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, said.String())
		}
	}
}
