package story

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// StartNginx starts nginx with a configuration of the story, in a folder of its
// own, and waits until it listens at an address. The pairs of old and new text in
// replace, each of which must occur, put free addresses in the place of those that
// are written.
func StartNginx(t testing.TB, config, dir, address string, replace ...string) *Process {
	t.Helper()
	Need(t, "nginx")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !bytes.Contains(b, []byte(replace[i])) {
			t.Fatalf("%s has no %q any more", config, replace[i])
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(strings.NewReplacer(replace...).Replace(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
	directives := "daemon off;"
	if os.Getuid() == 0 {
		directives += " user root;" // the folder is nobody else's to read
	}
	p := Start(t, "nginx", exec.Command("nginx", "-p", dir, "-c", "nginx.conf", "-e", "stderr", "-g", directives))
	p.Listens(t, address)
	return p
}
