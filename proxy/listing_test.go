package proxy_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A list of models shows a caller those that it may use, and a caller without rights none of it.
func TestListOfModelsShowsWhatTheCallerMayUse(t *testing.T) {
	encoded := false
	h := build(t, plan{routes: `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules:
      - {deny: "*", models: open-secret}
      - {allow: [inference, metadata], models: "open-*", who: {scope: models.predict}}
      - {allow: [chat, list], models: "*", who: {scope: admin}}
      - {allow: health, models: "*"}
`, handler: func(w http.ResponseWriter, r *http.Request) {
		const list = `{"object":"list","data":[{"id":"open-a"},{"id":"open-secret"},{"id":"closed"}]}`
		w.Header().Set("ETag", `"whole"`)
		if r.Header.Get("Accept-Encoding") != "" || encoded {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, list)
			_ = z.Close()
			return
		}
		_, _ = io.WriteString(w, list)
	}})
	h.refused(h.do("GET", "/v1/models", "", map[string]string{"Authorization": "Bearer " + h.token("other")}), 403, "insufficient_scope")
	for scope, want := range map[string]string{
		"models.predict": `{"object":"list","data":[{"id":"open-a"}]}`,
		"admin":          `{"object":"list","data":[{"id":"open-a"},{"id":"closed"}]}`,
	} {
		r := h.do("GET", "/v1/models", "", map[string]string{"Authorization": "Bearer " + h.token(scope), "Accept-Encoding": "gzip"})
		if r.StatusCode != 200 || r.body != want || r.Header.Get("ETag") != "" {
			t.Errorf("%s: %d %s %v; want %s", scope, r.StatusCode, r.body, r.Header, want)
		}
	}
	encoded = true
	r := h.do("GET", "/v1/models", "", map[string]string{"Authorization": "Bearer " + h.token("models.predict")})
	if r.StatusCode != 502 || strings.Contains(r.body, "closed") {
		t.Errorf("a list that cannot be read: %d %s", r.StatusCode, r.body)
	}
}
