package proxy_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

const publishing = "integrity: {publish: gateway-ed}\n"

// openRoutes are a route for tokens, a public one and one for keys.
const openRoutes = `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], integrity: {response_buffer: 4KiB}}
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /keys, upstream: '%s', callers: key, rules: [{allow: "*"}]}
  - {host: models.test, path: /silent, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], integrity: {response: off}}
`

// wanting sends an unsigned errand whose caller asks for a signature.
func wanting(h *house, target, accept string) (*errand, *reply) {
	h.t.Helper()
	e := &errand{method: "GET", authority: "models.test", target: target}
	header := map[string]string{"Accept-Signature": accept}
	if strings.HasPrefix(target, "/open") || strings.HasPrefix(target, "/silent") {
		header["Authorization"] = ""
	}
	return e, h.do("GET", target, "", header)
}

// verifyWanted verifies the answer to an unsigned errand.
func verifyWanted(t *testing.T, p httpsig.Policy, e *errand, r *reply, nonce string, key *httpsig.Key) (*httpsig.Signature, error) {
	t.Helper()
	m := &httpsig.Message{Status: r.StatusCode, Fields: httpsig.Header(r.Header), Request: e.message()}
	return verifier(t, p, key).VerifyResponse(m, nonce, false)
}

// publishedKey reads the gateway's published key.
func (h *house) publishedKey() *httpsig.Key {
	h.t.Helper()
	r := h.do("GET", "/.well-known/sallyport/keys", "", map[string]string{"Authorization": ""})
	var set struct {
		Keys []struct{ Kty, Crv, Use, Alg, Kid, X, D string }
	}
	if err := json.Unmarshal([]byte(r.body), &set); err != nil || r.StatusCode != 200 || len(set.Keys) != 1 {
		h.t.Fatalf("got %d %s", r.StatusCode, r.body)
	}
	k := set.Keys[0]
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	if err != nil || k.Kty != "OKP" || k.Crv != "Ed25519" || k.Kid != "gateway-ed" || k.D != "" {
		h.t.Fatalf("got %s", r.body)
	}
	key, err := httpsig.Ed25519PublicKey(k.Kid, ed25519.PublicKey(x))
	if err != nil {
		h.t.Fatal(err)
	}
	return key
}

func TestPublishedKeys(t *testing.T) {
	h := signed(t, plan{routes: openRoutes, more: publishing})
	if key := h.publishedKey(); key == nil {
		t.Fatal("no key")
	}
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/.well-known/sallyport/keys", 200}, {"HEAD", "/.well-known/sallyport/keys", 200}, {"GET", "/.well-known/sallyport/keys?x", 200},
		{"POST", "/.well-known/sallyport/keys", 405}, {"GET", "/.well-known/sallyport/other", 404}, {"GET", "/.well-known/sallyport", 404}, {"GET", "/.well-known/sallyport/keys/", 404},
		{"GET", "/.Well-Known/Sallyport/keys", 404}, {"GET", "/.well-known/SALLYPORT/admin", 404}, {"GET", "/.well%2Dknown/sallyport/x", 404},
	} {
		r := h.do(c.method, c.target, "", nil)
		if r.StatusCode != c.status {
			t.Errorf("%s %s: got %d; want %d", c.method, c.target, r.StatusCode, c.status)
		}
	}
	h.untouched()
	if r := h.do("GET", "/.well-known/other", "", nil); r.StatusCode != 200 {
		t.Errorf("another well-known path: got %d", r.StatusCode)
	}
	t.Run("where none is published", func(t *testing.T) {
		h := signed(t, plan{})
		h.refused(h.do("GET", "/.well-known/sallyport/keys", "", nil), 404, "no_route")
	})
}

