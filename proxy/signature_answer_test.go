package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// answering is a model server whose answer depends on the path.
func answering(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	flush := func(text string) {
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
	}
	switch r.URL.Path {
	case "/short":
		_, _ = io.WriteString(w, `{"predictions": [2.5]}`)
	case "/empty":
		h.Set("Content-Length", "0")
	case "/gzip":
		h.Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, gzipped(strings.Repeat("text ", 1000)))
	case "/untyped":
		h["Content-Type"] = nil
		h.Set("Content-Length", "2")
		_, _ = io.WriteString(w, "ok")
	case "/long":
		long := strings.Repeat("x", 5000)
		h.Set("Content-Length", strconv.Itoa(len(long)))
		_, _ = io.WriteString(w, long)
	case "/events", "/half-events", "/gzip-events", "/no-events":
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		if r.URL.Path == "/gzip-events" {
			h.Set("Content-Encoding", "gzip")
			flush(gzipped("data: 1\n\n"))
			return
		}
		if r.URL.Path != "/no-events" {
			flush("data: 1\n\n")
			flush("data: 2\n\n")
		}
		if r.URL.Path == "/half-events" {
			flush("data: 3")
		}
		w.(http.Flusher).Flush()
	case "/trailers":
		h.Set("Trailer", "X-Upstream, X-Sallyport-Model, Signature, Signature-Input, Content-Digest")
		flush("part")
		h.Set("X-Upstream", "kept")
		h.Set("X-Sallyport-Model", "forged")
		h.Set("Signature", "sp-tail=:AA==:")
		h.Set("Signature-Input", `sp-tail=();tag="sallyport-resp"`)
		h.Set("Content-Digest", "sha-256=:AA==:")
	case "/dies":
		h.Set("Content-Length", "100")
		flush("half of it")
		panic(http.ErrAbortHandler)
	case "/dies-streaming":
		h.Set("Content-Type", "text/event-stream")
		flush("data: 1\n\n")
		panic(http.ErrAbortHandler)
	case "/dies-long":
		h.Set("Content-Length", "5000")
		flush(strings.Repeat("x", 4999))
		panic(http.ErrAbortHandler)
	case "/204":
		w.WriteHeader(204)
	case "/304":
		h.Set("Etag", `"x"`)
		w.WriteHeader(304)
	case "/206":
		h.Set("Content-Range", "bytes 0-4/10")
		w.WriteHeader(206)
		_, _ = io.WriteString(w, "01234")
	case "/404":
		w.WriteHeader(404)
		_, _ = io.WriteString(w, `{"error": "none"}`)
	case "/forged":
		h.Set("X-Sallyport-Model", "forged")
		h.Set("X-Sallyport-Anything", "forged")
		h.Set("Signature", "sp=:AA==:")
		h.Set("Signature-Input", `sp=();tag="sallyport-resp"`)
		h.Set("Content-Digest", "sha-256=:AA==:")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "ok")
	}
}

// answers is a house with that model server; integrity is that of its route.
func answers(t *testing.T, integrity, more string) *house {
	t.Helper()
	return signed(t, plan{handler: answering, more: more, routes: fmt.Sprintf(`
  - {host: models.test, upstream: '%%s', callers: [key/acme, issuer/corp], rules: [{allow: "*"}], integrity: {response_buffer: 4KiB%s}}
`, integrity)})
}

