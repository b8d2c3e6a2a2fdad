package story

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// APIKey makes an API key with `sallyport keygen` for the gateway.yaml of the story. It returns the
// key, and its hash in the form in which the file has it.
func APIKey(t testing.TB, name string) (key, hash string) {
	t.Helper()
	cmd := exec.Command(os.Getenv("SALLYPORT"), "keygen", "--api-key", name, "-c", "gateway.yaml")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sallyport keygen: %v", err)
	}
	var made struct{ Key, Hash string }
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatalf("sallyport keygen printed %q: %v", out, err)
	}
	return made.Key, made.Hash
}

// RunAs runs a client to its end, with the key in SALLYPORT_KEY, and returns what it printed.
func RunAs(t testing.TB, key string, cmd *exec.Cmd) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bound := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bound.Dir, bound.Env = cmd.Dir, append(slices.Clip(cmd.Environ()), "SALLYPORT_KEY="+key)
	out, err := bound.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return strings.TrimSpace(string(out))
}
