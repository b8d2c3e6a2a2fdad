package proxy_test

import (
	"strings"
	"testing"
)

// keeping is every option that keeps something.
const keeping = "paths: {encoded_slash: keep, encoded_percent: keep, encoded_question: keep, encoded_hash: keep, semicolon: keep, double_slash: keep}"

// What a route keeps goes up byte for byte, as the segment that it stands in.
func TestKeptFormsGoUpByteForByte(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: strings.ReplaceAll(`
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], `+keeping+`}
`, "%s", j.URL)})
	c := newPathClient(h, j)
	for _, target := range []string{
		"/v1/models/meta-llama%2FLlama-3", "/v1/models/meta-llama%2fLlama-3", "/api/contents/100%25.ipynb", "/a/what%3F", "/c%23/d", "/a;v=1/b%3Bc",
		"/gradio_api/file=https://h/a.png", "/a//b//", "/%2541", "/a%3fb?c=%2F", "/a%2F%2Fb",
	} {
		if got := c.get(target); got != 200 {
			t.Errorf("%s: %d", target, got)
		}
		if up := targets(j.taken()); up != "GET "+target {
			t.Errorf("%s came up as %s", target, up)
		}
	}
	for target, want := range map[string]string{
		"/[a]|^{b}`": "GET /%5Ba%5D%7C%5E%7Bb%7D%60", "/a?q=[1]\\": "GET /a?q=%5B1%5D%5C", `/a?q="x"`: "GET /a?q=%22x%22",
	} {
		c.expect(t, j, target, 200, want)
	}
	for _, target := range []string{"//v1/models", "/a%2F..%2Fb", "/..%2Fb", "/a%2F%2e%2e", "/a/%252e%252e%252fb", "/a%255c..%255cb", "/a%2500", "/..;/b", "/a%2F.", "/%25252525", `/a\b`, "/a%5Cb", "/.well-known%2Fsallyport/keys", "/.well-known//sallyport", "/.WELL-known%252Fsallyport"} {
		c.expect(t, j, target, 400, "")
	}
	c.close()
	h.end(j, nil)
}

// A route that merges slashes is found, decided on and asked by the merged path.
func TestMergedSlashesAreOneForMatchAndUpstream(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: strings.ReplaceAll(`
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], paths: {double_slash: merge}}
  - {host: models.test, path: /admin, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}], paths: {double_slash: merge}}
  - {host: models.test, path: /strict, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`, "%s", j.URL)})
	c := newPathClient(h, j)
	for target, want := range map[string]string{"//v1/models": "GET /v1/models", "/v1//models//": "GET /v1/models/", "///": "GET /"} {
		c.expect(t, j, target, 200, want)
	}
	for target, want := range map[string]int{"//.well-known/sallyport/keys": 400, "/.Well-known//sallyport": 400, "//admin": 403, "/admin//x": 403, "///ADMIN": 400, "/strict//x": 400, "//strict": 400, "/x//..//admin": 400, "/admin%2F/x": 400} {
		c.expect(t, j, target, want, "")
	}
	c.close()
	h.end(j, nil)
}

// expect sends a request and checks its status and what of it came up at the upstream; "" for nothing.
func (c *pathClient) expect(t *testing.T, j *judge, target string, status int, up string) {
	t.Helper()
	if got, came := c.get(target), targets(j.taken()); got != status || came != up {
		t.Errorf("%s: %d, came up as %q; want %d and %q", target, got, came, status, up)
	}
}

// Servers with OpenAI's API take %2F in the id of a model, and nowhere else.
func TestOpenAIKeepsSlashesInModelIDs(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: strings.ReplaceAll(`
  - {host: models.test, upstream: '%s', serves: openai, callers: issuer/corp, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: /v1/models/secret, upstream: '%s', serves: openai, callers: issuer/corp, rules: [{allow: "*", models: "*", who: {scope: admin}}]}
  - {host: models.test, path: /llm, strip: /llm, upstream: '%s', serves: ollama, callers: issuer/corp, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: /off, strip: /off, upstream: '%s', serves: openai, callers: issuer/corp, rules: [{allow: "*", models: "*"}], paths: {encoded_slash: refuse}}
`, "%s", j.URL)})
	c := newPathClient(h, j)
	for target, want := range map[string]string{
		"/v1/models/meta-llama%2FLlama-3": "GET /v1/models/meta-llama%2FLlama-3", "/llm/v1/models/a%2fb": "GET /v1/models/a%2fb",
	} {
		c.expect(t, j, target, 200, want)
	}
	for target, want := range map[string]int{
		"/v1/models/secret%2Fx": 400, "/v1/models/SECRET%2fx": 400, "/v1/models/x%2F..%2Fsecret": 400, "/v1/models/%2Fsecret": 400,
		"/v1%2Fmodels/secret": 400, "/v1/chat%2Fcompletions": 400, "/v1/models/a%252Fb": 400, "/off/v1/models/a%2Fb": 400, "/llm%2Fv1/models/a": 400,
	} {
		c.expect(t, j, target, want, "")
	}
	c.close()
	h.end(j, nil)
}

