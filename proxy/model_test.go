package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// modelRoutes has a route for each server that names models.
const modelRoutes = `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules:
      - {allow: "*", models: [public, "meta/*"], who: {scope: models.predict}}
      - {allow: "*", models: "*", who: {scope: admin}}
  - host: models.test
    path: /tf
    upstream: '%s'
    serves: tensorflow
    strip: /tf
    callers: issuer/corp
    rules: [{allow: "*", models: public}]
  - host: models.test
    path: /v1/models/public:predict
    upstream: '%s'
    serves: tensorflow
    callers: issuer/corp
    rules: [{allow: "*", models: public}]
  - host: models.test
    path: /api
    upstream: '%s'
    serves: ollama
    callers: issuer/corp
    integrity: {buffer: 64KiB}
    rules:
      - {deny: "*", models: secret}
      - {allow: "*", models: "*", who: {scope: models.predict}}
`

// TestRuleAboutModelReadsTheBody: what the upstream gets is the body that was decided on,
// byte for byte, over HTTP/1.1 and HTTP/2.
func TestRuleAboutModelReadsTheBody(t *testing.T) {
	h := build(t, plan{routes: modelRoutes})
	for _, body := range []string{
		`{"model":"public","messages":[]}`,
		`{"messages":[{"role":"user","content":"\"model\":\"secret\""}],"mo\u0064el":"meta/llama"}`,
		`{"model":"public","x":"` + strings.Repeat("y", 200<<10) + `"}`,
	} {
		for _, h2 := range []bool{false, true} {
			for _, known := range []bool{true, false} {
				req, err := http.NewRequest("POST", "https://models.test/v1/chat/completions", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if !known {
					req.ContentLength = -1
				}
				req.Header.Set("Authorization", "Bearer "+h.token())
				if got := h.send(h.client(h2), req); got.StatusCode != 200 {
					t.Errorf("%.60s: %d %s", body, got.StatusCode, got.body)
				}
				if _, sent := h.model.seen(); string(sent) != body {
					t.Errorf("%.60s: the upstream got %.60s", body, sent)
				}
			}
		}
	}
	if got := h.ended(); got["model"] != "public" {
		t.Errorf("the record names the model %v", got["model"])
	}
}

// TestModelThatIsNotAllowedIsRefused: another model, and every body of which two servers
// could read two models.
func TestModelThatIsNotAllowedIsRefused(t *testing.T) {
	h := build(t, plan{routes: modelRoutes})
	for _, c := range []struct {
		path, body string
		status     int
		reason     string
	}{
		{"/v1/completions", `{"model":"secret"}`, 403, "insufficient_scope"},
		{"/v1/completions", `{"model":"meta/a/b"}`, 403, "insufficient_scope"},
		{"/v1/completions", `{"model":"public","model":"secret"}`, 400, "bad_model"},
		{"/v1/completions", `{"Model":"secret","model":"public"}`, 400, "bad_model"},
		{"/v1/completions", `{"model":"public"`, 400, "bad_model"},
		{"/v1/completions", `{"model":"public"} {"model":"secret"}`, 400, "bad_model"},
		{"/v1/completions", `model=public`, 400, "bad_model"},
		{"/v1/completions", `{"prompt":"x"}`, 400, "bad_model"},
		{"/v1/completions", ``, 403, "insufficient_scope"},
		{"/v1/models/secret", ``, 405, "method_not_allowed"},
		{"/v2/completions", ``, 404, "unknown_call"},
		{"GET /v1/models/secret", ``, 403, "insufficient_scope"},
		{"GET /v1/models/meta%2Fa%2Fb", ``, 403, "insufficient_scope"},
		{"GET /v1/models/other%2Fa", ``, 403, "insufficient_scope"},
		{"/tf/v1/models/secret:predict", `{}`, 403, "forbidden"},
		{"/api/chat", `{"model":"secret"}`, 403, "forbidden"},
		{"/api/chat", `{"model":"library/SECRET:latest"}`, 403, "forbidden"},
		{"/api/chat", `{"name":"secret","model":"public"}`, 400, "bad_model"},
		{"/api/chat", `{"model":"public","x":"` + strings.Repeat("y", 64<<10) + `"}`, 413, "body_too_large"},
		{"/api/pull", `{"model":"public"}`, 403, "forbidden"}, // the deny rule may be about it
	} {
		method, path, named := strings.Cut(c.path, " ")
		if !named {
			method, path = "POST", c.path
		}
		h.refused(h.do(method, path, c.body, nil), c.status, c.reason)
	}
	h.refused(h.do("POST", "/v1/completions", `{"model":"public"}`, map[string]string{"Content-Encoding": "gzip"}), 400, "bad_model")
	h.refused(h.do("POST", "/v1/completions", `{"model":"public","x":"&model=secret&"}`, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}), 400, "bad_model")
}

