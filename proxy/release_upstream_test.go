package proxy_test

import (
	"fmt"
	"strings"
	"testing"
)

// buildCanary is a house whose routes may use a second server, under the name canary.
func buildCanary(t *testing.T, serves, routes string) (*house, *modelServer) {
	t.Helper()
	stable, canary := newModelServer(t, nil), newModelServer(t, nil)
	h := build(t, plan{routes: routes, more: fmt.Sprintf("upstreams:\n  stable: {serves: %s, rest: '%s'}\n  canary: {serves: %s, rest: '%s', credentials: {bearer: {env: CANARY_TOKEN}}}\n", serves, stable.URL, serves, canary.URL)})
	h.model = stable
	return h, canary
}

const canaryRoute = `
  - host: models.test
    upstream: stable
    callers: issuer/corp
    rewrite: {split: {models: %q, upstreams: {stable: 50, canary: 50}}}
    rules: [{allow: "*", models: "*"}]
`

// A caller keeps its upstream for every model, version and call about the server, and the credential of
// one upstream never goes to the other.
func TestUpstreamsAreSplitByCaller(t *testing.T) {
	t.Setenv("CANARY_TOKEN", "canary-token-0123456789")
	h, canary := buildCanary(t, "tensorflow", strings.Replace(canaryRoute, "%q", `"*"`, 1))
	of := map[bool]int{}
	for i := range 24 {
		caller, before := fmt.Sprintf("user-%d", i), canary.hits.Load()
		for _, target := range []string{"POST /v1/models/a:predict", "POST /v1/models/b/versions/3:predict", "GET /v1/models/c", "GET /monitoring/prometheus/metrics"} {
			method, path, _ := strings.Cut(target, " ")
			if got := h.asks(caller, "models.predict", method, path); got.StatusCode != 200 {
				t.Fatalf("%s: %d %s", target, got.StatusCode, got.body)
			}
		}
		n := canary.hits.Load() - before
		if n != 0 && n != 4 {
			t.Errorf("%s had %d of 4 answers of canary", caller, n)
		}
		of[n == 4]++
	}
	if of[true] == 0 || of[false] == 0 {
		t.Errorf("%d callers of 24 have canary", of[true])
	}
	stableHas, _ := h.model.seen()
	canaryHas, _ := canary.seen()
	if a := stableHas.Header.Get("Authorization"); a != "" {
		t.Errorf("stable got %q", a)
	}
	if a := canaryHas.Header.Get("Authorization"); a != "Bearer canary-token-0123456789" {
		t.Errorf("canary got %q", a)
	}
	text := h.metrics()
	for name, n := range map[string]int{"stable": of[false], "canary": of[true]} {
		if line := fmt.Sprintf("sallyport_upstream_duration_seconds_count{route=\"models.test/\",upstream=%q} %d\n", name, 4*n); !strings.Contains(text, line) {
			t.Errorf("metrics without %s", line)
		}
	}
}

// A split by model reads the model from the body before it chooses, although no rule needs it.
func TestUpstreamIsChosenByTheModelInTheBody(t *testing.T) {
	t.Setenv("CANARY_TOKEN", "canary-token-0123456789")
	h, canary := buildCanary(t, "openai", `
  - host: models.test
    upstream: stable
    callers: issuer/corp
    rewrite: {split: {models: "big-*", upstreams: {stable: 0, canary: 1}}}
    rules: [{allow: "*", models: "*"}]
`)
	for _, c := range []struct {
		method, path, body string
		canary             int64
	}{
		{"POST", "/v1/chat/completions", `{"messages":[],"model":"big-a"}`, 1},
		{"POST", "/v1/chat/completions", `{"model":"b\u0069g-a"}`, 1},
		{"POST", "/v1/chat/completions", `{"model":"small"}`, 0},
		{"GET", "/v1/models/big-a", "", 1},
		{"GET", "/v1/models", "", 0},
	} {
		before := canary.hits.Load()
		h.do(c.method, c.path, c.body, nil)
		if got := canary.hits.Load() - before; got != c.canary {
			t.Errorf("%s %s: canary had %d requests; want %d", c.path, c.body, got, c.canary)
		}
	}
}
