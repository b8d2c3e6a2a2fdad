package clients

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/examples/story"
)

// call is a request to be signed and sent.
type call struct {
	method, path, query, authority string
	content                        string
	header                         http.Header
	profile                        httpsig.Profile
	id, secret                     string // the keyid, and the name of the key that signs
	age                            time.Duration
	unsigned                       bool
}

// predict is a call that the gateway takes.
func (h *house) predict() *call {
	content := `{"a": 40, "b": 2}`
	return &call{
		method: "POST", path: "/predict", authority: strings.TrimPrefix(h.gateway.URL(""), "https://"), content: content,
		header:  http.Header{"Content-Type": {"application/json"}, "Content-Digest": {httpsig.ContentDigest([]byte(content))}},
		profile: httpsig.RequestProfile(), id: "go-2026-11", secret: "go",
	}
}

// bytesOf is the call as the bytes of a request.
func (h *house) bytesOf(t *testing.T, c *call) string {
	t.Helper()
	var b strings.Builder
	target := c.path
	if c.query != "" {
		target += "?" + c.query
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", c.method, target, c.authority, len(c.content))
	_ = c.header.Write(&b)
	if !c.unsigned {
		signer, err := httpsig.NewSigner(c.profile, func() time.Time { return time.Now().Add(-c.age) })
		if err != nil {
			t.Fatal(err)
		}
		s, err := signer.Sign(h.hmac(t, c.id, c.secret), &httpsig.Message{Method: c.method, Scheme: "https", Authority: c.authority,
			Path: c.path, Query: c.query, HasQuery: c.query != "", Fields: httpsig.Header(c.header)}, "")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "Signature-Input: %s\r\nSignature: %s\r\n", s.Input, s.Signature)
	}
	return b.String() + "\r\n" + c.content
}

// hmac is a key of the story under an id.
func (h *house) hmac(t *testing.T, id, name string) *httpsig.Key {
	t.Helper()
	text, err := os.ReadFile(h.key(name))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	key, err := httpsig.HMACKey(id, secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// refused makes calls that must not reach the app, and sees that none does.
func (h *house) refused(t *testing.T) {
	without := func(component string) func(*call) {
		return func(c *call) {
			c.profile.Cover = slices.DeleteFunc(slices.Clone(c.profile.Cover), func(s string) bool { return s == component })
		}
	}
	tamper := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	for _, c := range []struct {
		name    string
		before  func(*call)         // it is signed
		after   func(string) string // it is signed
		status  int
		reason  string
		vouched bool // the refusal is signed
	}{
		{name: "not signed", before: func(c *call) { c.unsigned = true }, status: 401, reason: "signature_missing"},
		{name: "other content", after: tamper(`"a": 40`, `"a": 41`), status: 400, reason: "digest_mismatch", vouched: true},
		{name: "other content, and its digest", after: func(s string) string {
			return strings.Replace(tamper(`"a": 40`, `"a": 41`)(s), httpsig.ContentDigest([]byte(`{"a": 40, "b": 2}`)), httpsig.ContentDigest([]byte(`{"a": 41, "b": 2}`)), 1)
		}, status: 401, reason: "bad_signature"},
		{name: "other method", after: tamper("POST", "PUT"), status: 401, reason: "bad_signature"},
		{name: "other path", after: tamper("/predict", "/echo"), status: 401, reason: "bad_signature"},
		{name: "a query added", after: tamper("/predict", "/predict?admin=1"), status: 401, reason: "bad_signature"},
		{name: "other type", after: tamper("application/json", "text/plain"), status: 401, reason: "bad_signature"},
		{name: "a coding added", after: tamper("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"), status: 401, reason: "coverage"},
		{name: "stale", before: func(c *call) { c.age = 2 * time.Minute }, status: 401, reason: "stale"},
		{name: "from the future", before: func(c *call) { c.age = -2 * time.Minute }, status: 401, reason: "future"},
		{name: "another key's secret", before: func(c *call) { c.secret = "bash" }, status: 401, reason: "bad_signature"},
		{name: "unknown key", before: func(c *call) { c.id = "mallory-2026-11" }, status: 401, reason: "bad_signature"},
		{name: "the gateway's own key", before: func(c *call) { c.id, c.secret = "gw-app-2026-11", "gw-app" }, status: 401, reason: "bad_signature"},
		{name: "method not covered", before: without("@method"), status: 401, reason: "coverage"},
		{name: "query not covered", before: without("@query"), status: 401, reason: "coverage"},
		{name: "digest not covered", before: without("content-digest"), status: 401, reason: "coverage"},
		{name: "no nonce", before: func(c *call) { c.profile.Nonce = false }, status: 401, reason: "malformed"},
		{name: "tag of forwarding", before: func(c *call) { c.profile.Tag = httpsig.TagForward }, status: 401, reason: "signature_missing"},
		{name: "weak digest alone", before: func(c *call) { c.header.Set("Content-Digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:") }, status: 400, reason: "digest_missing", vouched: true},
		{name: "two signatures of ours", after: func(s string) string {
			return strings.NewReplacer("Signature-Input: sp=", "Signature-Input: a=();created=1;keyid=\"x\";nonce=\"n\";tag=\"sallyport-req\", sp=", "Signature: ", "Signature: a=:AAAA:, ").Replace(s)
		}, status: 401, reason: "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.relay.Take()
			call := h.predict()
			if c.before != nil {
				c.before(call)
			}
			request := h.bytesOf(t, call)
			if c.after != nil {
				request = c.after(request)
			}
			h.refuses(t, request, c.status, c.reason, c.vouched)
		})
	}
	t.Run("twice", func(t *testing.T) {
		request := h.bytesOf(t, h.predict())
		if res, body := h.gateway.Raw(t, []byte(request)); res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
		h.relay.Take()
		h.refuses(t, request, 401, "replayed", true)
	})
}

// refuses sends a request and looks at the answer, at the record, and at the app.
func (h *house) refuses(t *testing.T, request string, status int, reason string, vouched bool) {
	t.Helper()
	res, body := h.gateway.Raw(t, []byte(request))
	if res.StatusCode != status || !strings.Contains(string(body), `"reason":"`+reason+`"`) {
		t.Errorf("%d %s, want %d with reason %s", res.StatusCode, body, status, reason)
	}
	if got := res.Header.Get("Accept-Signature"); status == 401 && !strings.Contains(got, `tag="sallyport-req"`) {
		t.Errorf("Accept-Signature: %q", got)
	}
	if res.Header.Get("Date") == "" {
		t.Error("no Date, by which a caller could compare the clocks")
	}
	if got := res.Header.Get("Signature") != ""; got != vouched {
		t.Errorf("the refusal is signed: %v, want %v", got, vouched)
	}
	if r := h.gateway.Record(t, res.Header.Get("X-Request-Id")); r.Status != status || r.Reason != reason {
		t.Errorf("recorded as %+v, want reason %s", r, reason)
	}
	if x := h.relay.Take(); len(x) > 0 {
		t.Errorf("the app was asked: %q", x[0].Request)
	}
}

// TestFirstStart sees that a start without the file of nonces refuses what
// may be a replay from before, and says for how long.
func TestFirstStart(t *testing.T) {
	keys := t.TempDir() + "/keys"
	writeKeys(t, keys)
	h := &house{keys: keys}
	h.gateway = story.StartGateway(t, "keys/", keys+"/")
	res, body := h.gateway.Raw(t, []byte(h.bytesOf(t, h.predict())))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "replay_window") {
		t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
	}
}