// TestAnswersAreVerifiedByClients uses the client of package httpsig.
func TestAnswersAreVerifiedByClients(t *testing.T) {
	h := answers(t, "", "")
	for _, h2 := range []bool{false, true} {
		c := h.signingClient(h2, nil)
		for _, x := range []struct {
			method, path string
			status       int
			body         string
		}{
			{"POST", "/short", 200, `{"predictions": [2.5]}`}, {"GET", "/short?a=b", 200, `{"predictions": [2.5]}`}, {"GET", "/empty", 200, ""},
			{"GET", "/long", 200, strings.Repeat("x", 5000)}, {"GET", "/events", 200, "data: 1\n\ndata: 2\n\n"}, {"GET", "/no-events", 200, ""},
			{"GET", "/trailers", 200, "part"}, {"HEAD", "/short", 200, ""}, {"HEAD", "/long", 200, ""}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, ""},
			{"GET", "/206", 206, "01234"}, {"GET", "/404", 404, `{"error": "none"}`}, {"GET", "/untyped", 200, "ok"}, {"GET", "/forged", 200, "ok"},
		} {
			t.Run(fmt.Sprintf("%s %s, HTTP/2: %v", x.method, x.path, h2), func(t *testing.T) {
				req, err := http.NewRequest(x.method, "https://models.test"+x.path, strings.NewReader(map[bool]string{true: usualBody}[x.method == "POST"]))
				if err != nil {
					t.Fatal(err)
				}
				r := h.in(t).send(c, req)
				if r.StatusCode != x.status || r.body != x.body {
					t.Errorf("got %d %q", r.StatusCode, r.body)
				}
				if message := r.Header.Get("Content-Digest"); message != "" && (x.status == 204 || x.status == 304 || x.method == "HEAD") {
					t.Errorf("Content-Digest: %s where there is no content", message)
				}
			})
		}
	}
}

// changed is a connection to the gateway on which answers are changed.
type changed struct {
	http.RoundTripper
	change func(*http.Response)
}

func (c changed) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		c.change(res)
	}
	return res, err
}

// TestChangedAnswersFailVerification checks that the client of package httpsig refuses them.
func TestChangedAnswersFailVerification(t *testing.T) {
	h := answers(t, "", "")
	body := func(s string) func(*http.Response) {
		return func(r *http.Response) {
			_, _ = io.Copy(io.Discard, r.Body)
			r.Body = struct {
				io.Reader
				io.Closer
			}{strings.NewReader(s), r.Body}
		}
	}
	drop := func(names ...string) func(*http.Response) {
		return func(r *http.Response) {
			for _, n := range names {
				r.Header.Del(n)
			}
		}
	}
	for _, c := range []struct {
		name, path string
		change     func(*http.Response)
	}{
		{"the status", "/short", func(r *http.Response) { r.StatusCode = 201 }},
		{"the content type", "/short", func(r *http.Response) { r.Header.Set("Content-Type", "text/plain") }},
		{"a content encoding", "/short", func(r *http.Response) { r.Header.Set("Content-Encoding", "gzip") }},
		{"no content encoding", "/gzip", drop("Content-Encoding")},
		{"the content", "/short", body(`{"predictions": [9.5]}`)},
		{"the content, cut", "/short", body(`{"predictions"`)},
		{"the content, gone", "/short", body("")},
		{"the digest", "/short", func(r *http.Response) { r.Header.Set("Content-Digest", httpsig.ContentDigest(nil)); body("")(r) }},
		{"no signature", "/short", drop("Signature", "Signature-Input")},
		{"no signature on an empty answer", "/204", drop("Signature", "Signature-Input")},
		{"a stream, its trailers gone", "/events", func(r *http.Response) { body("data: 1\n\ndata: 2\n\n")(r); r.Trailer = nil }},
		{"a stream, cut", "/events", body("data: 1\n\n")},
		{"a stream, an event changed", "/events", body("data: 1\n\ndata: 3\n\n")},
		{"a stream, its head taken for that of another kind", "/events", func(r *http.Response) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), httpsig.TagResponseHead, httpsig.TagResponseHeadOnly, 1))
		}},
		{"a long answer, its trailers gone", "/long", func(r *http.Response) { body(strings.Repeat("x", 5000))(r); r.Trailer = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := h.signingClient(false, func(tr *httpsig.Transport) { tr.Base = changed{tr.Base, c.change} })
			res, err := client.Get("https://models.test" + c.path)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			var fault *httpsig.Error
			if !errors.As(err, &fault) {
				t.Errorf("the client believes it: %v", err)
			}
		})
	}
}

