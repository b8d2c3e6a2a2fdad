package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"sallyport/proxy/message"
)

// scan feeds a scanner in pieces of n bytes.
func scan(s Scanner, body string, n int) (string, error) {
	for p := []byte(body); len(p) > 0; p = p[min(n, len(p)):] {
		if _, err := s.Write(p[:min(n, len(p))]); err != nil {
			break
		}
	}
	if err := s.Check(); err != nil {
		return "", err
	}
	return s.Model(), nil
}

func scannerOf(t testing.TB, dialect string) Scanner {
	t.Helper()
	d, _ := ByName(dialect)
	h := &message.Head{Method: "POST", Path: "/v1/chat/completions"}
	s := d.Scanner(h, d.Read(h))
	if s == nil {
		t.Fatal("no scanner")
	}
	return s
}

func TestModelIsReadFromBody(t *testing.T) {
	long := strings.Repeat("x", maxModelName)
	for _, c := range []struct {
		dialect, body, model string
		err                  error
	}{
		{"openai", `{"model":"gpt"}`, "gpt", nil},
		{"openai", ` { "messages" : [{"role":"user","content":"\"model\":\"x\""}] , "model" : "meta-llama/Llama-3" } ` + "\r\n", "meta-llama/Llama-3", nil},
		{"openai", `{"mo\u0064el":"g\u0070t"}`, "gpt", nil},
		{"openai", `{"a":{"model":"x"},"b":[{"model":"y"}],"model":"gpt"}`, "gpt", nil},
		{"openai", `{"a":[1,-0.5e+3,0,10.25,1E9,true,false,null,{},[]],"model":"gpt"}`, "gpt", nil},
		{"openai", `{"model":"Größe"}`, "Größe", nil},
		{"openai", `{"model":"` + long + `"}`, long, nil},
		{"openai", `{"name":"x","model":"gpt"}`, "gpt", nil},
		{"ollama", `{"name":"llama3"}`, "llama3", nil},
		{"ollama", `{"model":"LLama3:Latest"}`, "llama3", nil},
		{"ollama", `{"model":"registry.ollama.ai/library/llama3:8b"}`, "llama3:8b", nil},
		{"ollama", `{"model":"me/mine"}`, "me/mine", nil},
		{"ollama", `{"model":"hf.co/me/mine:q4"}`, "hf.co/me/mine:q4", nil},

		{"openai", `{"model":"public","model":"secret"}`, "", errTwoModels},
		{"openai", `{"model":"public","mo\u0064el":"secret"}`, "", errTwoModels},
		{"openai", `{"Model":"secret","model":"public"}`, "", errSpelling},
		{"openai", `{"model":"public","MODEL":"secret"}`, "", errSpelling},
		{"openai", `{"model":["secret"]}`, "", errModelKind},
		{"openai", `{"model":null}`, "", errModelKind},
		{"openai", `{"model":""}`, "", errModelName},
		{"openai", `{"model":"a\u0000b"}`, "", errModelName},
		{"openai", `{"model":"a\nb"}`, "", errModelName},
		{"openai", `{"model":"\ud800"}`, "", errModelName},
		{"openai", "{\"model\":\"\xff\"}", "", errModelName},
		{"openai", `{"model":"` + long + `x"}`, "", errModelName},
		{"openai", `{"model":"` + strings.Repeat("x", maxRawString+1) + `"}`, "", errModelName},
		{"openai", `{"model":"/models/llama"}`, "/models/llama", nil},
		{"openai", `{"model":"a//b"}`, "", errModelPath},
		{"openai", `{"model":"//a"}`, "", errModelPath},
		{"openai", `{"model":"/"}`, "", errModelPath},
		{"openai", `{"model":"a/"}`, "", errModelPath},
		{"openai", `{"model":"./a"}`, "", errModelPath},
		{"openai", `{"model":"a/./b"}`, "", errModelPath},
		{"openai", `{"model":"x/../a"}`, "", errModelPath},
		{"openai", `{"model":"a\u002f/b"}`, "", errModelPath},
		{"openai", `{"model":"..."}`, "...", nil},
		{"openai", `{}`, "", errNoModel},
		{"openai", `{"messages":[]}`, "", errNoModel},
		{"openai", `[{"model":"x"}]`, "", errNotObject},
		{"openai", `"model"`, "", errNotObject},
		{"openai", "\xef\xbb\xbf{\"model\":\"x\"}", "", errNotObject},
		{"openai", "{\x00\"\x00m", "", errJSONSyntax},
		{"openai", ``, "", errTruncated},
		{"openai", `{"model":"x"`, "", errTruncated},
		{"openai", `{"model":"x"}{"model":"y"}`, "", errJSONSyntax},
		{"openai", `{"model":"x"} y`, "", errJSONSyntax},
		{"openai", `{"model":"x",}`, "", errJSONSyntax},
		{"openai", `{/**/"model":"x"}`, "", errJSONSyntax},
		{"openai", `{'model':'x'}`, "", errJSONSyntax},
		{"openai", `{"t":NaN,"model":"x"}`, "", errJSONSyntax},
		{"openai", `{"t":01,"model":"x"}`, "", errJSONSyntax},
		{"openai", `{"t":+1,"model":"x"}`, "", errJSONSyntax},
		{"openai", `{"t":[1}],"model":"x"}`, "", errJSONSyntax},
		{"openai", "{\"t\":\"a\nb\",\"model\":\"x\"}", "", errJSONSyntax},
		{"openai", `{"t":"\x41","model":"x"}`, "", errJSONSyntax},
		{"openai", `{"t":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `,"model":"x"}`, "", errTooDeep},
		{"openai", `{"t":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `,"model":"x"}`, "x", nil},
		{"ollama", `{"model":"public","name":"secret"}`, "", errTwoModels},
		{"ollama", `{"model":"public","Name":"secret"}`, "", errSpelling},
		{"ollama", `{"model":"http://h/library/x"}`, "", errModelName},
		{"ollama", `{"model":"x@sha256:00"}`, "", errModelName},
		{"ollama", `{"model":"x:"}`, "", errModelName},
		{"ollama", `{"model":"/x"}`, "", errModelName},
		{"ollama", `{"model":"a/b/c/d"}`, "", errModelName},
	} {
		for _, n := range []int{1, 7, 1 << 20} {
			got, err := scan(scannerOf(t, c.dialect), c.body, n)
			if got != c.model || !errors.Is(err, c.err) {
				t.Errorf("%s %.80q in pieces of %d: %q, %v; want %q, %v", c.dialect, c.body, n, got, err, c.model, c.err)
			}
		}
	}
}

