package proxy_test

import (
	"io"
	"net/http"
	"strconv"
	"testing"
)

const listRoute = `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules:
      - {allow: [inference, metadata], models: "open-*", who: {scope: models.predict}}
`

// A list of models takes only the memory of what has come of it. Otherwise one caller with a few lists
// from a slow server would leave none for the bodies of others.
func TestAttackSlowListsLeaveMemoryToOthers(t *testing.T) {
	begun, leave := make(chan struct{}, 4), make(chan struct{})
	h := build(t, plan{routes: listRoute, more: "integrity: {memory: 5MiB}", handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			_, _ = io.Copy(w, r.Body)
			return
		}
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"open-a"},`)
		_ = http.NewResponseController(w).Flush()
		begun <- struct{}{}
		<-leave
		_, _ = io.WriteString(w, `{"id":"closed"}]}`)
	}})
	answers := make(chan *reply, 4)
	for range 4 {
		go func() { answers <- h.do("GET", "/v1/models", "", nil) }()
	}
	for range 4 {
		<-begun
	}
	const body = `{"model":"open-a","messages":[]}`
	if r := h.do("POST", "/v1/chat/completions", body, map[string]string{"Content-Type": "application/json"}); r.StatusCode != 200 || r.body != body {
		t.Errorf("another caller: %d %s", r.StatusCode, r.body)
	}
	close(leave)
	for range 4 {
		if r := <-answers; r.StatusCode != 200 || r.body != `{"object":"list","data":[{"id":"open-a"}]}` {
			t.Errorf("a list: %d %s", r.StatusCode, r.body)
		}
	}
}

// HEAD and conditional requests tell nothing of the models that the caller may not use: not how long
// their list is, nor whether it has changed.
func TestListWithoutContentTellsNothingOfOtherModels(t *testing.T) {
	const list = `{"data":[{"id":"open-a"},{"id":"closed"}]}`
	h := build(t, plan{routes: listRoute, handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"whole"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Content-Length", strconv.Itoa(len(list)))
		if r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Method != "HEAD" {
			_, _ = io.WriteString(w, list)
		}
	}})
	r := h.do("HEAD", "/v1/models", "", nil)
	if r.StatusCode != 200 || r.Header.Get("ETag") != "" || r.Header.Get("Last-Modified") != "" || r.Header.Get("Content-Length") != "" {
		t.Errorf("HEAD: %d %v", r.StatusCode, r.Header)
	}
	for name, value := range map[string]string{"If-None-Match": `"whole"`, "If-Modified-Since": "Mon, 02 Jan 2006 15:04:05 GMT"} {
		r := h.do("GET", "/v1/models", "", map[string]string{name: value})
		if r.StatusCode != 200 || r.body != `{"data":[{"id":"open-a"}]}` {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
}