// TestAnswersAreBoundToTheirRequests gives a client the answer to another request.
func TestAnswersAreBoundToTheirRequests(t *testing.T) {
	h := answers(t, "", "")
	for _, path := range []string{"/short", "/204", "/events"} {
		for _, again := range []string{path, path + "?other", "/short"} {
			t.Run(path+" for "+again, func(t *testing.T) {
				first := []byte(nil)
				client := h.signingClient(false, func(tr *httpsig.Transport) {
					tr.Base = changed{tr.Base, func(r *http.Response) {
						dump, err := httputil.DumpResponse(r, true)
						if err != nil {
							t.Error(err)
						}
						if first == nil {
							first = dump
						}
						*r = *h.parseDump(first)
					}}
				})
				if res, err := client.Get("https://models.test" + path); err == nil {
					res.Body.Close()
				}
				res, err := client.Get("https://models.test" + again)
				if err == nil {
					res.Body.Close()
				}
				var fault *httpsig.Error
				if !errors.As(err, &fault) || fault.Code != httpsig.Unbound && fault.Code != httpsig.BadSignature {
					t.Errorf("the client believes it: %v", err)
				}
			})
		}
	}
}

func (h *house) parseDump(dump []byte) *http.Response {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(dump)), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

// TestFormsOfAnswers checks on the wire which form is chosen, and verifies it without the client.
func TestFormsOfAnswers(t *testing.T) {
	for _, c := range []struct {
		name, method, path, version, more string
		integrity                         string
		form, tag                         string
	}{
		{"short", "POST", "/short", "1.1", "", "", "header", httpsig.TagResponse},
		{"short for HTTP/1.0", "POST", "/short", "1.0", "", "", "header", httpsig.TagResponse},
		{"long with TE", "GET", "/long", "1.1", "TE: trailers\r\n", "", "trailer", httpsig.TagResponseHead},
		{"long without TE", "GET", "/long", "1.1", "", "", "head_only", httpsig.TagResponseHeadOnly},
		{"long for HTTP/1.0", "GET", "/long", "1.0", "TE: trailers\r\n", "", "head_only", httpsig.TagResponseHeadOnly},
		{"stream with TE", "GET", "/events", "1.1", "TE: trailers\r\n", "", "trailer", httpsig.TagResponseHead},
		{"stream without TE", "GET", "/events", "1.1", "", "", "head_only", httpsig.TagResponseHeadOnly},
		{"stream for HTTP/1.0", "GET", "/events", "1.0", "", "", "head_only", httpsig.TagResponseHeadOnly},
		{"HEAD", "HEAD", "/short", "1.1", "TE: trailers\r\n", "", "head_only", httpsig.TagResponseHeadOnly},
		{"204", "GET", "/204", "1.1", "TE: trailers\r\n", "", "head_only", httpsig.TagResponseHeadOnly},
		{"304", "GET", "/304", "1.1", "TE: trailers\r\n", "", "head_only", httpsig.TagResponseHeadOnly},
		{"events inline", "GET", "/events", "1.1", "", ", events: inline", "inline", httpsig.TagResponseHead},
		{"events inline, none", "GET", "/no-events", "1.1", "", ", events: inline", "inline", httpsig.TagResponseHead},
		{"encoded events are not signed inline", "GET", "/gzip-events", "1.1", "", ", events: inline", "head_only", httpsig.TagResponseHeadOnly},
		{"no events and inline", "GET", "/short", "1.1", "", ", events: inline", "header", httpsig.TagResponse},
		{"off", "GET", "/short", "1.1", "", ", response: off", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := answers(t, c.integrity, "")
			e := errand{method: c.method, target: c.path}.signed(t)
			request := strings.Replace(strings.Replace(e.raw(), "HTTP/1.1", "HTTP/"+c.version, 1), "Connection: close\r\n", c.more+"Connection: close\r\n", 1)
			raw := h.tell(request)
			r := h.parse(raw, c.method)
			if r.StatusCode >= 400 {
				t.Fatalf("got %d %s", r.StatusCode, r.body)
			}
			if c.form == "" {
				h.unsigned(r)
			} else {
				h.verifyForm(e, r, c.tag, raw)
			}
			if rec := h.ended(); rec["signed"] != any(c.form) && (c.form != "" || rec["signed"] != nil) {
				t.Errorf("recorded as signed: %v; want %s", rec["signed"], c.form)
			}
		})
	}
}

