package model_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sallyport/policy/model"
)

const (
	asProblem = `{"title":"This caller may not do this.","status":403,"reason":"forbidden","request_id":"0af7"}` + "\n"
	asText    = `{"error":"This caller may not do this.","reason":"forbidden","request_id":"0af7"}` + "\n"
	asCode    = `{"code":403,"type":"GatewayException","message":"This caller may not do this.","reason":"forbidden","request_id":"0af7"}` + "\n"
	asMLflow  = `{"error_code":"PERMISSION_DENIED","message":"This caller may not do this.","reason":"forbidden","request_id":"0af7"}` + "\n"
	asObject  = `{"error":{"message":"This caller may not do this.","type":"gateway_error","param":null,"code":"forbidden"},"reason":"forbidden","request_id":"0af7"}` + "\n"
)

func TestDialects(t *testing.T) {
	const minute = time.Minute
	for _, c := range []struct {
		name        string
		contentType string
		refusal     string
		actsOnWhole bool
		localhost   bool
		head, idle  time.Duration
	}{
		{"raw", "application/problem+json", asProblem, false, false, 0, 0},
		{"flask", "application/problem+json", asProblem, false, false, 0, 0},
		{"tensorflow", "application/json", asText, true, false, 0, 0},
		{"v2", "application/json", asText, false, false, 0, 0},
		{"triton", "application/json", asText, true, false, 0, 0},
		{"torchserve", "application/json", asCode, true, false, 0, 0},
		{"mlflow", "application/json", asMLflow, false, false, 0, 0},
		{"sagemaker", "application/problem+json", asProblem, false, false, 0, 0},
		{"openai", "application/json", asObject, false, false, 10 * minute, 5 * minute},
		{"ollama", "application/json", asText, false, true, 10 * minute, 5 * minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, ok := model.ByName(c.name)
			if !ok || d.Name() != c.name || !slices.Contains(model.Names(), c.name) {
				t.Fatalf("the dialect is not known by its name")
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
	if n := len(model.Names()); n != 10 {
		t.Errorf("%d dialects; this table has 10", n)
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

func TestVerbsOfRules(t *testing.T) {
	for _, c := range []struct{ dialect, verb, problem string }{
		{"raw", "get", ""}, {"flask", "propfind", ""}, {"raw", "query", ""},
		{"raw", "", "not a verb"}, {"raw", "GET", "not a verb"}, {"raw", "get post", "not a verb"}, {"raw", "gét", "not a verb"},
		{"raw", "predict", "no request has this verb: verbs are the HTTP methods"},
		{"raw", "inference", "no request has this verb: verbs are the HTTP methods"},
		{"tensorflow", "predict", ""}, {"tensorflow", "inference", ""}, {"tensorflow", "management", ""}, {"tensorflow", "reload", ""},
		{"tensorflow", "chat", "no request to tensorflow servers has this verb"},
		{"tensorflow", "post", "requests to tensorflow servers are told apart by what they ask, not by HTTP method"},
		{"openai", "chat", ""}, {"ollama", "pull", ""}, {"ollama", "", "no request to ollama servers has this verb"},
	} {
		d, _ := model.ByName(c.dialect)
		problem, cure := d.CheckVerb(c.verb)
		if problem != c.problem || (problem == "") != (cure == "") {
			t.Errorf("%s: %q: %q, cure %q; want %q", c.dialect, c.verb, problem, cure, c.problem)
		}
	}
}

// A rule could not name a verb without a class, and "*" would allow one that changes the server.
func TestEveryVerbHasAClass(t *testing.T) {
	for _, name := range model.Names() {
		d, _ := model.ByName(name)
		for _, verb := range d.Verbs() {
			if !slices.Contains(model.Classes(), string(model.Call{Dialect: d, Verb: verb}.Class())) {
				t.Errorf("%s: %s has no class", name, verb)
			}
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	for dialect, path := range map[string]string{
		"raw": "/p", "flask": "/p", "tensorflow": "/v1/models/half/versions/3:predict", "openai": "/v1/chat/completions", "ollama": "/api/chat",
		"v2": "/v2/models/half/versions/3/infer", "triton": "/v2/models/half/versions/3/infer", "torchserve": "/predictions/half/3",
	} {
		d, _ := model.ByName(dialect)
		r := &model.Request{Method: "POST", Path: path}
		allowed := 0.0
		if dialect == "tensorflow" {
			allowed = 1 // the canonical path
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = d.Read(r) }); n > allowed {
			t.Errorf("%s: %v allocations; want %v", dialect, n, allowed)
		}
	}
}

func ExampleDialect_Read() {
	d, _ := model.ByName("tensorflow")
	got, err := d.Read(&model.Request{Method: "POST", Path: "/v1/models/half_plus_two/versions/3:predict"})
	fmt.Println(got.Call.Dialect.Name(), got.Call.Verb, got.Call.Model, got.Call.Version, err)
	// Output: tensorflow predict half_plus_two 3 <nil>
}

func TestSlashesAreKeptInModelIDsAlone(t *testing.T) {
	for dialect, ids := range map[string]bool{"openai": true, "ollama": true, "raw": false, "flask": false, "tensorflow": false, "triton": false} {
		d, _ := model.ByName(dialect)
		if d.KeepsSlashes("/v1/models/a%2Fb") != ids || d.KeepsSlashes("/v1/chat%2Fcompletions") || d.KeepsSlashes("/v1%2Fmodels/a") {
			t.Errorf("%s keeps slashes in ids: %v; want %v, and nowhere else", dialect, !ids, ids)
		}
	}
}
