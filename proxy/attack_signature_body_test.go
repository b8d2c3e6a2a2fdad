package proxy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
)

// chunked renders the request with a chunked body and trailers.
func (e *errand) chunked(pieces []string, trailers ...string) string {
	head, _, _ := strings.Cut(e.raw(), "\r\n\r\n")
	head = regexpReplace(head, `Content-Length: \d+\r\n`, "")
	var b strings.Builder
	b.WriteString(head + "\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, p := range pieces {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
	}
	b.WriteString("0\r\n")
	for _, l := range trailers {
		b.WriteString(l + "\r\n")
	}
	return b.String() + "\r\n"
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}

// TestChangedContentIsRefused sends content that differs from the signed one. The refusal is
// signed, so the client learns that its message was changed.
func TestChangedContentIsRefused(t *testing.T) {
	h := signed(t, plan{})
	right := httpsig.ContentDigest([]byte(usualBody))
	wrong := httpsig.ContentDigest([]byte("other"))
	for _, c := range []struct {
		name   string
		reason string
		errand
		body   string // what is sent instead
		pieces []string
	}{
		{name: "swapped", reason: "digest_mismatch", body: strings.Replace(usualBody, "1", "2", 1)},
		{name: "cut", reason: "digest_mismatch", body: usualBody[:len(usualBody)-1]},
		{name: "cut to nothing", reason: "digest_mismatch", body: "-"},
		{name: "extended", reason: "digest_mismatch", body: usualBody + " "},
		{name: "before it", reason: "digest_mismatch", body: " " + usualBody},
		{name: "added to nothing", reason: "digest_mismatch", errand: errand{method: "GET"}, body: "x"},
		{name: "added to an empty POST", reason: "digest_mismatch", errand: errand{method: "POST"}, body: usualBody},
		{name: "in chunks, swapped", reason: "digest_mismatch", pieces: []string{`{"instances": `, `[2.0]}`}},
		{name: "in chunks, one missing", reason: "digest_mismatch", pieces: []string{`{"instances": `}},
		{name: "in chunks, one twice", reason: "digest_mismatch", pieces: []string{usualBody, usualBody}},
		{name: "in no chunks", reason: "digest_mismatch", pieces: []string{}},
		{name: "in chunks, added to nothing", reason: "digest_mismatch", errand: errand{method: "GET"}, pieces: []string{"x"}},
		{name: "the digest of other content", reason: "digest_mismatch", errand: errand{digest: wrong}},
		{name: "sha-512 wrong, sha-256 right", reason: "digest_mismatch", errand: errand{digest: right + ", sha-512=:" + base64Of512("other") + ":"}},
		{name: "sha-512 right, sha-256 wrong", reason: "digest_mismatch", errand: errand{digest: wrong + ", sha-512=:" + base64Of512(usualBody) + ":"}},
		{name: "sha-512 wrong", reason: "digest_mismatch", errand: errand{digest: "sha-512=:" + base64Of512("other") + ":"}},
		{name: "of the content before its coding", reason: "digest_mismatch", errand: errand{method: "POST", digest: right, fields: httpsig.Lines{{Name: "Content-Encoding", Value: "gzip"}}}, body: gzipped(usualBody)},

		{name: "md5 alone", reason: "digest_missing", errand: errand{digest: "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"}},
		{name: "sha alone", reason: "digest_missing", errand: errand{digest: "sha=:2jmj7l5rSw0yVb/vlWAYkK/YBwk=:"}},
		{name: "crc32c and adler", reason: "digest_missing", errand: errand{digest: "crc32c=:AAAAAA==:, adler=:AAAAAA==:"}},
		{name: "an algorithm of upper case", reason: "malformed", errand: errand{digest: strings.ToUpper(right[:7]) + right[7:]}},
		{name: "sha-256 that is a token", reason: "malformed", errand: errand{digest: "sha-256=abc"}},
		{name: "sha-256 of 16 bytes", reason: "malformed", errand: errand{digest: "sha-256=:" + base64Of(make([]byte, 16)) + ":"}},
		{name: "sha-256 twice, the last right", reason: "malformed", errand: errand{digest: wrong + ", " + right}},
		{name: "sha-256 twice, the first right", reason: "malformed", errand: errand{digest: right + ", " + wrong}},
		{name: "a digest with a parameter", reason: "malformed", errand: errand{digest: right + ";x"}},
		{name: "a comma behind", reason: "malformed", errand: errand{digest: right + ","}},
		{name: "no dictionary", reason: "malformed", errand: errand{digest: "x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			e := c.errand.signed(t)
			status := 400
			if c.reason == "malformed" {
				status = 401
			}
			request := e.raw()
			switch {
			case c.pieces != nil:
				request = e.chunked(c.pieces)
			case c.body == "-":
				sent := *e
				sent.body = ""
				request = sent.raw()
			case c.body != "":
				sent := *e
				sent.body = c.body
				request = sent.raw()
			}
			r := h.parse(h.tell(request), e.method)
			h.refused(r, status, c.reason)
			h.vouched(e, r, keyOf("acme-1"))
			if !r.Close {
				t.Error("the connection stays open behind content that was not what was said")
			}
		})
	}
	t.Run("over HTTP/2", func(t *testing.T) {
		h := h.in(t)
		e := errand{}.signed(t)
		sent := *e
		sent.body = strings.Replace(usualBody, "1", "2", 1)
		r := h.send(h.client(true), sent.request(t))
		h.refused(r, 400, "digest_mismatch")
		h.vouched(e, r, keyOf("acme-1"))
	})
}

