package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// streaming is a house whose route verifies signed content while it streams to a judge.
func streaming(t *testing.T, integrity string) (*house, *judge) {
	t.Helper()
	j := newJudge(t, nil)
	h := signed(t, plan{routes: fmt.Sprintf(`
  - {host: models.test, upstream: '%s', serves: tensorflow, callers: key/acme, rules: [{allow: "*", models: "*"}], integrity: {body: %s}}
`, j.URL, integrity)})
	return h, j
}

// arrived stops the house and returns what reached the judge: complete requests, and parts of
// others.
func (h *house) arrived(j *judge) (whole []*judged, cut []string) {
	h.t.Helper()
	if err := h.stop(); err != nil {
		h.t.Errorf("Run: %v", err)
	}
	j.l.Close()
	j.conns.Wait()
	j.sound(h.t)
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.whole, j.cut
}

// TestStreamWithABadDigestNeverEnds sends long content with a wrong digest. The upstream may see
// part of it but never the end.
func TestStreamWithABadDigestNeverEnds(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10) // 320 KiB
	swap := func(at int) string { return long[:at] + "x" + long[at+1:] }
	for _, c := range []struct{ name, body string }{
		{"the first byte", swap(0)},
		{"a byte in the middle", swap(len(long) / 2)},
		{"the last byte", swap(len(long) - 1)},
		{"cut", long[:len(long)-1]},
		{"cut to just what is not held", long[:64<<10+1]},
		{"extended", long + "x"},
		{"extended by a block", long + long[:64<<10]},
	} {
		for _, way := range []string{"with a length", "in chunks", "over HTTP/2"} {
			t.Run(c.name+" "+way, func(t *testing.T) {
				h, j := streaming(t, "stream")
				e := errand{method: "POST", body: long}.signed(t)
				sent := *e
				sent.body = c.body
				var r *reply
				switch way {
				case "with a length":
					r = h.parse(h.tell(sent.raw()), "POST")
				case "in chunks":
					r = h.parse(h.tell(sent.chunked([]string{c.body[:1000], c.body[1000:]})), "POST")
				default:
					c := h.client(true)
					r = h.send(c, sent.request(t))
					c.CloseIdleConnections()
				}
				if r.StatusCode != 400 || r.reason() != "digest_mismatch" {
					t.Errorf("got %d %s", r.StatusCode, r.body)
				}
				h.vouched(e, r, keyOf("acme-1"))
				whole, cut := h.arrived(j)
				if len(whole) != 0 {
					t.Errorf("the upstream got a whole request with %d bytes", len(whole[0].Body))
				}
				for _, part := range cut {
					_, body, _ := strings.Cut(part, "\r\n\r\n")
					if way == "with a length" && len(body) >= len(c.body) || strings.HasSuffix(body, "\r\n0\r\n\r\n") {
						t.Errorf("the upstream got all %d bytes", len(body))
					}
				}
			})
		}
	}
}

// TestShortStreamIsHeldWhole sends short content with a wrong digest to a streaming route. The
// upstream sees nothing of it.
func TestShortStreamIsHeldWhole(t *testing.T) {
	for _, size := range []int{1, 100, 64 << 10} {
		for _, way := range []string{"with a length", "in chunks"} {
			t.Run(fmt.Sprint(size, " ", way), func(t *testing.T) {
				h, j := streaming(t, "stream")
				e := errand{method: "POST", body: strings.Repeat("a", size)}.signed(t)
				sent := *e
				sent.body = strings.Repeat("a", size-1) + "b"
				request := sent.raw()
				if way == "in chunks" {
					request = sent.chunked([]string{sent.body})
				}
				r := h.parse(h.tell(request), "POST")
				if r.StatusCode != 400 || r.reason() != "digest_mismatch" {
					t.Errorf("got %d %s", r.StatusCode, r.body)
				}
				if whole, cut := h.arrived(j); len(whole)+len(cut) != 0 {
					t.Errorf("the upstream got %d whole requests and %q", len(whole), cut)
				}
			})
		}
	}
}

// TestStreamWithAGoodDigestArrives sends content of lengths around the threshold for holding.
func TestStreamWithAGoodDigestArrives(t *testing.T) {
	for _, mode := range []string{"stream", "headers_only"} {
		h, j := streaming(t, mode)
		two := h.client(true)
		for _, size := range []int{1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 96 << 10, 96<<10 + 1, 300_000, 1 << 20} {
			body := strings.Repeat("abcdefgh", size/8+1)[:size]
			for way := range 3 {
				e := errand{method: "POST", body: body}.signed(t)
				var r *reply
				switch way {
				case 0:
					r = h.parse(h.tell(e.raw()), "POST")
				case 1:
					r = h.parse(h.tell(e.chunked([]string{body[:size/2+1], body[size/2+1:]}[:1+min(size/2, 1)])), "POST")
				default:
					r = h.send(two, e.request(t))
				}
				if r.StatusCode != 200 {
					t.Fatalf("%d bytes, way %d: got %d %s", size, way, r.StatusCode, r.body)
				}
				all := j.taken()
				if len(all) != 1 || all[0].Body != body || all[0].get("content-digest") != e.digest {
					t.Fatalf("%d bytes, way %d: the upstream got %d requests", size, way, len(all))
				}
			}
		}
		two.CloseIdleConnections()
		whole, cut := h.arrived(j)
		if len(whole)+len(cut) != 0 {
			t.Errorf("besides: %d whole, %d cut", len(whole), len(cut))
		}
	}
}

