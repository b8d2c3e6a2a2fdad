package proxy_test

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

func TestSignedRequest(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		h := signed(t, plan{})
		e := errand{}.signed(t)
		r := h.send(h.client(h2), e.request(t))
		h.passed(r, 1)
		h.vouched(e, r, keyOf("acme-1"))
		up, body := h.model.seen()
		if string(body) != usualBody || up.Header.Get("X-Sallyport-Principal") != "key:acme" || up.Header.Get("Content-Digest") != e.digest {
			t.Errorf("the upstream got %q, %v", body, up.Header)
		}
		for _, name := range []string{"Signature", "Signature-Input"} {
			if v := up.Header.Get(name); v != "" {
				t.Errorf("the upstream got %s: %s", name, v)
			}
		}
		if rec := h.ended(); rec["principal"] != "key:acme" || rec["credential"] != "key" || rec["key_id"] != "acme-1" || rec["signed"] != "header" {
			t.Errorf("record %v", rec)
		}
	}
}

// usualCover lists what a signature must cover.
func usualCover() []string {
	return []string{"@method", "@authority", "@path", "@query", "content-digest", "content-type"}
}

// params are the parameters of a valid signature over these identifiers, with more appended.
func params(identifiers, more string) string {
	return fmt.Sprintf(`(%s);created=%d;keyid="acme-1";tag="sallyport-req"%s`, identifiers, time.Now().Unix(), more)
}

const usualIdentifiers = `"@method" "@authority" "@path" "@query" "content-digest" "content-type"`

func TestGoodSignaturesAreAccepted(t *testing.T) {
	h := signed(t, plan{})
	passed := int64(0)
	nonce := func(n int) string { return fmt.Sprintf(`;nonce="n-%d"`, n) }
	for i, c := range []struct {
		name string
		errand
	}{
		{"@target-uri in place of authority, path and query", errand{cover: []string{"@method", "@target-uri", "content-digest", "content-type"}}},
		{"another order", errand{cover: []string{"content-type", "@query", "content-digest", "@path", "@authority", "@method"}}},
		{"another label", errand{label: "x-1"}},
		{"alg that is the key's", errand{params: params(usualIdentifiers, `;alg="hmac-sha256"`+nonce(1))}},
		{"a parameter of somebody's own", errand{params: params(usualIdentifiers, `;context="x";flag`+nonce(2))}},
		{"more components", errand{params: params(usualIdentifiers+` "@scheme" "@request-target"`, nonce(3))}},
		{"a component with parameters besides", errand{params: params(usualIdentifiers+` "content-digest";key="sha-256" "content-type";bs`, nonce(4))}},
		{"spaces between identifiers and behind commas", errand{params: params(strings.ReplaceAll(usualIdentifiers, " ", "  "), nonce(5))}},
		{"without expires", errand{forever: true}},
		{"a clock that is a little ahead", errand{at: 20 * time.Second}},
		{"a clock that is behind", errand{at: -50 * time.Second}},
		{"sha-512", errand{digest: "sha-512=:" + base64Of512(usualBody) + ":"}},
		{"both digests", errand{digest: "sha-512=:" + base64Of512(usualBody) + ":, " + httpsig.ContentDigest([]byte(usualBody))}},
		{"a weak digest besides", errand{digest: httpsig.ContentDigest([]byte(usualBody)) + ", md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"}},
		{"the other key of acme", errand{key: keyOf("acme-2")}},
		{"the default port", errand{authority: "models.test:443"}},
		{"another case of the host", errand{authority: "Models.TEST"}},
		{"no content", errand{method: "GET"}},
		{"no query", errand{target: "/v1/models/m"}},
		{"an empty query", errand{target: "/v1/models/m?"}},
		{"a path that is forwarded in another form", errand{target: "/v1/models/%6d%3Apredict"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			e := c.errand.signed(t)
			r := h.parse(h.tell(e.raw()), e.method)
			passed++
			h.passed(r, passed)
			if i == 0 {
				h.vouched(e, r, keyOf("acme-1"))
			}
		})
	}
}