// TestDescriptionOfAnAllowedModelIsServed: SDKs escape the slash of an id.
func TestDescriptionOfAnAllowedModelIsServed(t *testing.T) {
	h := build(t, plan{routes: modelRoutes})
	for _, path := range []string{"/v1/models/public", "/v1/models/meta%2Fllama"} {
		got := h.do("GET", path, "", nil)
		if r, _ := h.model.seen(); got.StatusCode != 200 || r.RequestURI != path {
			t.Errorf("%s: %d, the upstream was asked for %s", path, got.StatusCode, r.RequestURI)
		}
	}
}

// TestDenyRuleAboutModelReadsThePath: a deny rule refuses the description of its model,
// whatever way the slash of the id is written. Other models are served.
func TestDenyRuleAboutModelReadsThePath(t *testing.T) {
	h := build(t, plan{routes: `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules:
      - {deny: "*", models: "a/b"}
      - {allow: "*", models: "*", who: {scope: models.predict}}
`})
	for _, path := range []string{"/v1/models/a%2Fb", "/v1/models/a%2fb", "/v1/models/a/b", "/v1/models/%61%2Fb", "/v1/models/a%2Fb/"} {
		h.refused(h.do("GET", path, "", nil), 403, "forbidden")
	}
	for _, path := range []string{"/v1/models/a%2F%2Fb", "/v1/models/%2Fa%2Fb"} {
		h.refused(h.do("GET", path, "", nil), 400, "bad_model_name")
	}
	if got := h.do("GET", "/v1/models/a%2Fc", "", nil); got.StatusCode != 200 {
		t.Errorf("another model: %d %s; want 200", got.StatusCode, got.body)
	}
}

// TestRuleAboutNoModelTakesAnyBody: a caller whom a rule allows everything may send what
// names no model, such as a file.
func TestRuleAboutNoModelTakesAnyBody(t *testing.T) {
	h := build(t, plan{routes: modelRoutes})
	got := h.do("POST", "/v1/embeddings", "a file", map[string]string{"Authorization": "Bearer " + h.token("admin")})
	if _, sent := h.model.seen(); got.StatusCode != 200 || string(sent) != "a file" {
		t.Errorf("%d, the upstream got %q", got.StatusCode, sent)
	}
}

// TestReloadDecidesAgainOnTheModel: a stream goes on if the new rules allow the model that its body
// named, and ends if they deny it, or are about models while nobody has read one.
func TestReloadDecidesAgainOnTheModel(t *testing.T) {
	t.Parallel()
	const rules = `{allow: "*", models: [a, b]}, {allow: "*", models: "*"}`
	for name, c := range map[string]struct {
		before, after string
		kept          []string // of the models a and b
		cause         string   // of the others' ends
		serves        string   // after the reload; "" for what it was
	}{
		"still allowed":      {rules, `{allow: "*", models: "*"}`, []string{"a", "b"}, "", ""},
		"one is denied":      {rules, `{deny: "*", models: b}, {allow: "*", models: "*"}`, []string{"a"}, `rules[0] denies model "b"`, ""},
		"not read":           {`{allow: "*", models: "*"}`, `{allow: "*", models: "**"}`, nil, "nobody has read which model", ""},
		"not read, a denial": {`{allow: "*", models: "*"}`, `{deny: "*", models: b}, {allow: "*", models: "*"}`, nil, "nobody has read which model", ""},
		"never asked":        {`{allow: "*", models: "*"}`, `{allow: inference, models: "*"}, {allow: "*", models: "*"}`, []string{"a", "b"}, "", ""},
		"read as another":    {rules, `{allow: "*", models: [a, b]}`, nil, "nobody has read which model", "ollama"},
		"read, not asked":    {rules, `{allow: "*", models: "*"}`, []string{"a", "b"}, "", "ollama"},
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t, plan{more: unwatched, handler: ticking, routes: `
  - {host: models.test, upstream: '%s', serves: openai, callers: issuer/corp, rules: [` + c.before + `]}
`})
			client := h.client(true)
			streams := map[string]*bufio.Reader{}
			for _, m := range []string{"a", "b"} {
				req, err := http.NewRequest("POST", "https://models.test/v1/completions", strings.NewReader(`{"model":"`+m+`"}`))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+h.token())
				streams[m] = h.streamOf(client, req)
			}
			h.edit("rules: ["+c.before, "rules: ["+c.after)
			if c.serves != "" {
				h.edit("serves: openai", "serves: "+c.serves)
			}
			h.reload("changed")
			for m, r := range streams {
				if !slices.Contains(c.kept, m) {
					if _, err := io.Copy(io.Discard, r); err == nil || errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the stream of %s: %v; want it cut", m, err)
					}
					continue
				}
				for range 10 {
					if _, err := r.ReadString('\n'); err != nil {
						t.Fatalf("the stream of %s: %v", m, err)
					}
				}
			}
			cut := len(streams) - len(c.kept)
			h.until("the cut streams are recorded", func() bool { return len(h.audit.records(t)) >= cut })
			for _, r := range h.audit.records(t) {
				if cause := fmt.Sprint(r["cause"]); r["reason"] != "withdrawn_in_stream" || !strings.Contains(cause, c.cause) {
					t.Errorf("the record says %v: %s; want withdrawn_in_stream: %s", r["reason"], cause, c.cause)
				}
			}
		})
	}
}
