package proxy_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

const callerRoutes = `
  - {host: models.test, path: /all, upstream: '%s', callers: {all: [issuer/corp, key]}, rules: [{allow: "*"}]}
  - {host: models.test, path: /independent, upstream: '%s', callers: {all: [issuer/corp, key], bind: independent}, rules: [{allow: "*"}]}
  - {host: models.test, path: /key-first, upstream: '%s', callers: {all: [key/acme, issuer/corp]}, rules: [{allow: "*"}]}
  - {host: models.test, path: /always, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], integrity: {request: always}}
  - {host: models.test, path: /either, upstream: '%s', callers: [issuer/corp, key/acme], rules: [{allow: "*"}]}
  - {host: models.test, path: /alias, upstream: '%s', callers: [issuer/corp, key], rules: [{allow: "*", who: {principal: batch}}]}
  - {host: models.test, path: /token, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
`

const twoProofs = "principals: {batch: ['issuer/corp:alice', 'key:acme']}\n"

// TestCallersWithSeveralProofs sends each pair of proofs to each route.
func TestCallersWithSeveralProofs(t *testing.T) {
	h := signed(t, plan{routes: callerRoutes, more: twoProofs})
	tokens := map[string]string{"": "", "alice": "Bearer " + h.token(), "forged": "Bearer x.y.z"}
	bob, err := h.issuer.Sign(h.issuer.Claims("bob", "models.predict"))
	if err != nil {
		t.Fatal(err)
	}
	tokens["bob"] = "Bearer " + bob
	keys := map[string]*httpsig.Key{"acme": keyOf("acme-1"), "orbit": keyOf("orbit-1"), "forged": mustKey("acme-1", "wrong")}
	n := int64(0)
	for _, c := range []struct {
		path, token, key string
		outcome          string // the principal, or the reason of a refusal with 401 or 403
	}{
		{"/all", "alice", "acme", "issuer/corp:alice"},
		{"/all", "bob", "acme", "proofs_differ"}, {"/all", "alice", "orbit", "proofs_differ"}, {"/all", "bob", "orbit", "proofs_differ"},
		{"/all", "alice", "", "signature_missing"}, {"/all", "", "acme", "no_credential"}, {"/all", "", "", "no_credential"},
		{"/all", "alice", "forged", "bad_signature"}, {"/all", "forged", "acme", "bad_credential"}, {"/all", "forged", "forged", "bad_signature"},

		{"/independent", "alice", "acme", "issuer/corp:alice"}, {"/independent", "bob", "orbit", "issuer/corp:bob"},
		{"/independent", "bob", "", "signature_missing"}, {"/independent", "", "orbit", "no_credential"}, {"/independent", "bob", "forged", "bad_signature"},

		{"/key-first", "alice", "acme", "key:acme"}, {"/key-first", "bob", "acme", "proofs_differ"}, {"/key-first", "alice", "orbit", "bad_signature"},

		{"/always", "alice", "acme", "issuer/corp:alice"}, {"/always", "alice", "", "signature_missing"}, {"/always", "", "acme", "no_credential"},
		{"/always", "bob", "acme", "proofs_differ"}, {"/always", "alice", "orbit", "proofs_differ"}, {"/always", "alice", "forged", "bad_signature"},

		{"/either", "alice", "", "issuer/corp:alice"}, {"/either", "", "acme", "key:acme"}, {"/either", "alice", "acme", "key:acme"}, // the token is not signed
		{"/either", "", "orbit", "bad_signature"}, {"/either", "alice", "forged", "bad_signature"}, {"/either", "alice", "orbit", "bad_signature"},
		{"/either", "forged", "acme", "bad_credential"}, {"/either", "", "", "no_credential"},

		{"/alias", "alice", "", "issuer/corp:alice"}, {"/alias", "", "acme", "key:acme"}, {"/alias", "bob", "", "forbidden"}, {"/alias", "", "orbit", "forbidden"},

		{"/token", "alice", "acme", "issuer/corp:alice"}, {"/token", "", "acme", "unlisted_credential"}, {"/token", "alice", "forged", "issuer/corp:alice"},
		{"/open", "", "forged", "anonymous"}, {"/open", "forged", "acme", "anonymous"},
	} {
		t.Run(fmt.Sprintf("%s with the token of %q and the signature of %q", c.path, c.token, c.key), func(t *testing.T) {
			h := h.in(t)
			e := errand{target: c.path}
			if c.key != "" {
				e.key = keys[c.key]
			}
			made := e.signed(t)
			req := made.request(t)
			if c.key == "" {
				req.Header.Del("Signature")
				req.Header.Del("Signature-Input")
			}
			if c.token != "" {
				req.Header.Set("Authorization", tokens[c.token])
			}
			r := h.send(h.client(false), req)
			if strings.Contains(c.outcome, ":") || c.outcome == "anonymous" {
				n++
				h.passed(r, n)
				if up, _ := h.model.seen(); up.Header.Get("X-Sallyport-Principal") != c.outcome {
					t.Errorf("the upstream was told %s", up.Header.Get("X-Sallyport-Principal"))
				}
			} else {
				h.stillRefused(r, map[bool]int{true: 403, false: 401}[c.outcome == "forbidden"], c.outcome, n)
			}
			takes := c.path != "/token" && c.path != "/open"
			if held := c.key == "acme" || c.key == "orbit" && c.path != "/either" && c.path != "/key-first"; held && takes {
				h.vouched(made, r, keys[c.key])
			} else {
				h.unsigned(r)
			}
		})
	}
}

