package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// releaseRoute pins half and splits churn, for callers who may use what stands in rules.
const releaseRoute = `
  - host: models.test
    upstream: tf
    callers: issuer/corp
    rewrite:
      latest: "label:stable"
      split:
        - models: [churn, "churn-*"]
          versions: {3: 50, 4: 50}
    rules:
      - {allow: [inference, metadata], models: half, versions: "label:stable", who: {scope: models.predict}}
      - {allow: [inference, metadata], models: "churn*", versions: [3, 4], who: {scope: models.predict}}
      - {allow: "*", models: "*", who: {scope: admin}}
`

func buildRelease(t *testing.T, serves, routes string) *house {
	t.Helper()
	return build(t, plan{routes: strings.ReplaceAll(routes, "upstream: tf", "upstream: '%s'\n    serves: "+serves)})
}

// asks sends a request of a caller with the scope.
func (h *house) asks(caller, scope, method, target string) *reply {
	h.t.Helper()
	token, err := h.issuer.Sign(h.issuer.Claims(caller, scope))
	if err != nil {
		h.t.Fatal(err)
	}
	body := ""
	if method == "POST" {
		body = `{"instances": [1]}`
	}
	return h.do(method, target, body, map[string]string{"Authorization": "Bearer " + token})
}

// The upstream gets the path with the version that was decided on, and the record has both.
func TestRouteChoosesTheVersionOfRequestsThatNameNone(t *testing.T) {
	for _, c := range []struct{ method, target, sent, version string }{
		{"POST", "/v1/models/half:predict", "/v1/models/half/labels/stable:predict", "label:stable"},
		{"POST", "/V1/MODELS/half:classify", "/v1/models/half/labels/stable:classify", "label:stable"},
		{"POST", "/v1/models/h%61lf:predict?x=1", "/v1/models/half/labels/stable:predict", "label:stable"},
		{"GET", "/v1/models/half/metadata", "/v1/models/half/labels/stable/metadata", "label:stable"},
		{"HEAD", "/v1/models/half", "/v1/models/half/labels/stable", "label:stable"},
	} {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			h := buildRelease(t, "tensorflow", releaseRoute)
			if got := h.asks("alice", "models.predict", c.method, c.target); got.StatusCode != 200 {
				t.Fatalf("%d %s", got.StatusCode, got.body)
			}
			if r, _ := h.model.seen(); r.RequestURI != c.sent {
				t.Errorf("the upstream was asked for %s; want %s", r.RequestURI, c.sent)
			}
			if r := h.ended(); r["version"] != c.version || r["asked_version"] != "latest" || r["model"] != "half" {
				t.Errorf("record: %v", r)
			}
		})
	}
}

// A caller gets another version by naming it only if the rules allow that, in whatever spelling.
func TestCallerCannotPickAnotherVersion(t *testing.T) {
	h := buildRelease(t, "tensorflow", releaseRoute)
	for _, target := range []string{
		"/v1/models/half/versions/7:predict",
		"/v1/models/half/Versions/7:predict",
		"/v1/models/half/versions/007:predict",
		"/v1/models/half/%76ersions/7:predict",
		"/v1/models/half/labels/canary:predict",
		"/v1/models/half/LABELS/canary:predict",
		"/v1/models/half/labels/Stable:predict",
		"/v1/models/churn/versions/5:predict",
		"/v1/models/churn/labels/stable:predict",
		"/v1/models/other:predict",
	} {
		h.refused(h.asks("mallory", "models.predict", "POST", target), 403, "insufficient_scope")
	}
	for _, target := range []string{
		"/v1/models/half/latest:predict", "/v1/models/half/versions/:predict", "/v1/models/half/labels/:predict",
	} {
		h.refused(h.asks("mallory", "models.predict", "POST", target), 404, "unknown_call")
	}
	for _, target := range []string{"/v1/models/half%2Flabels%2Fcanary:predict", "/v1/models/half%2Fversions%2F7:predict"} {
		h.refused(h.asks("mallory", "models.predict", "POST", target), 400, "ambiguous_path")
	}
	// The victim beside: who may name versions gets what is named, unchanged.
	for target, sent := range map[string]string{
		"/v1/models/half/versions/7:predict": "/v1/models/half/versions/7:predict", "/v1/models/half/labels/canary:predict": "/v1/models/half/labels/canary:predict",
		"/v1/models/half:predict": "/v1/models/half/labels/stable:predict",
	} {
		if got := h.asks("root", "admin", "POST", target); got.StatusCode != 200 {
			t.Errorf("%s: %d %s", target, got.StatusCode, got.body)
		}
		if r, _ := h.model.seen(); r.RequestURI != sent {
			t.Errorf("the upstream was asked for %s; want %s", r.RequestURI, sent)
		}
	}
	if r := h.ended(); r["asked_version"] == nil && r["version"] == "label:stable" {
		t.Errorf("record: %v", r)
	}
}

