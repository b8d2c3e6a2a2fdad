package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// TestSignedAnswersAreNotCompressed: compression after signing would invalidate the digest.
func TestSignedAnswersAreNotCompressed(t *testing.T) {
	h := signed(t, plan{handler: answering, routes: `
  - {host: models.test, upstream: '%s', callers: [key/acme, issuer/corp], rules: [{allow: "*"}], compress: {types: [application/json, text/event-stream], min_size: 1}, integrity: {response_buffer: 4KiB}}
`})
	for _, path := range []string{"/short", "/long", "/events"} {
		for _, te := range []string{"", "TE: trailers\r\n"} {
			e := errand{target: path, fields: httpsig.Lines{{Name: "Content-Type", Value: "application/json"}, {Name: "Accept-Encoding", Value: "gzip"}}}.signed(t)
			r := h.parse(h.tell(strings.Replace(e.raw(), "Connection: close\r\n", te+"Connection: close\r\n", 1)), "POST")
			if r.StatusCode != 200 || r.Header.Get("Content-Encoding") != "" || r.Header.Get("Signature") == "" {
				t.Errorf("%s: got %d %v", path, r.StatusCode, r.Header)
			}
		}
		r := h.do("GET", path, "", map[string]string{"Accept-Encoding": "gzip"})
		if r.StatusCode != 200 || r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Signature") != "" {
			t.Errorf("%s with a token: got %d %v", path, r.StatusCode, r.Header)
		}
	}
}

// TestUpstreamCannotSetTheGatewaysAnswerFields: the gateway's fields come only from the gateway, in every part
// of an answer.
func TestUpstreamCannotSetTheGatewaysAnswerFields(t *testing.T) {
	h := answers(t, "", "")
	own := func(t *testing.T, what string, all http.Header, signed bool) {
		t.Helper()
		for name, values := range all {
			switch {
			case name == "Content-Digest" && !signed: // may be the upstream's own
			case strings.HasPrefix(name, "X-Sallyport-"), strings.Contains(strings.Join(values, " "), ":AA==:"), strings.Contains(strings.Join(values, " "), "=();"):
				t.Errorf("%s: %s: %q came through", what, name, values)
			case !signed && (name == "Signature" || name == "Signature-Input"):
				t.Errorf("%s: %s: %q for a caller who did not sign", what, name, values)
			}
		}
	}
	for _, h2 := range []bool{false, true} {
		for _, path := range []string{"/forged", "/trailers"} {
			for _, bySignature := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, HTTP/2: %v, signed: %v", path, h2, bySignature), func(t *testing.T) {
					req := errand{method: "GET", target: path}.signed(t).request(t)
					if !bySignature {
						req.Header = http.Header{"Authorization": {"Bearer " + h.token()}}
					}
					req.Header.Set("Te", "trailers")
					var early []textproto.MIMEHeader
					req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
						Got1xxResponse: func(_ int, h textproto.MIMEHeader) error { early = append(early, h); return nil },
					}))
					r := h.in(t).send(h.client(h2), req)
					if r.StatusCode != 200 || path == "/forged" && len(early) != 1 {
						t.Fatalf("got %d after %d others", r.StatusCode, len(early))
					}
					own(t, "the head", r.Header, bySignature)
					own(t, "the trailers", r.Trailer, bySignature)
					for _, e := range early {
						own(t, "an interim response", http.Header(e), false)
					}
					if path == "/trailers" && r.Trailer.Get("X-Upstream") != "kept" {
						t.Errorf("trailers %v", r.Trailer)
					}
				})
			}
		}
	}
}

// TestReceipts checks that the answer names the model and the signature covers it.
func TestReceipts(t *testing.T) {
	h := signed(t, plan{handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Sallyport-Model", "forged")
		w.Header().Set("X-Sallyport-Model-Version", "666")
		if strings.Contains(r.URL.Path, "none") {
			w.WriteHeader(404)
		}
		_, _ = io.WriteString(w, "{}")
	}, routes: `
  - {host: models.test, upstream: '%s', serves: tensorflow, callers: [key/acme, issuer/corp], rules: [{allow: "*", models: "*"}]}
`})
	for _, c := range []struct{ target, model, version string }{
		{"/v1/models/churn/versions/3:predict", "churn", "3"}, {"/v1/models/churn:predict", "churn", ""}, {"/v1/models/churn/labels/canary:predict", "churn", ""},
		{"/v1/models/churn/versions/7/metadata", "churn", "7"}, {"/v1/other", "", ""}, {"/v1/models/none/versions/3:predict", "", ""},
	} {
		asked := errand{target: c.target}
		if strings.HasSuffix(c.target, "/metadata") {
			asked.method = "GET"
		}
		e := asked.signed(t)
		r := h.sendErrand(e)
		if got := r.Header.Get("X-Sallyport-Model"); got != c.model {
			t.Errorf("%s: model %q; want %q", c.target, got, c.model)
		}
		if got := r.Header.Get("X-Sallyport-Model-Version"); got != c.version {
			t.Errorf("%s: version %q; want %q", c.target, got, c.version)
		}
		s := h.vouched(e, r, keyOf("acme-1"))
		if s.Covers("x-sallyport-model") != (c.model != "") || s.Covers("x-sallyport-model-version") != (c.version != "") {
			t.Errorf("%s: covered are %v", c.target, s.Components())
		}
	}
	if r := h.do("POST", "/v1/models/churn:predict", usualBody, nil); r.Header.Get("X-Sallyport-Model") != "" {
		t.Errorf("an answer that nobody signed says %v", r.Header)
	}
}
