package setting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// A secret is formatted in every way: alone, in a struct, and in an unexported field, whose
// methods fmt cannot call.
func TestSecretIsNeverPrinted(t *testing.T) {
	type holder struct {
		Public Secret `yaml:"public"`
		hidden Secret
	}
	const content = "hunter2"
	for place, s := range map[string]Secret{
		"literal": Literal([]byte(content)),
		"file":    secretAt(secretPlace{file: "/run/secrets/" + content}),
		"env":     secretAt(secretPlace{env: content}),
	} {
		both := holder{s, s}
		printed := map[string]string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			printed[verb] = fmt.Sprintf(verb+" "+verb+" "+verb, s, both, &both)
		}
		j, err := json.Marshal([]any{s, &s, both})
		if err != nil {
			t.Fatal(err)
		}
		y, err := yaml.Marshal([]any{s, both})
		if err != nil {
			t.Fatal(err)
		}
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "s", s, "holder", both)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("m", "s", s, "holder", both)
		printed["json"], printed["yaml"], printed["slog text"], printed["slog json"] = string(j), string(y), text.String(), js.String()
		for how, got := range printed {
			hex, bytes := fmt.Sprintf("%x", content), strings.Trim(fmt.Sprint([]byte(content)), "[]")
			if strings.Contains(got, content) || strings.Contains(got, hex) || strings.Contains(got, bytes) || !strings.Contains(got, Redacted) {
				t.Errorf("%s by %s: %s", place, how, got)
			}
		}
	}
}

func TestSecretIsReadFromSafeLocationsOnly(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) Secret {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // WriteFile applies the umask
			t.Fatal(err)
		}
		return secretAt(secretPlace{file: path})
	}
	t.Setenv("SALLYPORT_TEST_SECRET", "from env")
	for _, tt := range []struct {
		name   string
		secret Secret
		want   string // "" for an error
	}{
		{"file", file("a", "s\n", 0o400), "s"},
		{"one newline only", file("b", "s\n\n", 0o400), "s\n"},
		{"windows newline", file("c", "s\r\n", 0o400), "s"},
		{"writable by others", file("d", "s", 0o602), ""},
		{"writable by its group", file("d", "s", 0o620), ""},
		{"readable by others", file("e", "s", 0o444), "s"},
		{"empty", file("f", "\n", 0o400), ""},
		{"too large", file("g", strings.Repeat("x", maxSecret+1), 0o400), ""},
		{"absent", secretAt(secretPlace{file: filepath.Join(dir, "none")}), ""},
		{"folder", secretAt(secretPlace{file: dir}), ""},
		{"env", secretAt(secretPlace{env: "SALLYPORT_TEST_SECRET"}), "from env"},
		{"env not set", secretAt(secretPlace{env: "SALLYPORT_TEST_NONE"}), ""},
		{"literal", Literal([]byte("s")), "s"},
		{"none", Secret{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.secret.Read()
			if string(got) != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if w := file("h", "s", 0o444).Warning(); !strings.Contains(w, "chmod o-r") {
		t.Errorf("readable by others: warning %q", w)
	}
	if w := file("i", "s", 0o400).Warning(); w != "" {
		t.Errorf("private: warning %q", w)
	}
	if err := os.Mkdir(filepath.Join(dir, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if w := file("j", "s", 0o444).Warning(); w != "" {
		t.Errorf("in a mounted volume: warning %q", w)
	}
}
