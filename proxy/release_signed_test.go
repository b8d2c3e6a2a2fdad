package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"sallyport/auth/httpsig"
)

// A version cannot be written into a message that its caller has signed: the digest would no longer hold.
func TestSignedCallWithoutVersionIsRefused(t *testing.T) {
	for _, integrity := range []string{"body: buffer", "body: stream"} {
		s := newUnaryServer(t)
		h := signed(t, plan{
			routes: `
  - {host: models.test, upstream: tf, callers: key, integrity: {` + integrity + `}, rewrite: {latest: 7}, rules: [{allow: "*", models: "*"}]}
`,
			more: `upstreams: {tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}}`,
		})
		if a := h.sendCall(newCall(t, callsOf(keyOf("acme-1")), predictMethod, "text")); a.status != 3 {
			t.Errorf("%s: status %d; want 3", integrity, a.status)
		}
		if r := h.ended(); r["reason"] != "version_needed" || r["cause"] != "the route chooses a version of the model (rewrite), and the caller has signed the message" {
			t.Errorf("%s: record: %v", integrity, r)
		}
		if n, acted := s.seen(); n != 0 || len(acted) != 0 {
			t.Errorf("%s: the server saw %d requests and acted on %v", integrity, n, acted)
		}
	}
}

// An upstream that gets the gateway's signature gets that of the message with the version.
func TestRewrittenCallIsSignedForTheUpstream(t *testing.T) {
	for _, size := range []int{10, 100 << 10} {
		s := newKeepingServer(t)
		h := signed(t, plan{
			routes: `
  - {host: models.test, upstream: tf, callers: issuer/corp, rewrite: {latest: 7}, rules: [{allow: "*", models: "*", versions: 7}]}
`,
			more: fmt.Sprintf(`upstreams: {tf: {serves: tensorflow, grpc: "h2c://%s", integrity: {sign: out-1}}}`, s.addr),
		})
		body := framedText(string(predictRequest([][]byte{modelSpec("half", 0)}, 0, size)))
		res, err := h.call(t.Context(), predictMethod, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if _, status := finish(t, res); status != "0" {
			t.Fatalf("status %s %q", status, res.Header.Get("grpc-message"))
		}
		content := s.kept()
		if want := framedText(string(predictRequest([][]byte{modelSpec("half", 7)}, 0, size))); !bytes.Equal(content, want) {
			t.Errorf("the server got %.60x; want %.60x", content, want)
		}
		m := &httpsig.Message{Method: "POST", Scheme: "http", Authority: s.addr, Path: predictMethod, Fields: httpsig.Header(s.head)}
		if _, err := forwardVerifier(t, httpsig.ForwardPolicy(identityFields()...)).Verify(m); err != nil {
			t.Errorf("%v in %v", err, http.Header(s.head))
		}
		d, err := httpsig.ParseContentDigest(m.Fields)
		if err == nil {
			err = d.Match(content)
		}
		if err != nil {
			t.Errorf("digest: %v", err)
		}
	}
}

// The signature of a request over REST is verified as it came, and the upstream gets the gateway's own.
func TestSignedRequestGetsTheVersionThatTheRouteChooses(t *testing.T) {
	h := signed(t, plan{routes: `
  - {host: models.test, upstream: '%s', serves: tensorflow, callers: key, rewrite: {latest: 7}, rules: [{allow: "*", models: "*", versions: 7}]}
`})
	req, err := http.NewRequest("POST", "https://models.test/v1/models/half:predict", bytes.NewReader([]byte(usualBody)))
	if err != nil {
		t.Fatal(err)
	}
	if r := h.send(h.signingClient(false, nil), req); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	if r, _ := h.model.seen(); r.RequestURI != "/v1/models/half/versions/7:predict" || r.Header.Get("Signature") != "" {
		t.Errorf("the upstream was asked for %s, with the signature %q", r.RequestURI, r.Header.Get("Signature"))
	}
}
