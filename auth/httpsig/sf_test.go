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

// The parameters of a signature are covered in their one canonical form.
func TestParameters(t *testing.T) {
	m := &httpsig.Message{Method: "GET", Scheme: "https", Authority: "h"}
	for parameters, want := range map[string]string{
		`( "@method" );  created=007;x=?1;y=-0.50`: `("@method");created=7;x;y=-0.5`,
		`("@method");x=?0;y=to/ken;z=:AA==:`:       `("@method");x=?0;y=to/ken;z=:AA==:`,
		`("@method");alg="a\"b\\"`:                 "", // no registered name has an escape
		`("@method");x=:AB==:`:                     "", // bits that mean nothing
		`("@method");x=:AA:`:                       "", // padding is missing
		`("@method");x=:A:`:                        "", // no base64
		`("@method";x=:A:)`:                        "",
		`("@method");x=@1`:                         "",
		`("@method");x=1;x=1`:                      "",
		`("@method") `:                             "",
		` ("@method")`:                             "",
	} {
		got, err := httpsig.Base(m, parameters)
		_, text, _ := strings.Cut(string(got), `"@signature-params": `)
		if text != want || (want == "") != (code(err) == httpsig.Malformed) {
			t.Errorf("%s: %q, %v; want %q", parameters, text, err, want)
		}
	}
}
