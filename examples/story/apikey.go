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

// writtenHashes are those of the first and the second API key in the stories' gateway.yaml.
var writtenHashes = [...]string{
	"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	"sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
}

// APIKeys makes an API key for each name with `sallyport keygen`, in the order in which the gateway.yaml of
// the story has them. It returns the keys, and the pairs for [StartGateway] that put their hashes into the file.
func APIKeys(t testing.TB, names ...string) (keys, replace []string) {
	t.Helper()
	for i, name := range names {
		key, hash := newAPIKey(t, name)
		keys, replace = append(keys, key), append(replace, writtenHashes[i], hash)
	}
	return keys, replace
}

// newAPIKey makes an API key. It returns the key, and its hash in the form in which the file has it.
func newAPIKey(t testing.TB, name string) (key, hash string) {
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