// TestBodyOfAnotherTypeNamesNoModel: a form can hold an object that names one model within a field,
// and name another one in the next.
func TestBodyOfAnotherTypeNamesNoModel(t *testing.T) {
	const body = `{"model":"public","x":"&model=secret&"}`
	const form = "application/x-www-form-urlencoded"
	for _, c := range []struct {
		dialect, path string
		types         []string
		read          bool
	}{
		{"openai", "/v1/completions", nil, true},
		{"openai", "/v1/completions", []string{"application/json"}, true},
		{"openai", "/v1/completions", []string{"Application/JSON; charset=utf-8"}, true},
		{"openai", "/v1/completions", []string{"application/vnd.api+json"}, true},
		{"openai", "/v1/completions", []string{form}, false},
		{"openai", "/v1/audio/transcriptions", []string{"multipart/form-data; boundary=application/json"}, false},
		{"openai", "/v1/completions", []string{"text/plain"}, false},
		{"openai", "/v1/completions", []string{"application/json", form}, false},
		{"ollama", "/v1/completions", []string{form}, false},
		{"ollama", "/api/generate", []string{form}, true}, // what curl -d sends, as in its documents
	} {
		d, _ := ByName(c.dialect)
		h := &message.Head{Method: "POST", Path: c.path}
		for _, v := range c.types {
			h.Fields.Add("content-type", v)
		}
		got, err := scan(d.Scanner(h, d.Read(h)), body, len(body))
		if c.read && (got != "public" || err != nil) || !c.read && !errors.Is(err, errNotJSONType) {
			t.Errorf("%s %s %q: %q, %v; want read %v", c.dialect, c.path, c.types, got, err, c.read)
		}
	}
}

