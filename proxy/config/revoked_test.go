package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWarningsReadLongFilesOnce: each start and reload looks at all lines of both files, so that the keys must not be
// read again for each revocation. Thrice the lines are thrice the work, not nine times.
func TestWarningsReadLongFilesOnce(t *testing.T) {
	work := func(lines int) float64 {
		dir := t.TempDir()
		var keys, revoked strings.Builder
		for i := range lines {
			fmt.Fprintf(&keys, "user%d sha256:%064x\n", i, i+1)
			fmt.Fprintf(&revoked, "apikey user%d\n", i)
		}
		for name, text := range map[string]string{"keys.txt": keys.String(), "revoked.txt": revoked.String()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := Parse(filepath.Join(dir, "gateway.yaml"), []byte(`
tls: {local: {}}
revoked: revoked.txt
api_key_file: keys.txt
routes: [{host: x.test, upstream: "http://127.0.0.1:1", callers: apikey, rules: [{allow: "*"}]}]
`))
		if err != nil {
			t.Fatal(err)
		}
		return testing.AllocsPerRun(1, func() {
			if w := c.RevokedWarnings(); len(w) > 0 {
				t.Fatal(w)
			}
		})
	}
	if few, many := work(100), work(300); many > 5*few {
		t.Errorf("100 lines take %.0f allocations, 300 take %.0f", few, many)
	}
}
