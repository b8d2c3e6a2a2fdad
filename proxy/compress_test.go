package proxy_test

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

const compressedRoute = `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], compress: true}
  - {host: models.test, path: /events, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], compress: {types: [text/event-stream], min_size: 1}}
  - {host: models.test, path: /never, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], compress: false}
`

var long = strings.Repeat("all work and no play makes jack a dull boy. ", 2000)

func TestCompress(t *testing.T) {
	t.Parallel()
	plain := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json; charset=utf-8") }
	for _, c := range []struct {
		name, method, path, accept string
		answer                     func(http.ResponseWriter)
		body                       string
		gzip                       bool
		vary                       string
	}{
		{"JSON", "GET", "/", "gzip", plain, long, true, "Accept-Encoding"},
		{"POST", "POST", "/", "deflate, gzip;q=0.5, br", plain, long, true, "Accept-Encoding"},
		{"a star", "GET", "/", "*", plain, long, true, "Accept-Encoding"},
		{"text/*", "GET", "/", "gzip", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/csv") }, long, true, "Accept-Encoding"},
		{"an error", "GET", "/", "gzip", func(w http.ResponseWriter) { plain(w); w.WriteHeader(422) }, long, true, "Accept-Encoding"},
		{"of unknown length", "GET", "/", "gzip", func(w http.ResponseWriter) { plain(w); _ = http.NewResponseController(w).Flush() }, long, true, "Accept-Encoding"},
		{"other Vary", "GET", "/", "gzip", func(w http.ResponseWriter) { plain(w); w.Header().Set("Vary", "Origin, accept-encoding") }, long, true, "Origin, accept-encoding"},
		{"the client does not take it", "GET", "/", "", plain, long, false, "Accept-Encoding"},
		{"the client refuses it", "GET", "/", "gzip;q=0, *", plain, long, false, "Accept-Encoding"},
		{"the client takes another", "GET", "/", "br", plain, long, false, "Accept-Encoding"},
		{"a weight that is none", "GET", "/", "gzip;q=x", plain, long, false, "Accept-Encoding"},
		{"small", "GET", "/", "gzip", plain, "small", false, ""},
		{"HEAD", "HEAD", "/", "gzip", plain, long, false, ""},
		{"another type", "GET", "/", "gzip", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/octet-stream") }, long, false, ""},
		{"no type", "GET", "/", "gzip", func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil }, long, false, ""},
		{"events", "GET", "/", "gzip", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/event-stream") }, long, false, ""},
		{"encoded", "GET", "/", "gzip", func(w http.ResponseWriter) { plain(w); w.Header().Set("Content-Encoding", "br") }, long, false, ""},
		{"no-transform", "GET", "/", "gzip", func(w http.ResponseWriter) { plain(w); w.Header().Set("Cache-Control", "private, no-transform") }, long, false, ""},
		{"a range", "GET", "/", "gzip", func(w http.ResponseWriter) {
			plain(w)
			w.Header().Set("Content-Range", "bytes 0-1/9")
			w.WriteHeader(206)
		}, long, false, ""},
		{"with a digest", "GET", "/", "gzip", func(w http.ResponseWriter) { plain(w); w.Header().Set("Content-Digest", "sha-256=:AA==:") }, long, false, ""},
		{"signed", "GET", "/", "gzip", func(w http.ResponseWriter) { plain(w); w.Header().Set("Signature", "a=:AA==:") }, long, false, ""},
		{"switched off", "GET", "/never", "gzip", plain, long, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := build(t, plan{routes: compressedRoute, handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Etag", `"v1"`)
				w.Header().Set("Accept-Ranges", "bytes")
				c.answer(w)
				_, _ = io.WriteString(w, c.body)
			}})
			got := h.do(c.method, c.path, "", map[string]string{"Accept-Encoding": c.accept})
			body, etag, ranges := got.body, `"v1"`, "bytes"
			if c.gzip {
				body, etag, ranges = unzip(t, got.body), `W/"v1"`, ""
			}
			if encoding := got.Header.Get("Content-Encoding"); (encoding == "gzip") != c.gzip {
				t.Errorf("encoding %q, %d bytes", encoding, len(got.body))
			}
			if c.method != "HEAD" && body != c.body {
				t.Errorf("%d bytes of content; want %d", len(body), len(c.body))
			}
			if got.Header.Get("Etag") != etag || got.Header.Get("Accept-Ranges") != ranges || strings.Join(got.Header.Values("Vary"), ",") != c.vary {
				t.Errorf("header %v", got.Header)
			}
			if rec := h.ended(); rec["bytes_out"] != float64(len(got.body)) {
				t.Errorf("recorded %v bytes; the client got %d", rec["bytes_out"], len(got.body))
			}
		})
	}
}

func unzip(t *testing.T, s string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// The compressor must not delay an event until the next.
func TestCompressFlushesEvents(t *testing.T) {
	next := make(chan struct{})
	h := build(t, plan{routes: compressedRoute, handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}})
	req, err := http.NewRequest("GET", "https://models.test/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token())
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := h.client(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	events := bufio.NewScanner(r)
	for i := range 3 {
		if !events.Scan() || events.Text() != fmt.Sprintf("data: %d", i) || !events.Scan() {
			t.Fatalf("event %d: %q, %v", i, events.Text(), events.Err())
		}
		next <- struct{}{}
	}
	if events.Scan() || events.Err() != nil {
		t.Errorf("the stream does not end cleanly: %v", events.Err())
	}
}

// A truncated answer must not end like a complete one.
func TestCompressedAnswerThatIsCutLooksCut(t *testing.T) {
	h := build(t, plan{routes: compressedRoute, handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, long)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}})
	for _, h2 := range []bool{false, true} {
		req, err := http.NewRequest("GET", "https://models.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+h.token())
		req.Header.Set("Accept-Encoding", "gzip")
		res, err := h.client(h2).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("it looks whole")
		}
		res.Body.Close()
	}
}

// If all compressors are in use, answers are sent uncompressed.
func TestCompressorsAreBounded(t *testing.T) {
	const many = 80
	var under sync.WaitGroup // done once every client has a head, so that every place is taken
	under.Add(many)
	h := build(t, plan{routes: compressedRoute, handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, long[:100])
		_ = http.NewResponseController(w).Flush()
		under.Wait()
		_, _ = io.WriteString(w, long)
	}})
	client, token := h.client(true), h.token()
	var calls sync.WaitGroup
	var mu sync.Mutex // guards encodings
	encodings := map[string]int{}
	for range many {
		calls.Go(func() {
			req, _ := http.NewRequest("GET", "https://models.test/", nil)
			req.Header.Set("Authorization", "Bearer "+token)
			req.Header.Set("Accept-Encoding", "gzip")
			res, err := client.Do(req)
			under.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if res.Header.Get("Content-Encoding") == "gzip" {
				body = []byte(unzip(t, string(body)))
			}
			if err != nil || string(body) != long[:100]+long {
				t.Errorf("%d bytes, %v", len(body), err)
			}
			mu.Lock()
			encodings[res.Header.Get("Content-Encoding")]++
			mu.Unlock()
		})
	}
	calls.Wait()
	if encodings["gzip"] != 64 || encodings[""] != many-64 {
		t.Errorf("encodings %v; want 64 with gzip", encodings)
	}
}