// TestManagementNamesNoModel: a request that makes, copies, loads or deletes models is
// about more than the one name in its body.
func TestManagementNamesNoModel(t *testing.T) {
	d, _ := ByName("ollama")
	for path, want := range map[string]bool{
		"/api/chat": true, "/ollama/api/generate": true, "/api/show": true, "/v1/completions": true,
		"/api/create": false, "/api/copy": false, "/api/pull": false, "/api/push": false, "/api/delete": false, "/api/blobs/sha256:00": false,
	} {
		h := &message.Head{Method: "POST", Path: path}
		if got := d.Scanner(h, d.Read(h)) != nil; got != want {
			t.Errorf("%s: scanned %v, want %v", path, got, want)
		}
	}
}

func TestModelIsReadFromPathOfItsDescription(t *testing.T) {
	for _, c := range []struct{ dialect, method, path, model string }{
		{"openai", "GET", "/v1/models/gpt", "gpt"},
		{"openai", "HEAD", "/v1/models/gpt", "gpt"},
		{"openai", "POST", "/v1/models/gpt", ""},
		{"openai", "GET", "/v1/models/a/b", "a/b"},
		{"openai", "GET", "/v1/models/a%2Fb", "a/b"},
		{"ollama", "GET", "/v1/models/Library%2FLlama3", "llama3"},
		{"openai", "GET", "/v1/models", ""},
		{"openai", "GET", "/v1/models/", ""},
		{"openai", "GET", "/v1/models/a%2F%2Fb", ""},
		{"openai", "GET", "/v1/models/%2Fa", ""},
		{"openai", "GET", "/v1/models/a%2F", ""},
		{"openai", "GET", "/v1/models/a/", "a"},
		{"ollama", "GET", "/v1/models/Llama3:latest", "llama3"},
		{"ollama", "GET", "/v1/models/x@y", ""},
	} {
		d, _ := ByName(c.dialect)
		if got := d.Read(&message.Head{Method: c.method, Path: c.path}).Model; got != c.model {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, got, c.model)
		}
	}
}

func TestScannerKeepsNothingOfTheBody(t *testing.T) {
	s := scannerOf(t, "openai")
	piece := []byte(`"` + strings.Repeat("x", 32<<10) + `",`)
	if _, err := s.Write([]byte(`{"messages":[`)); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Write(piece); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a piece", n)
	}
}

func BenchmarkScan(b *testing.B) {
	body := []byte(`{"model":"gpt","messages":[{"role":"user","content":"` + strings.Repeat("some words, ", 5000) + `"}]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		s := scannerOf(b, "openai")
		if _, err := s.Write(body); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzScan compares the scanner with encoding/json, which folds letter case and takes the
// last member: whatever the scanner accepts, that decoder reads as the same model.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{"model":"gpt"}`, `{"mo\u0064el":"g\u0070t","x":[1,2.5e3,-0,{"a":null}]}`, `{"model":"a","Model":"b"}`,
		`{"model":"a"}x`, `{"a":"\ud83d\ude00","model":"b"}`, `{"model":1}`, `{"x":[[[]]],"model":"\""}`,
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, n uint8) {
		got, err := scan(scannerOf(t, "openai"), string(body), int(n)+1)
		whole, errWhole := scan(scannerOf(t, "openai"), string(body), len(body)+1)
		if got != whole || (err == nil) != (errWhole == nil) {
			t.Fatalf("in pieces %q, %v; whole %q, %v", got, err, whole, errWhole)
		}
		if err != nil {
			return
		}
		var v struct {
			Model string `json:"model"`
		}
		if err := json.NewDecoder(iotest.OneByteReader(bytes.NewReader(body))).Decode(&v); err != nil || v.Model != got {
			t.Fatalf("we read %q, encoding/json %q, %v", got, v.Model, err)
		}
	})
}
