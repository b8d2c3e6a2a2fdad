// Package story helps end-to-end tests: how does a test run real programs side
// by side, and leave nothing behind?
//
// A story starts servers, an OpenID provider and the gateway as processes on
// loopback, speaks to them as users would (curl, Python), and stops exactly the
// processes that it started. What is missing on a machine skips the story with
// the reason, unless SALLYPORT_STORIES=required turns that into a failure.
package story

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Run builds the sallyport binary once for the tests of a package, runs them and
// removes it: func TestMain(m *testing.M) { os.Exit(story.Run(m)) }. With
// $SALLYPORT set, that binary is taken instead.
func Run(m *testing.M) int {
	if os.Getenv("SALLYPORT") != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sallyport-story-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "sallyport")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./cmd/sallyport")
	build.Dir = filepath.Join("..", "..")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building sallyport:", err)
		return 1
	}
	if err := os.Setenv("SALLYPORT", binary); err != nil {
		return 1
	}
	return m.Run()
}

// Missing ends a test that cannot run here: skipped, or failed where stories are
// required.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if os.Getenv("SALLYPORT_STORIES") == "required" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Need ends the test unless all programs are on PATH.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Missing(t, "%s is not installed", p)
		}
	}
}

// Installed returns the folder where examples/install.sh has put name for
// exactly the versions in files (paths from the examples folder), and ends the
// test if it is not there.
func Installed(t testing.TB, name string, files ...string) string {
	t.Helper()
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(home, ".cache")
	}
	sum := sha256.New()
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join("..", f))
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(b)
	}
	dir := filepath.Join(cache, "sallyport", name+"-"+hex.EncodeToString(sum.Sum(nil))[:12])
	if _, err := os.Stat(filepath.Join(dir, ".complete")); err != nil {
		Missing(t, "%s is not there: run examples/install.sh", dir)
	}
	return dir
}
