package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnchangedSummaryMentionsMountsThatHideAnEdit mounts the configuration as docker compose does.
func TestUnchangedSummaryMentionsMountsThatHideAnEdit(t *testing.T) {
	dir := t.TempDir()
	host, file := filepath.Join(dir, "host.yaml"), filepath.Join(dir, "gateway.yaml")
	for _, name := range []string{host, file} {
		if err := os.WriteFile(name, []byte("routes: []\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &Config{source: &source{files: []string{file}}}
	at := time.Unix(1_764_457_000, 0)
	summary := func(last Loading) string {
		last.At, last.Summary = at, "config 3f9a"
		return UnchangedSummary(c, &last, at.Add(3*time.Second))
	}
	const started = "nothing changed: the files hold what the gateway loaded when it started, 3s ago, at 22:56:40Z: config 3f9a"
	if got := summary(Loading{}); got != started {
		t.Errorf("without a mount: %s", got)
	}
	if err := syscall.Mount(host, file, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("this user may not mount: ", err)
	}
	defer syscall.Unmount(file, 0)
	if got, want := summary(Loading{}), started+"; if you have edited "+file+" since: a single-file mount does not show"; !strings.HasPrefix(got, want) {
		t.Errorf("with a mount:\ngot  %s\nwant %s...", got, want)
	}
	seen := Loading{By: ByWatcher, Files: []string{file}}
	if got := summary(seen); strings.Contains(got, "mount") || !strings.Contains(got, "when it saw a change of "+file) {
		t.Errorf("the mount has shown the change, but: %s", got)
	}
	if err := os.Rename(filepath.Join(dir, "host.yaml"), filepath.Join(dir, "old.yaml")); err != nil {
		t.Fatal(err)
	}
	if got := summary(seen); strings.Contains(got, "mount") {
		t.Errorf("the file has another name, and is the same: %s", got)
	}
	if err := os.Remove(filepath.Join(dir, "old.yaml")); err != nil {
		t.Fatal(err)
	}
	if got := summary(seen); !strings.Contains(got, "; the single-file mount of "+file+" still shows a file that was replaced or removed") {
		t.Errorf("the mounted file is gone: %s", got)
	}
}