func TestMalformedSignaturesAreRefused(t *testing.T) {
	h := signed(t, plan{})
	good := errand{}.signed(t)
	mac := strings.TrimPrefix(good.signature, "sp=")
	list := strings.TrimPrefix(good.input, "sp=")
	foreign := func(n int) (input, signature string) {
		for i := range n {
			input += fmt.Sprintf(`, f%d=();tag="other"`, i)
			signature += fmt.Sprintf(`, f%d=:AA==:`, i)
		}
		return input, signature
	}
	many, manySignatures := foreign(4)
	var components []string
	for i := range 33 {
		components = append(components, fmt.Sprintf(`"x-%d"`, i))
	}
	for _, c := range []struct{ name, input, signature string }{
		{"a head of 4 KiB and more", good.input + `;x="` + strings.Repeat("a", 4<<10) + `"`, good.signature},
		{"a signature of 4 KiB and more", good.input, "sp=:" + strings.Repeat("AAAA", 1<<10) + ":"},
		{"five labels", good.input + many, good.signature + manySignatures},
		{"33 components", "sp=(" + strings.Join(components, " ") + strings.TrimPrefix(list, "("), good.signature},
		{"a nonce of 65", strings.Replace(good.input, good.nonce, strings.Repeat("n", 65), 1), good.signature},
		{"an empty nonce", strings.Replace(good.input, good.nonce, "", 1), good.signature},
		{"a nonce of other characters", strings.Replace(good.input, good.nonce, "a/b", 1), good.signature},
		{"a nonce with an escape", strings.Replace(good.input, good.nonce, `a\"b`, 1), good.signature},
		{"a nonce that is a token", strings.Replace(good.input, `"`+good.nonce+`"`, "nonce", 1), good.signature},
		{"a keyid of 129", strings.Replace(good.input, "acme-1", strings.Repeat("k", 129), 1), good.signature},
		{"no keyid", strings.Replace(good.input, `;keyid="acme-1"`, "", 1), good.signature},
		{"no created", regexpReplace(good.input, `;created=\d+`, ""), good.signature},
		{"created as text", regexpReplace(good.input, `;created=(\d+)`, `;created="$1"`), good.signature},
		{"created as a decimal", regexpReplace(good.input, `;created=(\d+)`, `;created=$1.0`), good.signature},
		{"created of 16 digits", regexpReplace(good.input, `;created=(\d+)`, `;created=9999999999999999`), good.signature},
		{"expires as text", regexpReplace(good.input, `;expires=(\d+)`, `;expires="$1"`), good.signature},
		{"alg of another kind", good.input + `;alg="ed25519"`, good.signature},
		{"alg none", good.input + `;alg="none"`, good.signature},
		{"alg of another case", good.input + `;alg="HMAC-SHA256"`, good.signature},
		{"an empty alg", good.input + `;alg=""`, good.signature},
		{"two of one label, both right", good.input + ", " + good.input, good.signature},
		{"two of one label, the last right", "sp=(), " + good.input, "sp=:AA==:, " + good.signature},
		{"two of one label in Signature", good.input, good.signature + ", " + good.signature},
		{"two with our tag", good.input + ", b=" + list, good.signature + ", b=" + mac},
		{"a parameter twice", good.input + `;tag="sallyport-req"`, good.signature},
		{"created twice", good.input + `;created=1`, good.signature},
		{"a component twice", strings.Replace(good.input, `"@path"`, `"@path" "@path"`, 1), good.signature},
		{"a component twice, parameters in another order", strings.Replace(good.input, `"@path"`, `"@path" "x";sf;tr "x";tr;sf`, 1), good.signature},
		{"an unknown derived component", strings.Replace(good.input, `"@path"`, `"@path" "@host"`, 1), good.signature},
		{"@signature-params covered", strings.Replace(good.input, `"@path"`, `"@path" "@signature-params"`, 1), good.signature},
		{"an unknown parameter of a component", strings.Replace(good.input, `"@path"`, `"@path" "x";magic`, 1), good.signature},
		{"bs with sf", strings.Replace(good.input, `"@path"`, `"@path" "x";bs;sf`, 1), good.signature},
		{"an upper-case field", strings.Replace(good.input, `"content-type"`, `"Content-Type"`, 1), good.signature},
		{"a component that is a token", strings.Replace(good.input, `"@path"`, `path`, 1), good.signature},
		{"no space between components", strings.Replace(good.input, `"@path" "@query"`, `"@path""@query"`, 1), good.signature},
		{"a tab between components", strings.Replace(good.input, `"@path" "@query"`, "\"@path\"\t\"@query\"", 1), good.signature},
		{"a comma between components", strings.Replace(good.input, `"@path" "@query"`, `"@path", "@query"`, 1), good.signature},
		{"a list that does not end", strings.Replace(good.input, ")", "", 1), good.signature},
		{"a comma at the end", good.input + ",", good.signature},
		{"a comma at the end of Signature", good.input, good.signature + ","},
		{"an item and no list", "sp=1", good.signature},
		{"a label of upper case", "SP=" + list, "SP=" + mac},
		{"no label", list, mac},
		{"labels that differ", "a=" + list, "b=" + mac},
		{"a signature without input", good.input, good.signature + ", b=:AA==:"},
		{"an input without signature", good.input + `, b=();tag="x"`, good.signature},
		{"Signature alone", "", good.signature},
		{"Signature-Input alone", good.input, ""},
		{"a signature that is text", good.input, `sp="` + strings.Trim(mac, ":") + `"`},
		{"a signature that is a token", good.input, "sp=abc"},
		{"a signature with a parameter that is no end", good.input, good.signature + ";"},
		{"base64url", good.input, "sp=:" + base64.URLEncoding.EncodeToString([]byte("\xff\xff\xfe_of_thirty_two_bytes_exactly.")) + ":"},
		{"base64 without padding", good.input, strings.Replace(good.signature, "=:", ":", 2)},
		{"base64 whose last bits are not zero", good.input, withLooseBits(good.signature)},
		{"a MAC cut short", good.input, "sp=:" + base64.StdEncoding.EncodeToString(macOf("acme-1", nil)[:16]) + ":"},
		{"an empty MAC", good.input, "sp=::"},
		{"a MAC and more", good.input, "sp=:" + base64.StdEncoding.EncodeToString(append(macOf("acme-1", nil), 0)) + ":"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			e := *good
			e.input, e.signature = c.input, c.signature
			r := h.parse(h.tell(e.raw()), "POST")
			h.refused(r, 401, "malformed")
			h.unsigned(r)
			h.challenged(r)
		})
	}
	t.Run("a second line", func(t *testing.T) {
		for _, name := range []string{"Signature", "Signature-Input", "Content-Digest"} {
			again := strings.Replace(good.raw(), "Connection: close", name+": x=1\r\nConnection: close", 1)
			r := h.parse(h.tell(again), "POST")
			h.refused(r, 400, "bad_field")
			h.unsigned(r)
		}
	})
	t.Run("another spelling of a field", func(t *testing.T) {
		for _, name := range []string{"Signature_Input", "Content_Digest", "content.digest", "Content_Type", "Signature-"} {
			r := h.parse(h.tell(strings.Replace(good.raw(), "Connection: close", name+": x=1\r\nConnection: close", 1)), "POST")
			h.refused(r, 400, "protected_field")
		}
	})
	t.Run("untouched by all that, the signature is good", func(t *testing.T) {
		h.passed(h.sendErrand(good), 1)
	})
}