// verifyForm verifies a raw answer without the client.
func (h *house) verifyForm(e *errand, r *reply, tag, raw string) {
	h.t.Helper()
	key := keyOf("acme-1")
	if tag == httpsig.TagResponse {
		h.vouched(e, r, key)
		return
	}
	m := e.answerOf(r)
	if _, err := verifier(h.t, httpsig.HeadPolicy(tag), key).VerifyResponse(m, e.nonce, false); err != nil {
		h.t.Fatalf("the head: %v in %s", err, raw)
	}
	if r.Header.Get("Content-Digest") != "" {
		h.t.Errorf("Content-Digest: %s in a head that does not cover it", r.Header.Get("Content-Digest"))
	}
	if tag == httpsig.TagResponseHeadOnly {
		if len(r.Trailer) != 0 || strings.Contains(raw, "sp-tail") {
			h.t.Errorf("there is a tail: %s", raw)
		}
		return
	}
	content := r.body
	if comment := strings.Index(r.body, ": sallyport-sig "); comment >= 0 {
		content = r.body[:comment]
		line, end, _ := strings.Cut(strings.TrimPrefix(r.body[comment:], ": sallyport-sig "), "\n")
		if end != "\n" {
			h.t.Errorf("the comment ends in %q", end)
		}
		input, rest, _ := strings.Cut(line, " sp-tail=:")
		signature, digest, _ := strings.Cut(rest, " ")
		m.Trailers = httpsig.Lines{{Name: "Signature-Input", Value: input}, {Name: "Signature", Value: "sp-tail=:" + signature}, {Name: "Content-Digest", Value: digest}}
	}
	if _, err := verifier(h.t, httpsig.TailPolicy(), key).VerifyResponse(m, e.nonce, true); err != nil {
		h.t.Fatalf("the tail: %v in %s", err, raw)
	}
	d, err := httpsig.ParseContentDigest(m.Trailers)
	if err == nil {
		err = d.Match([]byte(content))
	}
	if err != nil {
		h.t.Errorf("the content: %v in %s", err, raw)
	}
}

// TestBrokenAnswersAreNeitherSignedNorComplete checks that such answers have no signature at the end and look truncated, or
// are refused whole.
func TestBrokenAnswersAreNeitherSignedNorComplete(t *testing.T) {
	t.Run("within what is held", func(t *testing.T) {
		h := answers(t, "", "")
		e := errand{target: "/dies"}.signed(t)
		r := h.parse(h.tell(e.raw()), "POST")
		if r.StatusCode != 502 || r.reason() != "upstream_reset" || strings.Contains(r.body, "half") {
			t.Errorf("got %d %s", r.StatusCode, r.body)
		}
		h.vouched(e, r, keyOf("acme-1"))
	})
	for _, c := range []struct{ name, path, more, integrity string }{
		{"a stream with a tail", "/dies-streaming", "TE: trailers\r\n", ""},
		{"a stream without", "/dies-streaming", "", ""},
		{"events inline", "/dies-streaming", "", ", events: inline"},
		{"events inline that end within one", "/half-events", "", ", events: inline"},
		{"a long answer with a tail", "/dies-long", "TE: trailers\r\n", ""},
		{"a long answer without", "/dies-long", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := answers(t, c.integrity, "")
			e := errand{target: c.path}.signed(t)
			raw := h.tell(strings.Replace(e.raw(), "Connection: close\r\n", c.more+"Connection: close\r\n", 1))
			head, body, _ := strings.Cut(raw, "\r\n\r\n")
			if strings.Contains(raw, "sp-tail") || strings.Contains(raw, "sallyport-sig") || strings.HasSuffix(raw, "0\r\n\r\n") {
				t.Errorf("a broken answer ends well: %s", raw)
			}
			if raw == "" {
				return // it broke off before any of it was forwarded
			}
			res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
			if err != nil {
				t.Fatalf("%v in %s", err, head)
			}
			if _, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("an answer that broke does not look cut (%v): %d bytes under %s", err, len(body), head)
			}
		})
		t.Run(c.name+", over HTTP/2", func(t *testing.T) {
			h := answers(t, c.integrity, "")
			req := errand{target: c.path}.signed(t).request(t)
			if c.more != "" {
				req.Header.Set("Te", "trailers")
			}
			res, err := h.client(true).Do(req)
			if err != nil {
				return // it broke off before any of it was forwarded
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err == nil || len(res.Trailer.Values("Signature")) != 0 {
				t.Errorf("an answer that broke ends well: %q, %v", body, res.Trailer)
			}
		})
	}
}