func TestSignedContentArrivesUnchanged(t *testing.T) {
	h := signed(t, plan{})
	n := int64(0)
	pass := func(t *testing.T, r *reply, body string) {
		t.Helper()
		n++
		h.in(t).passed(r, n)
		if up, got := h.model.seen(); string(got) != body || up.ContentLength != int64(len(body)) {
			t.Errorf("the upstream got %d bytes with Content-Length %d; want %d", len(got), up.ContentLength, len(body))
		}
	}
	t.Run("in chunks", func(t *testing.T) {
		pass(t, h.parse(h.tell(errand{}.signed(t).chunked([]string{usualBody[:1], usualBody[1:7], usualBody[7:]})), "POST"), usualBody)
	})
	t.Run("in chunks, with a digest in the trailers that nobody looks at", func(t *testing.T) {
		e := errand{}.signed(t)
		pass(t, h.parse(h.tell(e.chunked([]string{usualBody}, "Content-Digest: sha-256=:AA==:", "X-Trailer: x")), "POST"), usualBody)
		if up, _ := h.model.seen(); up.Header.Get("Content-Digest") != e.digest || len(up.Trailer) != 0 {
			t.Errorf("the upstream got the digest %s and trailers %v", up.Header.Get("Content-Digest"), up.Trailer)
		}
	})
	t.Run("no content in chunks", func(t *testing.T) {
		e := errand{method: "GET"}.signed(t)
		pass(t, h.parse(h.tell(e.chunked(nil)), "GET"), "")
	})
	t.Run("gzip, as coded", func(t *testing.T) {
		body := gzipped(usualBody)
		pass(t, h.sendErrand(errand{method: "POST", body: body, fields: httpsig.Lines{{Name: "Content-Encoding", Value: "gzip"}}}.signed(t)), body)
	})
	t.Run("of every size around a block", func(t *testing.T) {
		for _, size := range []int{1, 32<<10 - 1, 32 << 10, 32<<10 + 1, 64 << 10, 64<<10 + 1, 96 << 10, 1 << 20} {
			body := strings.Repeat("abcdefg\n", size/8+1)[:size]
			e := errand{method: "POST", body: body}.signed(t)
			pass(t, h.sendErrand(e), body)
			e = errand{method: "POST", body: body}.signed(t)
			pass(t, h.send(h.client(true), e.request(t)), body)
			e = errand{method: "POST", body: body}.signed(t)
			pass(t, h.parse(h.tell(e.chunked([]string{body[:size/2+1], body[size/2+1:]}[:1+min(size/2, 1)])), "POST"), body)
		}
	})
}

