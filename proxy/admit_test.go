package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestBodyLimit(t *testing.T) {
	route := strings.TrimRight(oneRoute, "\n") + "\n    limits: {body: 1KiB}\n"
	t.Run("announced", func(t *testing.T) {
		h := build(t, plan{routes: route})
		h.refused(h.do("POST", "/", strings.Repeat("x", 1025), nil), 413, "body_too_large")
	})
	t.Run("counted while it streams", func(t *testing.T) {
		cut := make(chan error, 1)
		h := build(t, plan{routes: route, handler: func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			cut <- err
		}})
		req, _ := http.NewRequest("POST", "https://models.test/", io.MultiReader(strings.NewReader(strings.Repeat("x", 800)), strings.NewReader(strings.Repeat("x", 800))))
		req.Header.Set("Authorization", "Bearer "+h.token())
		if got := h.send(h.client(false), req); got.StatusCode != 413 || got.reason() != "body_too_large" {
			t.Errorf("got %d %s; want 413", got.StatusCode, got.body)
		}
		if h.model.hits.Load() > 0 {
			if err := <-cut; err == nil {
				t.Error("the upstream got a whole request")
			}
		}
	})
	t.Run("just fits", func(t *testing.T) {
		h := build(t, plan{routes: route})
		if got := h.do("POST", "/", strings.Repeat("x", 1024), nil); got.StatusCode != 200 {
			t.Errorf("got %d %s", got.StatusCode, got.body)
		}
	})
}

func TestRateLimitPerPrincipal(t *testing.T) {
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    limits: {rate: {per: principal, limit: 1/h, burst: 2}}\n"})
	for range 2 {
		if got := h.do("GET", "/", "", nil); got.StatusCode != 200 {
			t.Fatalf("got %d %s", got.StatusCode, got.body)
		}
	}
	h.model.hits.Store(0)
	got := h.do("GET", "/", "", nil) // a fresh token of the same caller
	h.refused(got, 429, "rate_limited")
	if s := got.Header.Get("Retry-After"); s == "" || s == "0" {
		t.Errorf("Retry-After: %q", s)
	}
	other, _ := h.issuer.Sign(h.issuer.Claims("bob", "models.predict"))
	if got := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + other}); got.StatusCode != 200 {
		t.Errorf("another caller got %d %s", got.StatusCode, got.body)
	}
}

func TestInFlightLimit(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    limits: {in_flight: 1}\n", handler: func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-leave }})
	first := make(chan *reply, 1)
	go func() { first <- h.do("GET", "/", "", nil) }()
	<-entered
	got := h.do("GET", "/", "", nil)
	if got.StatusCode != 429 || got.reason() != "too_many_in_flight" || got.Header.Get("Retry-After") == "" || h.model.hits.Load() != 1 {
		t.Errorf("got %d %s, %d upstream", got.StatusCode, got.body, h.model.hits.Load())
	}
	close(leave)
	if got := <-first; got.StatusCode != 200 {
		t.Errorf("the first got %d", got.StatusCode)
	}
}

// A caller without any right causes no work: it is refused before it takes a place and before its
// body is requested.
func TestStrangersAreScreenedBeforeAdmission(t *testing.T) {
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    limits: {body: 1KiB, rate: {per: route, limit: 1/h, burst: 1}}\n"})
	stranger := map[string]string{"Authorization": "Bearer " + h.token("models.read")}
	for range 3 {
		h.refused(h.do("POST", "/", strings.Repeat("x", 2048), stranger), 403, "insufficient_scope")
	}
	got := h.raw("POST / HTTP/1.1\r\nHost: models.test\r\nAuthorization: " + stranger["Authorization"] + "\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 403 ") {
		t.Errorf("got %s; want 403 and no 100 before it", got)
	}
	h.untouched()
	if got := h.do("POST", "/", "{}", nil); got.StatusCode != 200 {
		t.Errorf("strangers used up the allowance: %d %s", got.StatusCode, got.body)
	}
}
