package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// candidateRoutes has rules that are tried out, and rules with conditions.
const candidateRoutes = `
  - host: models.test
    path: /tf
    strip: /tf
    upstream: '%s'
    serves: tensorflow
    callers: issuer/corp
    rules: [{deny: "*", models: closed}, {allow: inference, models: "*"}]
    candidate_rules: [{allow: predict, models: [half, closed], versions: latest}]
  - host: models.test
    path: /v1
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules: [{allow: inference, models: "*"}]
    candidate_rules: [{allow: inference, models: small}]
  - host: models.test
    path: /when
    upstream: '%s'
    callers: issuer/corp
    rules:
      - {deny: post, when: request.size > 10}
      - {allow: [get, post], when: 'request.headers["x-team"] == "ml" && !("authorization" in request.headers) && connection.http == "1.1"'}
`

// askAndRecord sends a request and returns the status and its record.
func askAndRecord(h *house, method, path, body string, fields map[string]string) (int, map[string]any) {
	h.t.Helper()
	got := h.do(method, path, body, fields)
	return got.StatusCode, h.record(got.Header.Get("X-Request-Id"))
}

// record returns the record of a request. Records are written a moment after the answer.
func (h *house) record(id string) map[string]any {
	h.t.Helper()
	var found map[string]any
	eventually(h.t, "the record of "+id, func() bool {
		for _, r := range h.audit.records(h.t) {
			if r["id"] == id {
				found = r
			}
		}
		return found != nil
	})
	return found
}