// challenged checks the fields of every 401 about a signature.
func (h *house) challenged(r *reply) {
	h.t.Helper()
	const accept = `sp=("@method" "@authority" "@path" "@query" "content-digest");created;tag="sallyport-req"`
	if v := r.Header.Get("Accept-Signature"); v != accept {
		h.t.Errorf("Accept-Signature: %s", v)
	}
	if v := r.Header.Get("Www-Authenticate"); v != `Signature realm="models.test"` {
		h.t.Errorf("WWW-Authenticate: %s", v)
	}
	if _, err := http.ParseTime(r.Header.Get("Date")); err != nil {
		h.t.Errorf("Date: %v", err)
	}
}

func TestInvalidSignaturesAreRefused(t *testing.T) {
	h := signed(t, plan{})
	without := func(c string) []string {
		return slices.DeleteFunc(usualCover(), func(s string) bool { return s == c })
	}
	instead := func(c, other string) string {
		return params(strings.Replace(usualIdentifiers, `"`+c+`"`, other, 1), `;nonce="n"`)
	}
	for _, c := range []struct {
		name   string
		reason string
		errand
	}{
		{"no @method", "coverage", errand{cover: without("@method")}},
		{"no @authority", "coverage", errand{cover: without("@authority")}},
		{"no @path", "coverage", errand{cover: without("@path")}},
		{"no @query", "coverage", errand{cover: without("@query")}},
		{"no content-digest", "coverage", errand{cover: without("content-digest")}},
		{"no content-digest and none sent", "coverage", errand{cover: without("content-digest"), digest: "-"}},
		{"no content-type though there is one", "coverage", errand{cover: without("content-type")}},
		{"no content-encoding though there is one", "coverage", errand{cover: usualCover(), fields: httpsig.Lines{{Name: "Content-Type", Value: "a/b"}, {Name: "Content-Encoding", Value: "gzip"}}}},
		{"@request-target for path and query", "coverage", errand{cover: []string{"@method", "@authority", "@request-target", "content-digest", "content-type"}}},
		{"@target-uri without @method", "coverage", errand{cover: []string{"@target-uri", "content-digest", "content-type"}}},
		{"@query-param for the query", "coverage", errand{cover: []string{"@method", "@authority", "@path", `@query-param;name="q"`, "content-digest", "content-type"}}},
		{"@method;req", "coverage", errand{params: instead("@method", `"@method";req`)}},
		{"content-digest;req", "coverage", errand{params: instead("content-digest", `"content-digest";req`)}},
		{"content-digest;key", "coverage", errand{params: instead("content-digest", `"content-digest";key="sha-256"`)}},
		{"content-digest;sf", "coverage", errand{params: instead("content-digest", `"content-digest";sf`)}},
		{"content-digest;bs", "coverage", errand{params: instead("content-digest", `"content-digest";bs`)}},
		{"content-digest;tr", "coverage", errand{params: instead("content-digest", `"content-digest";tr`)}},
		{"no content and no digest of that", "coverage", errand{method: "GET", digest: "-", cover: []string{"@method", "@authority", "@path", "@query"}}},
		{"nothing covered", "coverage", errand{params: params("", `;nonce="n"`)}},

		{"digest covered and not sent", "bad_signature", errand{digest: "-", params: params(usualIdentifiers, `;nonce="n"`)}},
		{"@status in a request", "bad_signature", errand{params: params(usualIdentifiers+` "@status"`, `;nonce="n"`)}},
		{"a field that is not there", "bad_signature", errand{params: params(usualIdentifiers+` "x-none"`, `;nonce="n"`)}},
		{"a field by an @ name, sent as a field", "malformed", errand{params: params(usualIdentifiers+` "@x"`, `;nonce="n"`)}},

		{"no nonce", "malformed", errand{params: params(usualIdentifiers, "")}},
		{"no tag", "signature_missing", errand{params: strings.Replace(params(usualIdentifiers, `;nonce="n"`), `;tag="sallyport-req"`, "", 1)}},
		{"a foreign tag", "signature_missing", errand{tag: "web-bot-auth"}},
		{"the tag of the upstream's leg", "signature_missing", errand{tag: httpsig.TagForward}},
		{"the tag of an answer", "signature_missing", errand{tag: httpsig.TagResponse}},
		{"a tag that begins as ours", "signature_missing", errand{tag: "sallyport-req2"}},
		{"a tag of another case", "signature_missing", errand{tag: "Sallyport-Req"}},

		{"61 seconds old", "stale", errand{at: -62 * time.Second}},
		{"an hour old without expires", "stale", errand{at: -time.Hour, forever: true}},
		{"an hour old of a key that is not known", "stale", errand{at: -time.Hour, key: keyOf("nobody-1")}},
		{"expired before its age", "stale", errand{params: params(usualIdentifiers, fmt.Sprintf(`;nonce="n";expires=%d`, time.Now().Unix()-1))}},
		{"expired in 1969", "stale", errand{params: params(usualIdentifiers, `;nonce="n";expires=-1`)}},
		{"from the future", "future", errand{at: 40 * time.Second}},
		{"from the far future", "future", errand{params: regexpReplace(params(usualIdentifiers, `;nonce="n"`), `created=\d+`, "created=999999999999999")}},
		{"created at the beginning of time", "stale", errand{params: regexpReplace(params(usualIdentifiers, `;nonce="n"`), `created=\d+`, "created=-999999999999999")}},

		{"a key that does not exist", "bad_signature", errand{key: keyOf("nobody-1")}},
		{"a key that begins in 2100", "key_not_yet_valid", errand{key: keyOf("early-1")}},
		{"a key that has ended", "key_expired", errand{key: keyOf("ended-1")}},
		{"a key that has ended, and a stale signature", "stale", errand{key: keyOf("ended-1"), at: -time.Hour}},
		{"a key for answers", "bad_signature", errand{key: keyOf("answers-1")}},
		{"a key for requests to upstreams", "bad_signature", errand{key: keyOf("out-1")}},
		{"a key of upstreams", "bad_signature", errand{key: keyOf("back-1")}},
		{"a key of a principal that the route does not list", "bad_signature", errand{key: keyOf("orbit-1")}},
		{"the key id of another case", "bad_signature", errand{key: mustKey("ACME-1", "acme-1")}},
		{"the secret of another key", "bad_signature", errand{key: mustKey("acme-1", "acme-2")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			e := c.errand.signed(t)
			r := h.parse(h.tell(e.raw()), e.method)
			h.refused(r, 401, c.reason)
			h.unsigned(r)
			h.challenged(r)
		})
	}
	t.Run("no signature", func(t *testing.T) {
		r := h.do("POST", "/", usualBody, map[string]string{"Authorization": ""})
		h.refused(r, 401, "signature_missing")
		h.challenged(r)
	})
	t.Run("foreign signatures are not looked at", func(t *testing.T) {
		e := errand{}.signed(t)
		e.input = `bot=("@authority" "x-none");created=1;keyid="x";alg="rsa-v1_5-sha256";tag="web-bot-auth", ` + e.input + `, w=("@bogus");created="x";tag="other"`
		e.signature = `bot=:AA==:, ` + e.signature + `, w=:AAAA:`
		h.passed(h.sendErrand(e), 1)
	})
}

