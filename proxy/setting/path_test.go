package setting

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type named struct {
	CA     Path            `yaml:"ca"`
	Keys   List[Path]      `yaml:"keys"`
	By     map[string]Path `yaml:"by"`
	Log    Place           `yaml:"log"`
	Secret Secret          `yaml:"secret"`
	Inner  *named          `yaml:"inner"`
	Any    any             `yaml:"any"`
}

func decodeNamed(t *testing.T, file, text string) (*Document, named) {
	t.Helper()
	var n named
	doc, faults := Decode(file, []byte(text), &n)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return doc, n
}

func TestRelativePathsResolveAgainstTheirFile(t *testing.T) {
	const text = `
ca: ca.pem
keys: [/etc/a.pem, ../b.pem]
by: {x: sub/x.pem}
log: audit.log
secret: {file: token}
inner: {ca: inner.pem, keys: one.pem, log: stdout}
`
	_, n := decodeNamed(t, "/etc/sallyport/gateway.yaml", text)
	got := []string{string(n.CA), string(n.Keys[0]), string(n.Keys[1]), string(n.By["x"]), string(n.Log), n.Secret.Where(),
		string(n.Inner.CA), string(n.Inner.Keys[0]), string(n.Inner.Log)}
	want := []string{"/etc/sallyport/ca.pem", "/etc/a.pem", "/etc/b.pem", "/etc/sallyport/sub/x.pem", "/etc/sallyport/audit.log", "file /etc/sallyport/token",
		"/etc/sallyport/inner.pem", "/etc/sallyport/one.pem", "stdout"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestKeywordsAreNotFiles(t *testing.T) {
	for written, want := range map[string]struct{ word, value string }{
		"off":         {"off", "off"},
		"stdout":      {"stdout", "stdout"},
		`"-"`:         {"-", "-"},
		"./off":       {"", "./off"},
		"off.log":     {"", "off.log"},
		"dir/stdout":  {"", "dir/stdout"},
		"/var/stdout": {"", "/var/stdout"},
	} {
		_, n := decodeNamed(t, "gateway.yaml", "log: "+written)
		if string(n.Log) != want.value || n.Log.Word() != want.word {
			t.Errorf("%s: got %q with the keyword %q, want %q with %q", written, n.Log, n.Log.Word(), want.value, want.word)
		}
	}
	var f Faults
	Place("off").Check("a", "", &f, "off")
	Place("/off").Check("b", "", &f)
	Place("").Check("c", "", &f)
	if len(f) > 0 {
		t.Errorf("accepted values are faults: %v", f)
	}
	if Place("none").Check("d", "", &f, "off"); len(f) != 1 {
		t.Error("an unaccepted keyword is no fault")
	}
}

func TestFaultsShowPathsAsWritten(t *testing.T) {
	doc, n := decodeNamed(t, "/etc/sallyport/gateway.yaml", "ca: ca.pem\nkeys: a.pem\ninner: {log: x.log}")
	var f Faults
	f.Add("ca", string(n.CA), "p", "")
	f.Add("keys", string(n.Keys[0]), "p", "")
	f.Add("inner.log", string(n.Inner.Log), "p", "")
	f.Add("ca", "something else", "p", "")
	f.Add("secret", Redacted, "p", "")
	var got []string
	for _, one := range f {
		got = append(got, doc.AsWritten(one).Value)
	}
	if diff := cmp.Diff([]string{"ca.pem", "a.pem", "x.log", "something else", Redacted}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPathMustBeText(t *testing.T) {
	for _, text := range []string{"ca: 1", "ca: [a]", "log: {a: b}", "log: true"} {
		var n named
		if _, faults := Decode("gateway.yaml", []byte(text), &n); len(faults) != 1 || n.CA != "" || n.Log != "" {
			t.Errorf("%s: decoded to %+v with the faults %v", text, n, faults)
		}
	}
}

func TestFilesListsOnlyFilesThatAreRead(t *testing.T) {
	_, n := decodeNamed(t, "/c/gateway.yaml", `
ca: ca.pem
keys: [b.pem, ca.pem]
by: {x: x.pem}
log: audit.log
secret: {file: token}
inner: {secret: {env: TOKEN}, ca: in.pem}
any: {file: not-a-path}
`)
	want := []string{"/c/b.pem", "/c/ca.pem", "/c/in.pem", "/c/token", "/c/x.pem"}
	if diff := cmp.Diff(want, Files(&n)); diff != "" {
		t.Error(diff)
	}
	if got := Files(nil); got != nil {
		t.Errorf("nil has the files %q", got)
	}
}

func TestDigestIgnoresFilesThatTheGatewayWrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	before := Digest(named{Log: Place(file)})
	if err := os.WriteFile(file, []byte("record"), 0o600); err != nil {
		t.Fatal(err)
	}
	if Digest(named{Log: Place(file)}) != before {
		t.Error("a record in the audit log changed the digest of the configuration")
	}
}

func TestSourcesAreFilesOrURLs(t *testing.T) {
	type sources struct {
		CRL List[Source] `yaml:"crl"`
	}
	var n sources
	doc, faults := Decode("/c/gateway.yaml", []byte(`crl: [a.crl, "http://ca.example/a.crl", /b.crl]`), &n)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	if len(n.CRL) != 3 || n.CRL[0].String() != "/c/a.crl" || n.CRL[1].String() != "http://ca.example/a.crl" || n.CRL[1].File != "" || !n.CRL[2].URL.IsZero() {
		t.Errorf("got %q", n.CRL)
	}
	if diff := cmp.Diff([]string{"/b.crl", "/c/a.crl"}, Files(&n)); diff != "" {
		t.Error(diff)
	}
	var f Faults
	if f.Add("crl[0]", n.CRL[0].String(), "p", ""); doc.AsWritten(f[0]).Value != "a.crl" {
		t.Errorf("the fault shows %q", doc.AsWritten(f[0]).Value)
	}
	for _, text := range []string{"crl: 1", `crl: "http://"`, "crl: {a: b}", `crl: "http://u:p@ca.example/"`} {
		var n sources
		if _, faults := Decode("gateway.yaml", []byte(text), &n); len(faults) != 1 || len(n.CRL) == 1 && n.CRL[0].String() != "" {
			t.Errorf("%s: decoded to %+v with the faults %v", text, n, faults)
		}
	}
}
