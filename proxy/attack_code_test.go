package proxy_test

import (
	"strings"
	"testing"
)

// A caller that may ask a model could send a pickle, and the server would run what it says.
func TestBodiesThatCarryCodeAreRefusedUnlessNamed(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("") + strings.ReplaceAll(`
  - {host: models.test, path: /v2, upstream: '%s', serves: triton, callers: anonymous, rules: [{allow: inference, models: public}]}
  - {host: models.test, path: /raw, upstream: '%s', callers: anonymous, rules: [{allow: post}], code_types: [application/x-npy]}
`, "%s", j.URL)})
	for _, c := range []struct{ path, contentType, want string }{
		{"/v2/models/public/infer", "application/json", "200"},
		{"/v2/models/public/infer", "application/x-pickle", "415"},
		{"/v2/models/public/infer", "Application/X-Python-Serialize; x=y", "415"},
		{"/v2/models/public/infer", "application/json\r\nContent-Type: application/x-joblib", "415"},
		{"/raw", "application/x-npy", "200"},
		{"/raw", "application/x-dill", "415"},
	} {
		got := h.tell("POST " + c.path + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nContent-Length: 2\r\nContent-Type: " + c.contentType + "\r\n\r\n{}")
		if up := j.taken(); !strings.HasPrefix(statuses(got), c.want) && !(c.want == "415" && strings.HasPrefix(statuses(got), "400")) || len(up) > 0 != (c.want == "200") {
			t.Errorf("%s with %q: %s; %d came up; want %s", c.path, c.contentType, got, len(up), c.want)
		}
	}
	h.end(j, nil)
}

// The compressed body that was decided on comes up as it was sent.
func TestCompressedBodiesAreReadAndForwardedAsTheyCame(t *testing.T) {
	h := build(t, plan{routes: modelRoutes})
	for name, c := range map[string]struct {
		body   string
		status int
		reason string
	}{
		"public": {`{"model":"public","messages":[]}`, 200, ""},
		"secret": {`{"model":"secret","messages":[]}`, 403, "insufficient_scope"},
		"both":   {`{"model":"public","model":"secret"}`, 400, "bad_model"},
	} {
		coded := gzipped(c.body)
		got := h.do("POST", "/v1/chat/completions", coded, map[string]string{"Content-Encoding": "gzip", "Content-Type": "application/json"})
		if got.StatusCode != c.status || c.reason != "" && got.reason() != c.reason {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
		if c.status == 200 {
			if r, body := h.model.seen(); string(body) != coded || r.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("the upstream got %q with the coding %q", body, r.Header.Get("Content-Encoding"))
			}
		}
	}
}