// TestRefusalsAreSigned: refusals are signed only for callers whose signature was valid.
func TestRefusalsAreSigned(t *testing.T) {
	h := signed(t, plan{handler: answering, routes: `
  - {host: models.test, path: /forbidden, upstream: '%s', callers: key/acme, rules: [{allow: "*", who: {principal: "key:orbit"}}]}
  - {host: models.test, path: /verb, upstream: '%s', callers: key/acme, rules: [{allow: get}]}
  - {host: models.test, path: /rate, upstream: '%s', callers: key/acme, rules: [{allow: "*"}], limits: {rate: {per: route, limit: 1/h, burst: 1}}}
  - {host: models.test, path: /dead, upstream: 'http://127.0.0.1:1', callers: key/acme, rules: [{allow: "*"}]}
  - {host: models.test, path: /off, upstream: 'http://127.0.0.1:1', callers: key/acme, rules: [{allow: "*"}], integrity: {response: off}}
  - {host: models.test, path: /fixed, respond: {status: 503, body: later}, callers: key/acme}
  - {host: models.test, path: /nothing, respond: 204, callers: key/acme}
  - {host: models.test, path: /get, methods: GET, upstream: '%s', callers: key/acme, rules: [{allow: "*"}]}
  - {host: models.test, path: /v1/models, serves: tensorflow, upstream: 'http://127.0.0.1:1', callers: key/acme, rules: [{allow: "*", models: "*"}]}
`})
	for _, c := range []struct {
		target string
		status int
		reason string
		signed bool
	}{
		{"/forbidden", 403, "forbidden", true},
		{"/verb", 403, "forbidden", true},
		{"/rate", 200, "", true},
		{"/rate", 429, "rate_limited", true},
		{"/dead", 502, "upstream_refused", true},
		{"/v1/models/m:predict", 502, "upstream_refused", true},
		{"/off", 502, "upstream_refused", false},
		{"/fixed", 503, "", true},
		{"/get", 405, "method_not_allowed", false}, // the signature is not yet verified
		{"/nowhere", 404, "no_route", false},
		{"/a//b", 400, "ambiguous_path", false},
	} {
		e := errand{target: c.target}.signed(t)
		r := h.parse(h.tell(e.raw()), "POST")
		if r.StatusCode != c.status || r.reason() != c.reason {
			t.Errorf("%s: got %d %s", c.target, r.StatusCode, r.body)
		}
		if c.signed {
			h.vouched(e, r, keyOf("acme-1"))
		} else {
			h.unsigned(r)
		}
	}
	t.Run("HEAD", func(t *testing.T) {
		h := h.in(t)
		e := errand{method: "HEAD", target: "/forbidden"}.signed(t)
		raw := h.tell(e.raw())
		h.verifyForm(e, h.parse(raw, "HEAD"), httpsig.TagResponseHeadOnly, raw)
	})
	t.Run("204", func(t *testing.T) {
		h := h.in(t)
		e := errand{target: "/nothing"}.signed(t)
		raw := h.tell(e.raw())
		h.verifyForm(e, h.parse(raw, "POST"), httpsig.TagResponseHeadOnly, raw)
	})
}
