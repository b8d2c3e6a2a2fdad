package proxy_test

import (
	"strings"
	"testing"
)

// A caller that may ask Triton for one model could name another request in a field that Triton obeys.
func TestFieldsThatSteerServersDoNotComeUp(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("") + strings.ReplaceAll(`
  - {host: models.test, path: /v2, upstream: '%s', serves: triton, callers: anonymous, rules: [{allow: inference, models: public}]}
`, "%s", j.URL)})
	got := h.tell("POST /v2/models/public/infer HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nContent-Length: 2\r\nX-Neighbor: kept\r\n" +
		"Inference-Header-Content-Length: 2\r\nX-Vertex-Ai-Triton-Redirect: v2/models/steered/infer\r\n" +
		"Triton-Grpc-Protocol-Admin: steered\r\nX-Amzn-SageMaker-Target-Model: steered\r\nserve_multiplexed_model_id: steered\r\n\r\n{}")
	up := j.taken()
	if statuses(got) != "200" || len(up) != 1 || strings.Contains(up[0].raw, "steered") {
		t.Fatalf("got %s; upstream %+v", got, up)
	}
	if up[0].get("x-neighbor") != "kept" || up[0].get("inference-header-content-length") != "2" {
		t.Errorf("the upstream got\n%s", up[0].raw)
	}
	if rec := h.endedWith(j); rec["dropped"] != "forwarded steering" {
		t.Errorf("record %v", rec)
	}
}

// A proxy in front forwards its client's field and query. The gateway cannot take them away.
func TestForwardAuthRefusesWhatSteersServers(t *testing.T) {
	const routes = `
  - {host: models.test, path: /v2, upstream: '%s', serves: v2, callers: anonymous, rules: [{allow: metadata, models: public}]}
`
	for _, dialect := range dialects() {
		h := asked(t, dialect, routes)
		for uri, want := range map[string]int{"/v2/models/public": 200, "/v2/models/public?model_version=2": 403} {
			if got := h.askAs(told(dialect, "GET", "models.test", uri)...); got.StatusCode != want {
				t.Errorf("%s: %s: %d %s; want %d", dialect, uri, got.StatusCode, got.body, want)
			}
		}
		got := h.askAs(append(told(dialect, "GET", "models.test", "/v2/models/public"), "Seldon-Model: secret")...)
		if got.StatusCode != 403 || got.reason() != "not_for_another_proxy" {
			t.Errorf("%s: a field that steers: %d %s", dialect, got.StatusCode, got.body)
		}
		h.untouched()
	}
}