// TestRecordsOfSignedRequests checks that records name the caller and key, and contain nothing that
// could be used to sign.
func TestRecordsOfSignedRequests(t *testing.T) {
	logged := &lines{}
	h := signed(t, plan{routes: callerRoutes, more: twoProofs + publishing,
		options: proxy.Options{Log: slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))}})
	errands := []*errand{
		errand{target: "/either"}.signed(t), errand{target: "/either", key: keyOf("acme-2")}.signed(t), errand{target: "/either", key: mustKey("acme-1", "wrong")}.signed(t),
		errand{target: "/either", key: keyOf("nobody-1")}.signed(t), errand{target: "/alias", key: keyOf("orbit-1")}.signed(t), errand{target: "/alias", key: edKey("orbit-ed")}.signed(t),
		errand{target: "/either", cover: usualCover()[1:]}.signed(t), errand{target: "/either", digest: httpsig.ContentDigest(nil)}.signed(t),
		errand{target: "/all"}.signed(t),
	}
	var answers []string
	for _, e := range errands {
		r := h.sendErrand(e)
		answers = append(answers, r.Header.Get("Signature"))
		if raw := fmt.Sprint(r.Header, r.body); r.StatusCode != 200 && strings.Contains(r.body, "@") {
			t.Errorf("the client is told of what was signed: %s", raw)
		}
	}
	h.sendErrand(errands[0]) // again
	metrics, ready := h.get("/metrics"), h.get("/readyz")
	rec := h.ended()
	if rec["reason"] != "replayed" || rec["key_id"] != "acme-1" || rec["principal"] != "key:acme" || rec["signed"] != "header" {
		t.Errorf("record %v", rec)
	}
	all := h.audit.records(t)
	for i, want := range []struct{ principal, key, reason any }{
		{"key:acme", "acme-1", nil}, {"key:acme", "acme-2", nil}, {nil, nil, "bad_signature"}, {nil, nil, "bad_signature"}, {"key:orbit", "orbit-1", "forbidden"},
		{"key:orbit", "orbit-ed", "forbidden"}, {nil, nil, "coverage"}, {"key:acme", "acme-1", "digest_mismatch"}, {nil, nil, "no_credential"},
	} {
		if r := all[i]; r["principal"] != want.principal || r["key_id"] != want.key || r["reason"] != want.reason {
			t.Errorf("record %d: %v; want %v", i, r, want)
		}
	}
	audited, log := h.audit.buf.String(), logged.buf.String()
	if !strings.Contains(metrics, "replay_live") || !strings.Contains(ready, "remembered") {
		t.Errorf("/metrics and /readyz say nothing of signatures: %s", ready)
	}
	for what, text := range map[string]string{"the audit log": audited, "the log": log, "/metrics": metrics, "/readyz": ready} {
		mustNotHold(t, what, text, "acme-1", "acme-2", "orbit-1", "out-1", "back-1")
		for _, form := range []string{"signature-params", `"@method":`, "@authority: models.test", "sallyport-resp"} {
			if strings.Contains(text, form) {
				t.Errorf("%s holds what was signed: %s", what, form)
			}
		}
		for i, e := range errands {
			for _, mac := range []string{e.signature, answers[i]} {
				if value := strings.TrimSuffix(strings.TrimPrefix(mac, "sp=:"), ":"); value != "" && strings.Contains(text, value[:16]) {
					t.Errorf("%s holds a signature: %s", what, value)
				}
			}
			if strings.Contains(text, e.nonce) {
				t.Errorf("%s holds a nonce", what)
			}
		}
	}
}