// TestClientThatLeavesAStreamEndsIt aborts content, which the upstream must see as truncated.
func TestClientThatLeavesAStreamEndsIt(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10)
	h, j := streaming(t, "stream")
	for _, request := range []string{
		errand{method: "POST", body: long}.signed(t).raw(),
		strings.TrimSuffix(errand{method: "POST", body: long}.signed(t).chunked([]string{long}), "0\r\n\r\n"),
	} {
		c := h.dial("models.test")
		if _, err := io.WriteString(c, request[:len(request)-1]); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	eventually(t, "both have ended", func() bool { return len(h.audit.records(t)) == 2 })
	if whole, _ := h.arrived(j); len(whole) != 0 {
		t.Errorf("the upstream got %d whole requests", len(whole))
	}
}

// TestEarlyAnswerIsNotSigned has an upstream answer before the end of the content, which turns out
// not to match its digest.
func TestEarlyAnswerIsNotSigned(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB: more than socket buffers hold
	for _, status := range []int{200, 404} {
		for _, flush := range []bool{false, true} {
			t.Run(fmt.Sprint(status, flush), func(t *testing.T) {
				answered := make(chan struct{})
				h := signed(t, plan{
					handler: func(w http.ResponseWriter, _ *http.Request) {
						_ = http.NewResponseController(w).EnableFullDuplex()
						w.WriteHeader(status)
						_, _ = io.WriteString(w, "early")
						if flush {
							w.(http.Flusher).Flush()
						}
						close(answered)
					},
					routes: `
  - {host: models.test, upstream: '%s', serves: tensorflow, callers: key/acme, rules: [{allow: "*", models: "*"}], integrity: {body: stream}}
`})
				e := errand{method: "POST", body: long}.signed(t)
				sent := *e
				sent.body = long[:len(long)-1] + "X"
				raw := sent.raw()
				c := h.dial("models.test")
				if _, err := io.WriteString(c, raw[:len(raw)-1000]); err != nil {
					t.Log(err) // the gateway has had enough
				}
				<-answered
				_, _ = io.WriteString(c, raw[len(raw)-1000:])
				all, _ := io.ReadAll(c)
				if len(all) == 0 {
					return // cut
				}
				r := h.parse(string(all), "POST")
				if status == 200 && (r.StatusCode != 502 && r.StatusCode != 400 || r.body == "early") {
					t.Errorf("got %d %s", r.StatusCode, r.body)
				}
				if r.StatusCode == 404 {
					h.unsigned(r)
				}
			})
		}
	}
}

// TestHeadersOnlyNeedsNoDigest accepts unsigned content, but still verifies signed content.
func TestHeadersOnlyNeedsNoDigest(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10)
	bare := []string{"@method", "@authority", "@path", "@query", "content-type"}
	for _, serves := range []string{"raw", "tensorflow"} {
		t.Run(serves, func(t *testing.T) {
			j := newJudge(t, nil)
			h := signed(t, plan{routes: fmt.Sprintf(`
  - {host: models.test, upstream: '%s', serves: %s, callers: key/acme, rules: [{allow: "*", models: "*"}], integrity: {body: headers_only}}
`, j.URL, serves)})
			refused := func(e *errand, request string, status int, reason string) {
				t.Helper()
				r := h.parse(h.tell(request), e.method)
				if r.StatusCode != status || r.reason() != reason {
					t.Errorf("got %d %s; want %d %s", r.StatusCode, r.body, status, reason)
				}
				if all := j.taken(); len(all) != 0 {
					t.Errorf("the upstream got %d requests", len(all))
				}
			}
			for _, body := range []string{usualBody, long} {
				e := errand{method: "POST", body: body, cover: bare, digest: "-", fields: httpsig.Lines{{Name: "Content-Type", Value: "a/b"}}}.signed(t)
				if r := h.parse(h.tell(e.raw()), "POST"); r.StatusCode != 200 {
					t.Fatalf("%d bytes: got %d %s", len(body), r.StatusCode, r.body)
				}
				if all := j.taken(); len(all) != 1 || all[0].Body != body {
					t.Errorf("the upstream got %d requests", len(all))
				}
				refused(e, e.raw(), 401, "replayed")
				e = errand{method: "POST", body: body}.signed(t)
				if r := h.parse(h.tell(e.raw()), "POST"); r.StatusCode != 200 {
					t.Fatalf("%d signed bytes: got %d %s", len(body), r.StatusCode, r.body)
				}
				if all := j.taken(); len(all) != 1 || all[0].Body != body {
					t.Errorf("the upstream got %d requests", len(all))
				}
				e = errand{method: "POST", body: body}.signed(t)
				sent := *e
				sent.body = body[:len(body)-1] + "x"
				refused(e, sent.raw(), 400, "digest_mismatch")
			}
			e := errand{method: "POST", body: usualBody, cover: bare[1:], digest: "-"}
			refused(&e, e.signed(t).raw(), 401, "coverage")
			whole, cut := h.arrived(j)
			if len(whole) != 0 || serves == "raw" && len(cut) != 0 {
				t.Errorf("the upstream got %d whole requests and %d that were cut", len(whole), len(cut))
			}
		})
	}
}