// The disguises of TestAttackPathsPastAStricterRoute, where one route keeps every form
// and another keeps slashes by default.
func TestAttackKeptFormsPastAStricterRoute(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: strings.ReplaceAll(`
  - {host: models.test, path: /lax, strip: /lax, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], `+keeping+`}
  - {host: models.test, path: `+keptPrefix+`, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
  - {host: models.test, path: "=`+keptExact+`", upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
  - {host: models.test, upstream: '%s', serves: openai, callers: issuer/corp, rules: [{allow: "*", models: "*"}]}
`, "%s", j.URL)})
	c := newPathClient(h, j)
	passed := 0
	for i, target := range disguises() {
		if i%3 != 0 {
			continue // a third shows each kind
		}
		status, up := c.get(target), j.taken()
		switch {
		case status == 200 && len(up) == 1 && !kept(up[0].Target):
			passed++
		case status/100 == 4 && len(up) == 0:
		default:
			t.Errorf("%q: status %d, upstream %s", target, status, targets(up))
		}
	}
	if passed == 0 {
		t.Error("nothing passed: the table tests something else")
	}
	c.close()
	h.end(j, nil)
}

// HTTP/1.0 without Host is for the one host that there is, and for none where there are two.
func TestOldRequestWithoutHostIsForTheOneHost(t *testing.T) {
	j := newJudge(t, nil)
	one := `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`
	for want, more := range map[string]string{
		"200": "",
		"400": "  - {host: other.test, upstream: '%s', callers: issuer/corp, rules: [{allow: \"*\"}]}\n",
	} {
		h := build(t, plan{routes: strings.ReplaceAll(one+more, "%s", j.URL)})
		if got := statuses(h.tell("GET /a HTTP/1.0\r\nAuthorization: Bearer " + h.token() + "\r\n\r\n")); got != want {
			t.Errorf("with routes%s%s: %s; want %s", one, more, got, want)
		}
	}
	j.taken()
}

// A signature is over the target as its client wrote it: another spelling of a kept
// form, which is another target to the server, has no signature.
func TestSignatureHoldsForKeptFormsAsSent(t *testing.T) {
	h := signed(t, plan{routes: `
  - {host: models.test, upstream: '%s', serves: openai, callers: key/acme, rules: [{allow: "*", models: "*"}], paths: {double_slash: merge}}
`})
	for target, want := range map[string]string{
		"/v1/models/a%2fb?q=[1]": "/v1/models/a%2fb?q=%5B1%5D",
		"//v1/models/a%2Fb":      "/v1/models/a%2Fb",
		"/v1/models/{m}":         "/v1/models/%7Bm%7D",
	} {
		e := errand{method: "GET", target: target}.signed(t)
		if r := h.parse(h.tell(e.raw()), "GET"); r.StatusCode != 200 {
			t.Errorf("%s: %d %s", target, r.StatusCode, r.body)
		}
		if r, _ := h.model.seen(); r.RequestURI != want {
			t.Errorf("%s came up as %s; want %s", target, r.RequestURI, want)
		}
	}
	hits := h.model.hits.Load()
	for sent, changed := range map[string]string{"/v1/models/a%2fb": "/v1/models/a%2Fb", "/v1/models/a%2Fb": "/v1/models/a/b", "//v1/models": "/v1/models", "/v1/models?q=[": "/v1/models?q=%5B"} {
		e := errand{method: "GET", target: sent}.signed(t)
		e.target = changed
		if r := h.parse(h.tell(e.raw()), "GET"); r.StatusCode != 401 {
			t.Errorf("%s, changed to %s: %d %s", sent, changed, r.StatusCode, r.body)
		}
	}
	if n := h.model.hits.Load(); n != hits {
		t.Errorf("%d changed requests came up", n-hits)
	}
}
