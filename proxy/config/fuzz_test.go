package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

// FuzzConfig sees that no text brings the loader down, that each fault is in one
// line and on a line that there is, and that what loads can be used.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(files, "../../gateway.yaml") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("routes:\u2028- a: b\r- c: d\u0085\n") // line ends of YAML that are none elsewhere
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("gateway.yaml", []byte(text))
		if err == nil {
			if len(c.Table()) == 0 {
				t.Error("a configuration without routes was taken")
			}
			return
		}
		var faults setting.Faults
		if !errors.As(err, &faults) || len(faults) == 0 || len(faults) > setting.MaxFaults {
			t.Fatalf("not faults: %v", err)
		}
		lines := strings.Count(text, "\n") + 1
		for _, fault := range faults {
			if fault.Line < 1 || fault.Line > lines {
				t.Errorf("line %d of %d: %v", fault.Line, lines, fault)
			}
			if fault.Problem == "" || strings.ContainsAny(fault.Error(), "\n\r\x1b") {
				t.Errorf("not one line: %q", fault.Error())
			}
		}
	})
}
