package setting

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type sample struct {
	Name         string                 `yaml:"name"`
	On           bool                   `yaml:"on"`
	N            int                    `yaml:"n"`
	X            float64                `yaml:"x"`
	Wait         Duration               `yaml:"wait"`
	Hosts        List[string]           `yaml:"hosts"`
	Items        []sampleItem           `yaml:"items"`
	Many         List[sampleItem]       `yaml:"many"`
	Named        map[string]sampleItem  `yaml:"named"`
	Claims       map[string]List[Glob]  `yaml:"claims"`
	Maybe        *sampleItem            `yaml:"maybe"`
	Either       sampleEither           `yaml:"either"`
	Any          map[string]interface{} `yaml:"any"`
	Token        Secret                 `yaml:"token"`
	sampleInline `yaml:",inline"`
	Hidden       string
}

type sampleInline struct {
	Extra string `yaml:"extra"`
}

type sampleItem struct {
	Size Size         `yaml:"size"`
	Tags List[string] `yaml:"tags"`
}

type sampleEither struct {
	Name string
	List []sampleItem
}

func (e *sampleEither) Form(s Shape) any {
	switch s {
	case Scalar:
		return &e.Name
	case Sequence:
		return &e.List
	}
	return nil
}

func (*sampleEither) Want() string { return "a name or a list" }

func TestDecodeReadsEveryKindOfValue(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       sample
	}{
		{"plain", "name: a\non: true\nn: -3\nx: 1.5\nwait: 5m\nextra: e", sample{Name: "a", On: true, N: -3, X: 1.5, Wait: 300e9, sampleInline: sampleInline{"e"}}},
		{"one for a list", "hosts: a", sample{Hosts: List[string]{"a"}}},
		{"fields for a list", "many: {size: 1KiB}", sample{Many: List[sampleItem]{{Size: 1024}}}},
		{"lists", "hosts: [a, b]\nitems: [{size: 1, tags: t}]", sample{Hosts: List[string]{"a", "b"}, Items: []sampleItem{{1, List[string]{"t"}}}}},
		{"names", "named: {a: {size: 1}}\nmaybe: {}", sample{Named: map[string]sampleItem{"a": {Size: 1}}, Maybe: &sampleItem{}}},
		{"first form", "either: a", sample{Either: sampleEither{Name: "a"}}},
		{"second form", "either: [{size: 2}]", sample{Either: sampleEither{List: []sampleItem{{Size: 2}}}}},
		{"an alias", "many: &m {size: 7}\nmaybe: *m", sample{Many: List[sampleItem]{{Size: 7}}, Maybe: &sampleItem{Size: 7}}},
		{"words that are text", "hosts: [off, yes, 2027-03-31]", sample{Hosts: List[string]{"off", "yes", "2027-03-31"}}},
		{"anything", "any: {a: [b, {c: 1}]}", sample{Any: map[string]any{"a": []any{"b", map[string]any{"c": "1"}}}}},
		{"a byte order mark", "\ufeffname: a", sample{Name: "a"}},
		{"lines that end in CRLF", "# c\r\nname: a\r\non: true\r\n", sample{Name: "a", On: true}},
		{"line separators as escapes", `name: "a\Nb\Lc\Pd\re"`, sample{Name: "a\u0085b\u2028c\u2029d\re"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got sample
			if _, faults := Decode("f.yaml", []byte(tt.text), &got); len(faults) > 0 {
				t.Fatal(faults)
			}
			if d := cmp.Diff(fmt.Sprintf("%+v", tt.want), fmt.Sprintf("%+v", got)); d != "" && !reflect.DeepEqual(got, tt.want) {
				t.Errorf("want, got:\n%s", d)
			}
		})
	}
}

