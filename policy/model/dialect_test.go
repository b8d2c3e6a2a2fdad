package model_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sallyport/policy/model"
	"sallyport/proxy/message"
)

const (
	asProblem = `{"title":"This caller may not do this.","status":403,"reason":"forbidden","request_id":"0af7"}` + "\n"
	asText    = `{"error":"This caller may not do this.","reason":"forbidden","request_id":"0af7"}` + "\n"
	asObject  = `{"error":{"message":"This caller may not do this.","type":"gateway_error","param":null,"code":"forbidden"},"reason":"forbidden","request_id":"0af7"}` + "\n"
)

func TestDialects(t *testing.T) {
	const minute = time.Minute
	for _, c := range []struct {
		name           string
		model, version string // as read from /v1/models/half/versions/3:predict
		contentType    string
		refusal        string
		actsOnWhole    bool
		localhost      bool
		head, idle     time.Duration
	}{
		{"raw", "", "", "application/problem+json", asProblem, false, false, 0, 0},
		{"flask", "", "", "application/problem+json", asProblem, false, false, 0, 0},
		{"tensorflow", "half", "3", "application/json", asText, true, false, 0, 0},
		{"triton", "", "", "application/json", asText, true, false, 0, 0},
		{"openai", "", "", "application/json", asObject, false, false, 10 * minute, 5 * minute},
		{"ollama", "", "", "application/json", asText, false, true, 10 * minute, 5 * minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, ok := model.ByName(c.name)
			if !ok || d.Name() != c.name || !slices.Contains(model.Names(), c.name) {
				t.Fatalf("the dialect is not known by its name")
			}
			h := &message.Head{Method: "POST", Path: "/v1/models/half/versions/3:predict"}
			if got, want := d.Read(h), (model.Call{Dialect: d, Verb: "post", Model: c.model, Version: c.version}); got != want {
				t.Errorf("read %+v; want %+v", got, want)
			}
			if contentType, body := d.Refusal(403, "This caller may not do this.", "forbidden", "0af7"); contentType != c.contentType || string(body) != c.refusal {
				t.Errorf("refusal is %s %s; want %s %s", contentType, body, c.contentType, c.refusal)
			}
			if d.ActsOnWhole() != c.actsOnWhole {
				t.Errorf("acts on the whole: %v; want %v", d.ActsOnWhole(), c.actsOnWhole)
			}
			if d.NeedsLocalhost() != c.localhost {
				t.Errorf("needs localhost: %v; want %v", d.NeedsLocalhost(), c.localhost)
			}
			if head, idle := d.Timeouts(); head != c.head || idle != c.idle {
				t.Errorf("timeouts are %v and %v; want %v and %v", head, idle, c.head, c.idle)
			}
		})
	}
	if n := len(model.Names()); n != 6 {
		t.Errorf("%d dialects; this table has 6", n)
	}
}

func TestNamesAreExact(t *testing.T) {
	if d, ok := model.ByName(""); !ok || d != model.Raw() || d.Name() != "raw" {
		t.Errorf("the empty name is not raw")
	}
	for _, name := range []string{"RAW", "grpc", "torch", " raw", "tensorflow-serving"} {
		if d, ok := model.ByName(name); ok || d != nil {
			t.Errorf("%q is a dialect", name)
		}
	}
}

func TestVerbsAreMethodsInLowerCase(t *testing.T) {
	for _, name := range model.Names() {
		d, _ := model.ByName(name)
		for verb, want := range map[string]string{
			"get": "", "post": "", "trace": "", "propfind": "", "query": "",
			"":         "not a verb",
			"GET":      "not a verb",
			"get post": "not a verb",
			"gét":      "not a verb",
			"predict":  "no request has this verb: verbs are the HTTP methods",
		} {
			problem, cure := d.CheckVerb(verb)
			if problem != want || (problem == "") != (cure == "") {
				t.Errorf("%s: %q: %q, cure %q; want %q", name, verb, problem, cure, want)
			}
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
			if problem, _ := d.CheckVerb(d.Read(&message.Head{Method: method}).Verb); problem != "" {
				t.Errorf("%s: no rule can name the verb of %s", name, method)
			}
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	h := &message.Head{Method: "POST", Path: "/v1/models/half/versions/3:predict"}
	for _, name := range model.Names() {
		d, _ := model.ByName(name)
		if n := testing.AllocsPerRun(100, func() { d.Read(h) }); n != 0 {
			t.Errorf("%s: %v allocations; want 0", name, n)
		}
	}
}

func ExampleDialect_Read() {
	d, _ := model.ByName("tensorflow")
	call := d.Read(&message.Head{Method: "POST", Path: "/v1/models/half_plus_two/versions/3:predict"})
	fmt.Println(call.Dialect.Name(), call.Verb, call.Model, call.Version)
	// Output: tensorflow post half_plus_two 3
}

// Policies see the model that the server sees, however its path was written.
func TestModelIsReadAsTheServerDecodesIt(t *testing.T) {
	for _, c := range []struct{ dialect, path, model string }{
		{"openai", "/v1/models/a%2Fb", "a/b"},
		{"openai", "/v1/models/a%2fb", "a/b"},
		{"openai", "/v1/models/a/b", "a/b"},
		{"openai", "/v1/models/a%2Fb/", "a/b"},
		{"openai", "/v1/models/a%252Fb", "a%2Fb"},
		{"openai", "/v1/models", ""},
		{"openai", "/v1/chat/completions", ""},
		{"ollama", "/v1/models/a%2Fb", "a/b"},
		{"tensorflow", "/v1/models/a%2Fb:predict", "a/b"},
		{"tensorflow", "/v1/models/a%20b/metadata", "a b"},
		{"raw", "/v1/models/a%2Fb", ""},
	} {
		d, _ := model.ByName(c.dialect)
		if got := d.Read(&message.Head{Method: "GET", Path: c.path}).Model; got != c.model {
			t.Errorf("%s, %s: model %q; want %q", c.dialect, c.path, got, c.model)
		}
	}
}

func TestSlashesAreKeptInModelIDsAlone(t *testing.T) {
	for dialect, ids := range map[string]bool{"openai": true, "ollama": true, "raw": false, "flask": false, "tensorflow": false, "triton": false} {
		d, _ := model.ByName(dialect)
		if d.KeepsSlashes("/v1/models/a%2Fb") != ids || d.KeepsSlashes("/v1/chat%2Fcompletions") || d.KeepsSlashes("/v1%2Fmodels/a") {
			t.Errorf("%s keeps slashes in ids: %v; want %v, and nowhere else", dialect, !ids, ids)
		}
	}
}