// versionSent returns the version that the upstream was asked for.
func versionSent(h *house) string {
	r, _ := h.model.seen()
	_, rest, _ := strings.Cut(r.RequestURI, "/versions/")
	version, _, _ := strings.Cut(rest, ":")
	return version
}

// A caller keeps its version: over both protocols, with other tokens, and after a restart.
func TestSplitIsStickyByPrincipal(t *testing.T) {
	h := buildRelease(t, "tensorflow", releaseRoute)
	first := map[string]string{}
	for round := range 2 {
		for i := range 24 {
			caller := fmt.Sprintf("user-%d", i)
			if got := h.asks(caller, "models.predict", "POST", "/v1/models/churn:predict"); got.StatusCode != 200 {
				t.Fatalf("%d %s", got.StatusCode, got.body)
			}
			version := versionSent(h)
			if round == 0 {
				first[caller] = version
			} else if version != first[caller] {
				t.Errorf("%s had version %s and has %s", caller, first[caller], version)
			}
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		h.restart()
	}
	of := map[string]int{}
	for _, v := range first {
		of[v]++
	}
	if of["3"] == 0 || of["4"] == 0 || of["3"]+of["4"] != 24 {
		t.Errorf("versions %v; want some callers of each", of)
	}
}

// Anonymous callers go by address.
func TestAnonymousCallersAreSplitByAddress(t *testing.T) {
	h := build(t, plan{
		routes: `
  - host: models.test
    upstream: '%s'
    serves: v2
    callers: anonymous
    rewrite: {split: {models: "*", versions: {3: 50, 4: 50}}}
    rules: [{allow: "*", models: "*"}]
`,
		more: "trusted_proxies: 127.0.0.0/8\n",
	})
	of := map[string]bool{}
	for i := range 16 {
		sent := ""
		for range 2 {
			got := h.do("POST", "/v2/models/m/infer", "{}", map[string]string{"Authorization": "", "X-Forwarded-For": fmt.Sprintf("192.0.2.%d", i)})
			r, _ := h.model.seen()
			if got.StatusCode != 200 || sent != "" && r.RequestURI != sent {
				t.Errorf("%d, %s after %s", got.StatusCode, r.RequestURI, sent)
			}
			sent = r.RequestURI
		}
		of[sent] = true
	}
	if !of["/v2/models/m/versions/3/infer"] || !of["/v2/models/m/versions/4/infer"] || len(of) != 2 {
		t.Errorf("the upstream was asked for %v", of)
	}
}

// Paths without a place for a version are refused, and say why; management is never given one.
func TestRequestWithoutPlaceForAVersionIsRefused(t *testing.T) {
	route := func(latest string) string {
		return `
  - host: models.test
    upstream: tf
    callers: issuer/corp
    rewrite: {latest: ` + latest + `}
    rules: [{allow: ["*", management], models: "*", who: {scope: admin}}]
`
	}
	for _, c := range []struct{ serves, latest, method, target string }{
		{"v2", "3", "POST", "/v1/models/half:predict"},
		{"torchserve", `"1.0"`, "POST", "/models/half/invoke"},
		{"torchserve", `"1.0"`, "POST", "/invocations?model_name=half"},
	} {
		h := buildRelease(t, c.serves, route(c.latest))
		h.refused(h.asks("root", "admin", c.method, c.target), 400, "version_needed")
		h.refused(h.asks("mallory", "none", c.method, c.target), 403, "insufficient_scope")
	}
	h := buildRelease(t, "torchserve", route(`"1.0"`))
	for target, sent := range map[string]string{"DELETE /models/half": "/models/half", "PUT /models/half": "/models/half", "GET /models/half": "/models/half/1.0", "GET /ping": "/ping"} {
		method, path, _ := strings.Cut(target, " ")
		if got := h.asks("root", "admin", method, path); got.StatusCode != 200 {
			t.Errorf("%s: %d %s", target, got.StatusCode, got.body)
		}
		if r, _ := h.model.seen(); r.RequestURI != sent {
			t.Errorf("%s: the upstream was asked for %s; want %s", target, r.RequestURI, sent)
		}
	}
}

// A stream that was sent with the chosen version goes on after a reload that chooses another one, and
// ends once the rules no longer allow the version that was sent.
func TestReloadDecidesOnTheVersionThatWasSent(t *testing.T) {
	begun, more := make(chan struct{}, 1), make(chan struct{})
	h := build(t, plan{
		more:   unwatched,
		routes: strings.ReplaceAll(releaseRoute, "upstream: tf", "upstream: '%s'\n    serves: tensorflow"),
		handler: func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			begun <- struct{}{}
			for range more {
				_, _ = io.WriteString(w, "more")
				_ = http.NewResponseController(w).Flush()
			}
		},
	})
	defer close(more)
	text, err := os.ReadFile(h.file)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("POST", "https://models.test/v1/models/half:predict", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token())
	res, err := h.client(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-begun
	piece := make([]byte, 4)
	h.reloaded(h.gateway, strings.Replace(string(text), `latest: "label:stable"`, "latest: 9", 1))
	more <- struct{}{}
	if _, err := io.ReadFull(res.Body, piece); err != nil {
		t.Fatalf("the stream has ended: %v", err)
	}
	h.reloaded(h.gateway, strings.Replace(string(text), `versions: "label:stable"`, "versions: 9", 1))
	if _, err := io.ReadFull(res.Body, piece); err == nil {
		t.Error("the stream goes on")
	}
	h.until("the record", func() bool { return strings.Contains(h.audit.text(), `"withdrawn_in_stream"`) })
}

// A proxy in front would forward the request without the version, or to its own server.
func TestForwardAuthRefusesWhatTheRouteWouldChoose(t *testing.T) {
	for _, rewrite := range []string{"latest: 3", `split: {models: "*", versions: {3: 1}}`, `split: {models: "*", upstreams: {tf: 1}}`} {
		h := build(t, plan{
			listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.0/8, dialect: traefik}",
			more:   "trusted_proxies: 127.0.0.0/8\nupstreams: {tf: {serves: tensorflow, rest: 'http://127.0.0.1:1'}}\n",
			routes: `
  - host: models.test
    upstream: tf
    callers: anonymous
    rewrite: {` + rewrite + `}
    rules: [{allow: "*", models: "*"}]
`,
		})
		if got := h.askAs(told("traefik", "POST", "models.test", "/v1/models/m:predict")...); got.StatusCode != 403 || got.reason() != "not_for_another_proxy" {
			t.Errorf("%s: %d %s", rewrite, got.StatusCode, got.body)
		}
		got := h.askAs(told("traefik", "POST", "models.test", "/v1/models/m/versions/3:predict")...)
		if want := !strings.Contains(rewrite, "upstreams"); (got.StatusCode == 200) != want {
			t.Errorf("%s: a named version: %d %s", rewrite, got.StatusCode, got.body)
		}
	}
}