func TestDecodeRefusesWithLineAndCure(t *testing.T) {
	const notPlain = "not UTF-8 text with lines that end in LF or CRLF; save the file as UTF-8 with LF line ends, and escape other line separators in double quotes"
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"all at once", "nmae: a\non: 1\nn: x\nwait: 5\nhosts: {a: b}\nitems: [{size: big}, 3]\nnamed: [a]\neither: {}\nmaybe: no", []string{
			"f.yaml:1: nmae: unknown field; did you mean name?",
			`f.yaml:2: on: "1": want true or false, found a number; write true`,
			`f.yaml:3: n: "x": want a whole number, found text; write it in digits, without quotes`,
			`f.yaml:4: wait: "5": not a duration; write a number and ms, s, m or h, such as 30s or 1h30m`,
			"f.yaml:5: hosts[0]: want text, found fields; write the value itself",
			`f.yaml:6: items[0].size: "big": not a size; write a whole number and B, KiB, MiB, GiB, KB, MB or GB, such as 64MiB`,
			`f.yaml:6: items[1]: "3": want fields with values, found a number; known fields: size, tags`,
			"f.yaml:7: named: want names with values, found a list; write each name with a colon and its value",
			"f.yaml:8: either: want a name or a list, found fields; for a list of one, put it in brackets or after a dash",
			`f.yaml:9: maybe: "no": want fields with values, found text; known fields: size, tags`,
		}},
		{"a secret as text", "token: hunter2", []string{"f.yaml:1: token: redacted: a secret must not be written in this file; write {file: PATH} or {env: NAME}"}},
		{"a secret in a list", "token: [hunter2]", []string{"f.yaml:1: token: redacted: a secret must not be written in this file; write {file: PATH} or {env: NAME}"}},
		{"a secret under a wrong name", "token: {value: hunter2}", []string{"f.yaml:1: token.value: unknown field; known fields: env, file"}},
		{"a secret as a number", "token: {file: 12345}", []string{"f.yaml:1: token.file: redacted: want the path of a file or folder, found a number; put it in quotes"}},
		{"two locations", "token: {file: a, env: B}", []string{"f.yaml:1: token: a secret needs either file or env; write {file: PATH} or {env: NAME}"}},
		{"a password in a URL", "wait: https://user:hunter2@host", []string{"f.yaml:1: wait: redacted: not a duration; write a number and ms, s, m or h, such as 30s or 1h30m"}},
		{"a key that is a list", "[a]: b", []string{"f.yaml:1: a key that is not a plain name; write a name before the colon"}},
		{"a field one level down", "maybe: {size: 1}\ntags: a", []string{"f.yaml:2: tags: unknown field; did you mean maybe.tags?"}},
		{"a number too large", "n: 99999999999999999999", []string{`f.yaml:1: n: "99999999999999999999": want a whole number, found a number; write it in digits, without quotes`}},
		{"not a number", "x: .nan", []string{`f.yaml:1: x: ".nan": want a number, found a number; write it in digits, without quotes`}},
		{"the field without a name", "Hidden: a", []string{"f.yaml:1: Hidden: unknown field; known fields: any, claims, either, extra, hosts, items, many, maybe, n, name, named, on, token, wait, x"}},
		{"control characters in a value", "wait: \"a\\nb\\e[31m\"", []string{`f.yaml:1: wait: "a\nb\x1b[31m": not a duration; write a number and ms, s, m or h, such as 30s or 1h30m`}},
		{"control characters in a key", "\"a\\nb\\e[31m\": 1", []string{`f.yaml:1: "a\nb\x1b[31m": unknown field; known fields: any, claims, either, extra, hosts, items, many, maybe, n, name, named, on, token, wait, x`}},
		{"a large file", strings.Repeat("# \n", MaxFile), []string{"f.yaml:1: the file is larger than 1048576 bytes; split it with include"}},
		{"not UTF-8", "name: a\nextra: \xff", []string{"f.yaml:2: " + notPlain}},
		{"UTF-16", "\xff\xfen\x00:\x00 \x00a\x00", []string{"f.yaml:1: " + notPlain}},
		{"a comment that ends at a lone CR", "# a\n# b\rname: c\n", []string{"f.yaml:2: " + notPlain}},
		{"a comment that ends at NEL", "# a\u0085name: c\n", []string{"f.yaml:1: " + notPlain}},
		{"a comment that ends at LS", "# a\u2028name: c\n", []string{"f.yaml:1: " + notPlain}},
		{"a comment that ends at PS", "# a\u2029name: c\n", []string{"f.yaml:1: " + notPlain}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got sample
			_, faults := Decode("f.yaml", []byte(tt.text), &got)
			lines := strings.Split(faults.Error(), "\n")
			if d := cmp.Diff(tt.want, lines); d != "" {
				t.Errorf("want, got:\n%s", d)
			}
		})
	}
}

// A fault does not affect the values beside it.
func TestDecodeKeepsValidParts(t *testing.T) {
	var got sample
	_, faults := Decode("f.yaml", []byte("wait: soon\nhosts: [a, 1, b]\nname: x"), &got)
	if len(faults) != 2 || got.Name != "x" || !reflect.DeepEqual(got.Hosts, List[string]{"a", "", "b"}) {
		t.Errorf("got %+v, %v", got, faults)
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var got sample
	_, faults := Decode("f.yaml", []byte("items: ["+strings.Repeat("1,", 5000)+"]"), &got)
	if len(faults) != MaxFaults {
		t.Errorf("%d faults, want %d", len(faults), MaxFaults)
	}
}

func TestDocumentKnowsTheLineOfEachPath(t *testing.T) {
	var got sample
	d, _ := Decode("f.yaml", []byte("name: a\nitems:\n  - size: 1\n\n  - tags:\n      - t\nmany:\n  size: 3\n"), &got)
	for path, want := range map[string]int{
		"name": 1, "items": 2, "items[0]": 3, "items[0].size": 3, "items[1]": 5, "items[1].tags[0]": 6,
		"items[1].size": 5, "many[0].size": 8, "none": 1, "": 1,
	} {
		if got := d.Line(path); got != want {
			t.Errorf("%q: line %d, want %d", path, got, want)
		}
	}
}

// A line with too little indentation is a field of the wrong thing: the cure says of which it is.
func TestFieldOfAnEntryIsPutWhereItBelongs(t *testing.T) {
	var v struct {
		Items []sampleItem           `yaml:"items"`
		Named map[string]*sampleItem `yaml:"named"`
		Hosts List[string]           `yaml:"hosts"`
	}
	_, faults := Decode("f.yaml", []byte("items:\n  - size: 1\ntags: a"), &v)
	want := "f.yaml:3: tags: unknown field; it belongs in an entry of items or named: indent it as that"
	if faults.Error() != want {
		t.Errorf("got  %v\nwant %s", faults, want)
	}
}
