package setting

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/proxy/setting/settingtest"
)

func TestFoldersThatCannotBeWrittenAreFaults(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"closed": 0o555, "open": 0o777} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"closed/file": 0o444, "closed/mine": 0o666} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, own := range []string{dir, filepath.Dir(dir)} { // t.TempDir makes them for their owner only
		if err := os.Chmod(own, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	settingtest.AsNobody(t, func() {
		for _, c := range []struct {
			name   string
			toMake bool
			want   string
		}{
			{"open", false, ""},
			{"open/new", true, ""},
			{"open/new/newer", true, ""},
			{"open/new", false, "there is no folder"},
			{"closed", false, "may not write in"},
			{"closed/new", true, "none can be made: user "},
			{"closed/file", false, "is not a folder"},
		} {
			got, _ := FolderFault(filepath.Join(dir, c.name), c.toMake)
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("folder %s: got %q; want %q", c.name, got, c.want)
			}
		}
		for name, want := range map[string]string{
			"open/new": "", "closed/mine": "", "closed/new": "may not write in", "closed/file": "may not write to it", "open": "is a folder",
		} {
			got, _ := FileFault(filepath.Join(dir, name))
			if want == "" && got != "" || !strings.Contains(got, want) {
				t.Errorf("file %s: got %q; want %q", name, got, want)
			}
		}
	})
}

func TestUnreadableFilesNameTheUser(t *testing.T) {
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	settingtest.AsNobody(t, func() {
		_, err := Secret{}.Read()
		if got := CureUnreadable(err, "name one"); got != "name one" {
			t.Errorf("got %q", got)
		}
		_, err = secretAt(secretPlace{file: name}).Read()
		if !errors.Is(err, fs.ErrPermission) || CureUnreadable(err, "x") != "let user "+Myself()+" read it" {
			t.Errorf("got %v", err)
		}
	})
}