// TestAcceptSignature signs answers for callers without a key who ask for it.
func TestAcceptSignature(t *testing.T) {
	h := signed(t, plan{routes: openRoutes, more: publishing, handler: answering})
	key := h.publishedKey()
	const nonce = "client-chose-1"
	ask := `sp=();created;nonce="` + nonce + `";tag="sallyport-resp"`
	t.Run("for whoever is known", func(t *testing.T) {
		h := h.in(t)
		for _, c := range []struct {
			target, accept string
			policy         httpsig.Policy
		}{
			{"/short", ask, httpsig.ResponsePolicy()},
			{"/short?a=b", `x=("@status" "content-digest" "@method";req "@authority";req "@path";req "@query";req "content-type");created;nonce="` + nonce + `";keyid="gateway-ed";alg="ed25519"`, httpsig.ResponsePolicy()},
			{"/short", `other=();nonce="no";tag="web-bot-auth", ` + ask, httpsig.ResponsePolicy()},
			{"/404", ask, httpsig.ResponsePolicy()},
			{"/events", ask, httpsig.HeadPolicy(httpsig.TagResponseHeadOnly)},
			{"/204", ask, httpsig.HeadPolicy(httpsig.TagResponseHeadOnly)},
			{"/open/short", ask, httpsig.HeadPolicy(httpsig.TagResponseHeadOnly)},
		} {
			e, r := wanting(h, c.target, c.accept)
			if c.target == "/open/short" {
				c.policy = httpsig.ResponsePolicy() // the test server's empty answer
			}
			if _, err := verifyWanted(t, c.policy, e, r, nonce, key); err != nil {
				t.Errorf("%s: %v with %d %v", c.target, err, r.StatusCode, r.Header)
			}
			if !strings.Contains(strings.Join(r.Header.Values("Vary"), ","), "Accept-Signature") {
				t.Errorf("%s: Vary: %q", c.target, r.Header.Values("Vary"))
			}
			if up, _ := h.model.seen(); up.Header.Get("Accept-Signature") != "" {
				t.Errorf("%s: the upstream was asked too", c.target)
			}
		}
	})
	t.Run("not for who asks in no way that binds the answer", func(t *testing.T) {
		h := h.in(t)
		for _, accept := range []string{`sp=();created;tag="sallyport-resp"`, `sp=();nonce="n";tag="sallyport-req"`, `sp=();nonce="n/n"`, `x`, `sp=1`, ""} {
			_, r := wanting(h, "/short", accept)
			if r.StatusCode != 200 {
				t.Errorf("%s: got %d", accept, r.StatusCode)
			}
			h.unsigned(r)
		}
		_, r := wanting(h, "/silent/short", ask)
		h.unsigned(r)
	})
	t.Run("not for strangers", func(t *testing.T) {
		h := h.in(t)
		for _, target := range []string{"/short", "/keys/short", "/nowhere//"} {
			r := h.do("GET", target, "", map[string]string{"Authorization": "Bearer x", "Accept-Signature": ask})
			if r.StatusCode < 400 {
				t.Errorf("got %d", r.StatusCode)
			}
			h.unsigned(r)
		}
	})
	t.Run("what answers do not have is no fault", func(t *testing.T) {
		h := h.in(t)
		for _, target := range []string{"/short", "/untyped", "/events", "/long"} {
			for _, components := range []string{`"content-type"`, `"x-none"`, `"@method"`, `"@path"`, `"x-none";req`, `"@query-param";name="a";req`, `"content-digest";tr`, `"x";key="a"`, `"content-type";sf`} {
				e, r := wanting(h, target, `sp=(`+components+`);created;nonce="`+nonce+`"`)
				if r.StatusCode != 200 {
					t.Errorf("%s with %s: got %d %s", target, components, r.StatusCode, r.body)
					continue
				}
				p := httpsig.HeadPolicy(httpsig.TagResponseHeadOnly)
				if target == "/short" || target == "/untyped" {
					p = httpsig.ResponsePolicy()
					p.Require, p.IfPresent = []string{"@status", "content-digest"}, nil
				}
				if _, err := verifyWanted(t, p, e, r, nonce, key); err != nil {
					t.Errorf("%s with %s: %v in %v", target, components, err, r.Header)
				}
			}
		}
	})
	t.Run("by a caller with a key", func(t *testing.T) {
		h := h.in(t)
		fields := func(accept string) httpsig.Lines {
			return httpsig.Lines{{Name: "Content-Type", Value: "application/json"}, {Name: "Accept-Signature", Value: accept}}
		}
		e := errand{target: "/keys/short", fields: fields(`sp=();keyid="gateway-ed"`)}.signed(t)
		h.vouched(e, h.sendErrand(e), key)
		e = errand{target: "/keys/short", fields: fields(`sp=();nonce="other";tag="sallyport-resp"`)}.signed(t)
		h.vouched(e, h.sendErrand(e), keyOf("acme-1"))
		e = errand{target: "/keys/short", key: edKey("orbit-ed")}.signed(t) // only its holder can sign with it
		h.vouched(e, h.sendErrand(e), key)
	})
}

// TestWantContentDigest sends a digest to callers who ask only for that.
func TestWantContentDigest(t *testing.T) {
	h := signed(t, plan{routes: openRoutes, handler: answering})
	for _, c := range []struct {
		method, target, want string
		digest               bool
	}{
		{"GET", "/short", "sha-256=10, sha-512=3", true}, {"GET", "/empty", "sha-256=1", true}, {"GET", "/404", "sha-256=1", true},
		{"GET", "/short", "sha-256=0", false}, {"GET", "/short", "sha-512=10", false}, {"GET", "/short", "md5=10", false}, {"GET", "/short", "sha-256", false}, {"GET", "/short", "(", false},
		{"HEAD", "/short", "sha-256=1", false}, {"GET", "/204", "sha-256=1", false}, {"GET", "/304", "sha-256=1", false}, {"GET", "/events", "sha-256=1", false}, {"GET", "/long", "sha-256=1", false},
	} {
		r := h.do(c.method, c.target, "", map[string]string{"Want-Content-Digest": c.want})
		got := r.Header.Get("Content-Digest")
		switch {
		case c.digest && got != httpsig.ContentDigest([]byte(r.body)), !c.digest && got != "", r.Header.Get("Signature") != "", r.StatusCode >= 500:
			t.Errorf("%s %s wanting %s: got %d with Content-Digest %q", c.method, c.target, c.want, r.StatusCode, got)
		}
	}
}