// TestForwardAuthDoesNotVerifyContent: the gateway does not see the content of such requests.
func TestForwardAuthDoesNotVerifyContent(t *testing.T) {
	for _, dialect := range dialects() {
		t.Run(dialect, func(t *testing.T) {
			h := signed(t, plan{
				listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: " + dialect + "}",
				more:   "trusted_proxies: 127.0.0.1\n",
				routes: signedRoute + `
  - {host: models.test, path: /heads, upstream: '%s', callers: key/acme, rules: [{allow: "*"}], integrity: {body: headers_only}}
`})
			ask := func(e *errand) *reply {
				t.Helper()
				fields := told(dialect, e.method, e.authority, e.target)
				for _, l := range e.lines() {
					fields = append(fields, l.Name+": "+l.Value)
				}
				return h.askAs(fields...)
			}
			status := func(r *reply) string {
				if s := r.Header.Get("X-Sallyport-Status"); s != "" {
					return s
				}
				return fmt.Sprint(r.StatusCode)
			}
			for _, target := range []string{"/v1/models/m", "/heads"} {
				e := errand{target: target}.signed(t)
				r := ask(e)
				if status(r) != "403" || r.reason() != "not_for_another_proxy" {
					t.Errorf("%s: got %d %s", target, r.StatusCode, r.body)
				}
				if n := h.signatures().Remembered; n != 0 {
					t.Errorf("%s: %d nonces were used", target, n)
				}
			}
			bare := errand{target: "/heads", cover: []string{"@method", "@authority", "@path", "@query", "content-type"}, digest: "-", fields: httpsig.Lines{{Name: "Content-Type", Value: "a/b"}}}
			e := bare.signed(t)
			r := ask(e)
			if r.StatusCode != 200 || r.Header.Get("X-Sallyport-Principal") != "key:acme" || r.Header.Get("Signature") != "" {
				t.Errorf("got %d %v %s", r.StatusCode, r.Header, r.body)
			}
			if r := ask(e); r.StatusCode != 401 || r.reason() != "replayed" {
				t.Errorf("again: got %d %s", r.StatusCode, r.body)
			}
			moved := *bare.signed(t)
			moved.method = "DELETE"
			if r := ask(&moved); r.StatusCode != 401 || r.reason() != "bad_signature" || r.Header.Get("Accept-Signature") == "" {
				t.Errorf("another method: got %d %s", r.StatusCode, r.body)
			}
			h.untouched()
		})
	}
}

func TestGRPCCallWithAnExpiredKeyIsRefused(t *testing.T) {
	server := newGRPCServer(t)
	h := signed(t, plan{
		routes: strings.NewReplacer("issuer/corp", "key/acme", ", who: {scope: models.predict}", "").Replace(grpcRoute) + "    integrity: {body: headers_only}\n",
		more:   "upstreams:\n  tf: {grpc: \"h2c://" + server.addr + "\"}\n",
	})
	for key, want := range map[string]string{"acme-1": "0", "ended-1": "16 the signing key has expired", "early-1": "16 the signing key is not valid yet"} {
		e := errand{method: "POST", target: "/tensorflow.serving.PredictionService/Echo", digest: "-", cover: []string{"@method", "@authority", "@path", "@query", "content-type"}, key: keyOf(key), fields: httpsig.Lines{{Name: "Content-Type", Value: "application/grpc+proto"}}}.signed(t)
		res, err := h.call(t.Context(), e.target, strings.NewReader(string(framedText("hi"))), "Authorization", "", "Signature-Input", e.input, "Signature", e.signature)
		if err != nil {
			t.Fatal(err)
		}
		_, status := finish(t, res)
		if got := strings.TrimSpace(status + " " + res.Header.Get("grpc-message")); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}