// TestNoUploadBeforeTheSignatureIsVerified waits for 100 (Continue), which forged and replayed
// requests never get.
func TestNoUploadBeforeTheSignatureIsVerified(t *testing.T) {
	h := signed(t, plan{})
	ask := func(e *errand) (*tls.Conn, *bufio.Reader, *http.Response) {
		t.Helper()
		c := h.dial("models.test")
		head, _, _ := strings.Cut(e.raw(), "\r\n\r\n")
		if _, err := io.WriteString(c, head+"\r\nExpect: 100-continue\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		res, err := http.ReadResponse(in, &http.Request{Method: e.method})
		if err != nil {
			t.Fatal(err)
		}
		return c, in, res
	}
	used := errand{}.signed(t)
	h.passed(h.sendErrand(used), 1)
	for name, e := range map[string]*errand{
		"a wrong MAC": errand{key: mustKey("acme-1", "wrong")}.signed(t), "an unknown key": errand{key: keyOf("nobody-1")}.signed(t),
		"an old one": errand{at: -time.Hour}.signed(t), "a replay": used, "md5 alone": errand{digest: "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"}.signed(t),
	} {
		c, _, res := ask(e)
		if res.StatusCode == 100 || res.StatusCode < 400 {
			t.Errorf("%s: got %d", name, res.StatusCode)
		}
		c.Close()
	}
	c, in, res := ask(errand{}.signed(t))
	if res.StatusCode != 100 {
		t.Fatalf("got %d; want 100", res.StatusCode)
	}
	if h.model.hits.Load() != 1 {
		t.Error("the upstream knows of the request before its content came")
	}
	if _, err := io.WriteString(c, usualBody); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 200 || h.model.hits.Load() != 2 {
		t.Errorf("%v, %v", res, err)
	}
}

const memoryPlan = "integrity: {memory: 1MiB}\n"

// TestMemoryForHeldContentIsBounded lets many slow clients upload signed content. Together they
// hold no more than the budget, and it is released.
func TestMemoryForHeldContentIsBounded(t *testing.T) {
	h := signed(t, plan{more: memoryPlan, routes: `
  - {host: models.test, upstream: '%s', callers: key/acme, rules: [{allow: "*"}], integrity: {buffer: 1MiB}}
`})
	const each, sent = 100_000, 70_000 // three blocks of the four that a body takes
	body := strings.Repeat("m", each)
	upload := func(e *errand) *tls.Conn {
		c := h.dial("models.test")
		head, _, _ := strings.Cut(e.raw(), "\r\n\r\n")
		if _, err := io.WriteString(c, head+"\r\n\r\n"+body[:sent]); err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("forgers take none", func(t *testing.T) {
		for range 20 {
			c := upload(errand{method: "POST", body: body, key: mustKey("acme-1", "wrong")}.signed(t))
			if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 401 {
				t.Errorf("%v, %v", res, err)
			}
			if used := h.signatures().MemoryUsed; used != 0 {
				t.Errorf("%d bytes are held", used)
			}
		}
	})
	var slow []*tls.Conn
	for range 9 {
		slow = append(slow, upload(errand{method: "POST", body: body}.signed(t)))
	}
	eventually(t, "nine bodies are held", func() bool { return h.signatures().MemoryUsed >= 9*3*32<<10 })
	var refused *errand
	for range 40 {
		e := errand{method: "POST", body: body}.signed(t)
		raw := h.tell(e.raw())
		r := h.parse(raw, "POST")
		s := h.signatures()
		if s.MemoryUsed > s.MemoryTotal || s.MemoryTotal != 1<<20 {
			t.Fatalf("%d bytes of %d are held", s.MemoryUsed, s.MemoryTotal)
		}
		switch {
		case r.StatusCode == 200 && refused == nil:
		case r.StatusCode == 503 && r.reason() == "body_memory":
			refused = e
			if n, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || n < 1 {
				t.Errorf("Retry-After: %q", r.Header.Get("Retry-After"))
			}
		}
		slow = append(slow, upload(errand{method: "POST", body: body}.signed(t)))
	}
	if refused == nil {
		t.Fatal("nobody was refused")
	}
	for _, c := range slow {
		c.Close()
	}
	eventually(t, "all is given back", func() bool { return h.signatures().MemoryUsed == 0 })
	n := h.model.hits.Load()
	h.passed(h.sendErrand(refused), n+1) // a 503 uses up no nonce
	eventually(t, "all is given back", func() bool { return h.signatures().MemoryUsed == 0 })
}

func TestLongSignedBodiesAreRefused(t *testing.T) {
	h := signed(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: key/acme, rules: [{allow: "*"}], integrity: {buffer: 100KiB}}
`})
	long := strings.Repeat("l", 100<<10+1)
	e := errand{method: "POST", body: long}.signed(t)
	r := h.parse(h.tell(e.raw()), "POST")
	h.refused(r, 413, "body_too_large")
	h.vouched(e, r, keyOf("acme-1"))
	e = errand{method: "POST", body: long}.signed(t)
	r = h.parse(h.tell(e.chunked([]string{long[:50<<10], long[50<<10:]})), "POST")
	h.refused(r, 413, "body_too_large")
	h.vouched(e, r, keyOf("acme-1"))
	h.passed(h.sendErrand(errand{method: "POST", body: long[1:]}.signed(t)), 1)
}
