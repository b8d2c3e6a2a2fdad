package story

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Node returns the command that runs a program of the story with the packages that install.sh has
// put into a folder, and trusts the certificates of the file ca besides the system's. The program may be
// of another story.
func Node(t testing.TB, installed, program, ca string, args ...string) *exec.Cmd {
	t.Helper()
	Need(t, "node")
	dir := t.TempDir()
	source, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Base(program)
	if err := os.WriteFile(filepath.Join(dir, program), source, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", append([]string{program}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+ca)
	return cmd
}
