package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

// scan feeds a body to its scanner in pieces of n bytes, and returns the model that it names.
func scan(r *Reading, body string, n int) (name string, err error) {
	s := r.Scanner(ScanOptions{Decide: func(n Named) error { name = n.Model; return nil }})
	for p := []byte(body); len(p) > 0; p = p[min(n, len(p)):] {
		if _, err := s.Write(p[:min(n, len(p))]); err != nil {
			break
		}
	}
	return name, s.Check()
}

func readingOf(t testing.TB, dialect string, r *Request) *Reading {
	t.Helper()
	d, _ := ByName(dialect)
	got, err := d.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	return &got
}

func chat(t testing.TB, dialect string) *Reading {
	t.Helper()
	return readingOf(t, dialect, &Request{Method: "POST", Path: "/v1/chat/completions"})
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
			got, err := scan(chat(t, c.dialect), c.body, n)
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
		{"openai", "/v1/completions", []string{"text/plain"}, false},
		{"openai", "/v1/completions", []string{"application/json", form}, false},
		{"ollama", "/v1/completions", []string{form}, false},
		{"ollama", "/api/generate", []string{form}, true}, // what curl -d sends, as in its documents
	} {
		ask := Request{Method: "POST", Path: c.path}
		for _, v := range c.types {
			ask.Fields.Add("content-type", v)
		}
		got, err := scan(readingOf(t, c.dialect, &ask), body, len(body))
		if c.read && (got != "public" || err != nil) || !c.read && !errors.Is(err, errNotJSONType) {
			t.Errorf("%s %s %q: %q, %v; want read %v", c.dialect, c.path, c.types, got, err, c.read)
		}
	}
}

func TestModelIsReadFromPathOfItsDescription(t *testing.T) {
	for _, c := range []struct{ dialect, method, path, model string }{
		{"openai", "GET", "/v1/models/gpt", "gpt"},
		{"openai", "HEAD", "/v1/models/gpt", "gpt"},
		{"openai", "POST", "/v1/models/gpt", "405"},
		{"openai", "GET", "/v1/models/a/b", "a/b"},
		{"openai", "GET", "/v1/models/a%2Fb", "a/b"},
		{"openai", "GET", "/v1/models/a%2Fb/", "a/b"},
		{"openai", "GET", "/v1/models/a%252Fb", "a%2Fb"},
		{"ollama", "GET", "/v1/models/Library%2FLlama3", "llama3"},
		{"openai", "GET", "/v1/models", ""},
		{"openai", "GET", "/v1/models/", "400"},
		{"openai", "GET", "/v1/models/a%2F%2Fb", "400"},
		{"openai", "GET", "/v1/models/%2Fa", "400"},
		{"openai", "GET", "/v1/models/a%2F", "400"},
		{"openai", "GET", "/v1/models/a/", "a"},
		{"ollama", "GET", "/v1/models/Llama3:latest", "llama3"},
		{"ollama", "GET", "/v1/models/x@y", "400"},
		{"openai", "GET", "/v2/models", "404"},
	} {
		d, _ := ByName(c.dialect)
		got, err := d.Read(&Request{Method: c.method, Path: c.path})
		name := got.Call.Model
		if e := new(Unread); errors.As(err, &e) {
			name = map[Reason]string{UnknownCall: "404", WrongMethod: "405", BadName: "400"}[e.Reason]
		}
		if name != c.model {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, name, c.model)
		}
	}
}

func TestScannerKeepsNothingOfTheBody(t *testing.T) {
	s := chat(t, "openai").Scanner(ScanOptions{})
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
		s := chat(b, "openai").Scanner(ScanOptions{})
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
		got, err := scan(chat(t, "openai"), string(body), int(n)+1)
		whole, errWhole := scan(chat(t, "openai"), string(body), len(body)+1)
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
