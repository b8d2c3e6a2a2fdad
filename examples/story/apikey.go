package story

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
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
