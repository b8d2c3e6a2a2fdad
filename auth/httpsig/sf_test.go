package httpsig_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// sfCase is one case of testdata/sf, in the form of the httpwg's suite for
// structured fields without its trees of values: we have none to compare. Where
// RFC 9651 would have us read a field that we refuse, refused says why.
type sfCase struct {
	Name      string   `json:"name"`
	Raw       []string `json:"raw"`
	Type      string   `json:"header_type"`
	Canonical []string `json:"canonical"` // the same as raw if absent
	MustFail  bool     `json:"must_fail"`
	Refused   string   `json:"refused"`
}

func sfCases(t *testing.T) map[string][]sfCase {
	t.Helper()
	files, err := filepath.Glob("testdata/sf/*.json")
	if err != nil || len(files) < 9 {
		t.Fatal(files, err)
	}
	all := make(map[string][]sfCase)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []sfCase
		if err := json.Unmarshal(text, &cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = cases
	}
	return all
}

func TestStructuredFields(t *testing.T) {
	kinds := map[string]httpsig.Kind{"item": httpsig.Item, "list": httpsig.List, "dictionary": httpsig.Dictionary}
	for file, cases := range sfCases(t) {
		for _, c := range cases {
			t.Run(file+"/"+c.Name, func(t *testing.T) {
				kind, known := kinds[c.Type]
				if !known {
					t.Fatalf("type %q", c.Type)
				}
				want := strings.Join(c.Raw, ", ")
				if c.Canonical != nil {
					want = strings.Join(c.Canonical, ", ")
				}
				got, ok := httpsig.Canonical(strings.Join(c.Raw, ", "), kind)
				switch refuse := c.MustFail || c.Refused != ""; {
				case ok == refuse:
					t.Errorf("%q is read: %v, want %v", c.Raw, ok, !refuse)
				case ok && got != want:
					t.Errorf("%q is written %q, want %q", c.Raw, got, want)
				}
			})
		}
	}
}