// mustKey is a key with one id and the secret of another.
func mustKey(id, secret string) *httpsig.Key {
	k, err := httpsig.HMACKey(id, secretOf(secret))
	if err != nil {
		panic(err)
	}
	return k
}

// TestUnknownKeyLooksLikeABadMAC compares everything that a forger can see.
func TestUnknownKeyLooksLikeABadMAC(t *testing.T) {
	h := signed(t, plan{routes: `
  - {host: models.test, path: /hmac, upstream: '%s', callers: key/acme, rules: [{allow: "*"}]}
  - {host: models.test, path: /both, upstream: '%s', callers: key, rules: [{allow: "*"}]}
`})
	seen := func(e *errand) string {
		raw := h.tell(e.raw())
		r := h.parse(raw, "POST")
		h.refused(r, 401, "bad_signature")
		h.unsigned(r)
		raw = strings.ReplaceAll(raw, r.Header.Get("X-Request-Id"), "ID")
		return strings.ReplaceAll(raw, r.Header.Get("Date"), "DATE")
	}
	for _, path := range []string{"/hmac", "/both"} {
		want := seen(errand{target: path, key: mustKey("acme-1", "wrong")}.signed(t))
		for id, secret := range map[string]string{
			"nobody-1": "nobody-1", "answers-1": "answers-1", "out-1": "out-1", "gateway-ed": "gateway-ed",
			"early-1": "wrong", "ended-1": "wrong", // a caller with the right secret may learn that the key has expired
		} {
			if got := seen(errand{target: path, key: mustKey(id, secret)}.signed(t)); got != want {
				t.Errorf("%s with key %s: a forger sees\n%s\nand with a wrong secret\n%s", path, id, got, want)
			}
		}
	}
	want := seen(errand{target: "/both", key: mustEd("orbit-ed", "wrong")}.signed(t))
	for _, id := range []string{"nobody-1", "acme-1", "gateway-ed"} {
		if got := seen(errand{target: "/both", key: mustEd(id, id)}.signed(t)); got != want {
			t.Errorf("with the Ed25519 key %s: a forger sees\n%s\nand with a wrong one\n%s", id, got, want)
		}
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	causes := map[string]bool{}
	for _, rec := range h.audit.records(t) {
		causes[fmt.Sprint(rec["cause"])] = true
		if rec["key_id"] != nil || rec["principal"] != nil {
			t.Errorf("record %v names a key or a caller that nobody proved", rec)
		}
	}
	if !causes[`the key is unknown: keyid "nobody-1"`] || !causes[`the signature does not match: keyid "acme-1"`] {
		t.Errorf("the operator cannot tell them apart: %v", causes)
	}
}

func mustEd(id, seed string) *httpsig.Key {
	k, err := httpsig.Ed25519Key(id, edPrivate(seed))
	if err != nil {
		panic(err)
	}
	return k
}

// TestSignatureIsValidOnlyForItsAuthority checks that a signature is valid only for the host and
// port that it names.
func TestSignatureIsValidOnlyForItsAuthority(t *testing.T) {
	h := signed(t, plan{
		https: "127.0.0.1:8443",
		more:  "public_https: 9443\n",
		options: proxy.Options{Listen: func(network, _ string) (net.Listener, error) {
			return net.Listen(network, "127.0.0.1:0")
		}},
		routes: signedRoute + `
  - {host: other.test, upstream: '%s', callers: key/acme, rules: [{allow: "*"}]}
`})
	n := int64(0)
	for _, authority := range []string{"models.test", "models.test:443", "models.test:8443", "models.test:9443"} {
		n++
		h.passed(h.parse(h.tell(errand{authority: authority}.signed(t).raw()), "POST"), n)
	}
	for _, authority := range []string{"models.test:80", "models.test:444", "models.test:1", "models.test:65535"} {
		for _, e := range []errand{{authority: authority}, {authority: authority, key: keyOf("nobody-1")}, {authority: authority, cover: []string{"@method", "@target-uri", "content-digest", "content-type"}}} {
			r := h.parse(h.tell(e.signed(t).raw()), "POST")
			h.stillRefused(r, 421, "authority", n)
			h.unsigned(r)
		}
	}
	moved := errand{}.signed(t)
	for _, authority := range []string{"other.test", "models.test:8443", "models.test:9443"} {
		e := *moved
		e.authority = authority
		h.stillRefused(h.parse(h.tell(e.raw()), "POST"), 401, "bad_signature", n)
	}
	h.stillRefused(h.parse(h.tell(errand{authority: "nowhere.test"}.signed(t).raw()), "POST"), 404, "no_route", n)
	h.passed(h.parse(h.tell(moved.raw()), "POST"), n+1)
}

// TestSignatureMustCoverFieldsTheRouteRequires checks that further fields must be signed if present,
// in every spelling that some server accepts.
func TestSignatureMustCoverFieldsTheRouteRequires(t *testing.T) {
	h := signed(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: key/acme, rules: [{allow: "*"}], integrity: {cover: [x-tenant, authorization]}}
`})
	tenant := httpsig.Lines{{Name: "Content-Type", Value: "application/json"}, {Name: "X-Tenant", Value: "a"}}
	h.refused(h.sendErrand(errand{fields: tenant}.signed(t)), 401, "coverage")
	h.refused(h.sendErrand(errand{fields: httpsig.Lines{{Name: "Authorization", Value: "Bearer x"}}}.signed(t)), 401, "coverage")
	covered := errand{fields: tenant, cover: append(usualCover(), "x-tenant")}.signed(t)
	for _, change := range []struct{ name, old, new string }{
		{"another value", "X-Tenant: a", "X-Tenant: b"},
		{"a second line", "X-Tenant: a", "X-Tenant: a\r\nX-Tenant: b"},
		{"a second line before", "X-Tenant: a", "X-Tenant: b\r\nX-Tenant: a"},
		{"no more of it", "X-Tenant: a\r\n", ""},
	} {
		t.Run(change.name, func(t *testing.T) {
			h := h.in(t)
			r := h.parse(h.tell(strings.Replace(covered.raw(), change.old, change.new, 1)), "POST")
			h.refused(r, 401, "bad_signature")
		})
	}
	for _, name := range []string{"X_Tenant", "x.tenant", "X-Tenant-", "X~Tenant"} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			for _, e := range []*errand{covered, errand{}.signed(t)} {
				r := h.parse(h.tell(strings.Replace(e.raw(), "Connection: close", name+": evil\r\nConnection: close", 1)), "POST")
				h.refused(r, 400, "protected_field")
			}
		})
	}
	t.Run("another spelling of a field that the client chose to sign", func(t *testing.T) {
		h := h.in(t)
		fields := httpsig.Lines{{Name: "Content-Type", Value: "application/json"}, {Name: "X-Label", Value: "a"}}
		e := errand{fields: fields, cover: append(usualCover(), "x-label")}.signed(t)
		r := h.parse(h.tell(strings.Replace(e.raw(), "Connection: close", "X_Label: evil\r\nConnection: close", 1)), "POST")
		h.refused(r, 400, "protected_field")
		h.vouched(e, r, keyOf("acme-1"))
	})
	h.passed(h.sendErrand(covered), 1)
	h.passed(h.sendErrand(errand{}.signed(t)), 2)
}

// TestAnswerSignatureIsNoRequestSignature uses signatures of one direction in another.
func TestAnswerSignatureIsNoRequestSignature(t *testing.T) {
	h := signed(t, plan{})
	asked := errand{}.signed(t)
	answer := h.sendErrand(asked)
	h.passed(answer, 1)
	for _, name := range []string{"as it is", "with our tag", "beside one of ours"} {
		t.Run(name, func(t *testing.T) {
			h := h.in(t)
			e := errand{}.signed(t)
			input, signature := answer.Header.Get("Signature-Input"), answer.Header.Get("Signature")
			want := "signature_missing"
			switch name {
			case "with our tag":
				input, want = strings.Replace(input, httpsig.TagResponse, httpsig.TagRequest, 1), "coverage"
			case "beside one of ours":
				forged := errand{key: mustKey("acme-1", "wrong"), label: "q"}.signed(t)
				input, signature, want = input+", "+forged.input, signature+", "+forged.signature, "bad_signature"
			}
			e.input, e.signature = input, signature
			r := h.sendErrand(e)
			h.stillRefused(r, 401, want, 1)
			h.unsigned(r)
		})
	}
}