func TestCandidateRulesAreRecordedAndNeverEnforced(t *testing.T) {
	h := build(t, plan{routes: candidateRoutes})
	jsonType := map[string]string{"Content-Type": "application/json"}
	for _, c := range []struct {
		path, body      string
		status          int
		candidate, rule any
		model           any
	}{
		{"/tf/v1/models/half:predict", "{}", 200, "allow", "candidate_rules[0]", "half"},
		{"/tf/v1/models/half/versions/3:predict", "{}", 200, "deny", nil, "half"},
		{"/tf/v1/models/other:predict", "{}", 200, "deny", nil, "other"},
		{"/tf/v1/models/closed:predict", "{}", 403, "allow", "candidate_rules[0]", "closed"},
		// The rules are about no model, and the candidates read it all the same.
		{"/v1/chat/completions", `{"model":"small"}`, 200, "allow", "candidate_rules[0]", "small"},
		{"/v1/chat/completions", `{"model":"big"}`, 200, "deny", nil, "big"},
		{"/v1/chat/completions", `{"model":1}`, 200, nil, nil, nil},
		{"/v1/chat/completions", `no JSON`, 200, nil, nil, nil},
	} {
		status, r := askAndRecord(h, "POST", c.path, c.body, jsonType)
		if status != c.status || r["candidate"] != c.candidate || r["candidate_rule"] != c.rule || r["model"] != c.model {
			t.Errorf("%s %s: %d, %v by %v about %v; want %d, %v by %v about %v", c.path, c.body, status, r["candidate"], r["candidate_rule"], r["model"], c.status, c.candidate, c.rule, c.model)
		}
	}
	text := h.metrics()
	for _, line := range []string{
		`sallyport_candidate_decisions_total{candidate="allow",route="models.test/tf",rules="allow"} 1`,
		`sallyport_candidate_decisions_total{candidate="deny",route="models.test/tf",rules="allow"} 2`,
		`sallyport_candidate_decisions_total{candidate="allow",route="models.test/tf",rules="deny"} 1`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// Candidate rules about models see the messages of calls that no other rule reads, and neither refuse nor
// delay what they cannot read.
func TestCandidateRulesSeeCalls(t *testing.T) {
	s := newActingServer(t)
	h := build(t, plan{
		routes: `
  - host: models.test
    upstream: grpc
    callers: issuer/corp
    rules: [{allow: inference, models: "*"}]
    candidate_rules: [{allow: inference, models: "open-*"}]
`,
		more: "upstreams:\n  grpc: {serves: tensorflow, grpc: 'h2c://" + s.addr + "'}\n",
	})
	call := func(specs ...string) []byte {
		var all [][]byte
		for _, name := range specs {
			all = append(all, modelSpec(name, 3))
		}
		return framedText(string(predictRequest(all, 100<<10, 100<<10)))
	}
	for _, c := range []struct {
		name             string
		body             []byte
		encoding         string
		status           string
		candidate, model any
	}{
		{"allowed", call("open-a"), "", "0", "allow", "open-a"},
		{"denied", call("secret"), "", "0", "deny", "secret"},
		{"compressed", compressedText(string(predictRequest([][]byte{modelSpec("secret", 0)}, 0, 10))), "gzip", "0", "deny", "secret"},
		{"in an encoding that is not read", compressedText("x"), "snappy", "0", nil, nil},
		{"named twice", call("open-a", "secret"), "", "0", nil, nil},
		{"not named", call(), "", "0", nil, nil},
		{"not Protocol Buffers", framedText("\xff\xff\xff"), "", "0", nil, nil},
	} {
		res, err := h.compressedCall(t.Context(), h.client(true), bytes.NewReader(c.body), c.encoding)
		if err != nil {
			t.Fatal(err)
		}
		_, status := finish(t, res)
		r := h.record(res.Header.Get("X-Request-Id"))
		if status != c.status || r["candidate"] != c.candidate || r["model"] != c.model {
			t.Errorf("%s: status %s, %v about %v; want %s, %v about %v", c.name, status, r["candidate"], r["model"], c.status, c.candidate, c.model)
		}
		if acts := s.acted(); len(acts) != 1 {
			t.Errorf("%s: the server acted on %q", c.name, acts)
		}
	}
}

func TestRecordsSayWhatWasAskedFor(t *testing.T) {
	h := build(t, plan{routes: candidateRoutes})
	_, r := askAndRecord(h, "POST", "/tf/v1/models/half/labels/stable:classify", "{}", nil)
	for field, want := range map[string]string{"dialect": "tensorflow", "verb": "classify", "model": "half", "version": "label:stable"} {
		if r[field] != want {
			t.Errorf("%s is %v, want %s", field, r[field], want)
		}
	}
	if scopes, _ := r["scopes"].([]any); len(scopes) != 1 || scopes[0] != "models.predict" {
		t.Errorf("scopes are %v", r["scopes"])
	}
}

// A client that hides a fact, such as the length of its body, gains nothing by it.
func TestConditionsSeeTheRequest(t *testing.T) {
	h := build(t, plan{routes: candidateRoutes})
	team := map[string]string{"X-Team": "ml"}
	for _, c := range []struct {
		method, body string
		fields       map[string]string
		status       int
		cause        string
	}{
		{"POST", "small", team, 200, ""},
		{"GET", "", team, 200, ""},
		{"POST", "much too long", team, 403, "rules[0] denies it"},
		{"POST", "small", map[string]string{"X-Team": "ops"}, 403, "rules[1] does not allow it, because its condition does not hold"},
		{"POST", "small", nil, 403, `rules[1] does not allow it, because its condition failed: "no such key: x-team"`},
	} {
		status, r := askAndRecord(h, c.method, "/when", c.body, c.fields)
		if cause, _ := r["cause"].(string); status != c.status || cause != c.cause {
			t.Errorf("%s %q %v: %d %q, want %d %q", c.method, c.body, c.fields, status, cause, c.status, c.cause)
		}
	}
	req, err := http.NewRequest("POST", "https://models.test/when", io.MultiReader(strings.NewReader("x")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token())
	req.Header.Set("X-Team", "ml")
	got := h.send(h.client(false), req)
	if r := h.record(got.Header.Get("X-Request-Id")); got.StatusCode != 403 || !strings.HasPrefix(r["cause"].(string), "rules[0] denies it, because its condition failed: ") {
		t.Errorf("a body of unknown length: %d %v", got.StatusCode, r["cause"])
	}
}
