package story

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Folder is the folder in which a story works, as README's reader does.
type Folder string

// File returns the path of a file in the folder.
func (f Folder) File(name string) string { return filepath.Join(string(f), name) }

// Write writes a file that only its owner can read.
func (f Folder) Write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(f.File(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Sallyport runs the binary in the folder, and returns what it prints.
func (f Folder) Sallyport(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Getenv("SALLYPORT"), args...)
	cmd.Dir = string(f)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sallyport %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// Python returns a command that runs a program of a virtual environment in a folder of its own, which
// is its home too.
func (f Folder) Python(t testing.TB, venv, name, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(venv, "bin", program), args...)
	cmd.Dir = f.File(name)
	if err := os.MkdirAll(cmd.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir, "PYTHONDONTWRITEBYTECODE=1", "MLFLOW_DISABLE_TELEMETRY=true")
	return cmd
}
