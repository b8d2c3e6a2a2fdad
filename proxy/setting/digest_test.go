package setting

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

type digested struct {
	Name  string
	Names List[string]
	Rate  Rate
	URL   URL
	CA    Path
	Key   Secret
	More  map[string]List[string]
	Part  *digested
	CIDRs List[CIDR]
}

func TestDigestChangesWithEveryValue(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	base := func() digested {
		return digested{
			Name: "a", Names: List[string]{"b", "c"}, Rate: Rate{N: 1, Per: 2}, URL: URL{&url.URL{Scheme: "http", Host: "a:1"}},
			CA: Path(file), Key: Literal([]byte("secret")), More: map[string]List[string]{"x": {"1"}, "y": {"2"}}, Part: &digested{Name: "in"},
		}
	}
	want := Digest(base())
	if again := Digest(base()); again != want {
		t.Fatalf("equal values have the digests %s and %s", want, again)
	}
	for name, change := range map[string]func(*digested){
		"text":            func(d *digested) { d.Name = "b" },
		"text moved":      func(d *digested) { d.Name, d.Names = "", List[string]{"a", "b", "c"} },
		"order of a list": func(d *digested) { d.Names = List[string]{"c", "b"} },
		"items joined":    func(d *digested) { d.Names = List[string]{"bc"} },
		"rate":            func(d *digested) { d.Rate.Per = 3 },
		"URL":             func(d *digested) { d.URL = URL{&url.URL{Scheme: "http", Host: "a:2"}} },
		"no URL":          func(d *digested) { d.URL = URL{} },
		"path":            func(d *digested) { d.CA += "x" },
		"secret":          func(d *digested) { d.Key = Literal([]byte("other")) },
		"map's key":       func(d *digested) { d.More = map[string]List[string]{"x": {"1"}, "z": {"2"}} },
		"map's value":     func(d *digested) { d.More["x"] = List[string]{"3"} },
		"inner":           func(d *digested) { d.Part.Name = "out" },
		"no inner":        func(d *digested) { d.Part = nil },
	} {
		d := base()
		change(&d)
		if Digest(d) == want {
			t.Errorf("%s: the digest did not change", name)
		}
	}
	write("two")
	if Digest(base()) == want {
		t.Error("content of a file: the digest did not change")
	}
}
