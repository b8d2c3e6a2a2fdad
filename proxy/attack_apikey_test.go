package proxy_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/apikey"
)

const keyRoutes = `
  - {host: models.test, path: /keys, upstream: '%s', callers: apikey/acme, rules: [{allow: "*", who: {group: partners}}]}
  - {host: models.test, path: /either, upstream: '%s', callers: [issuer/corp, apikey], rules: [{allow: "*"}]}
  - {host: models.test, path: /both, upstream: '%s', callers: {all: [issuer/corp, apikey]}, rules: [{allow: "*"}]}
  - {host: models.test, path: /tokens, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /passing, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], insecure_forward_authorization: true}
`

// keyHouse is a house with API keys of acme, inline, and of orbit, in a file.
type keyHouse struct {
	*house
	acme, orbit string
	log         *lines
}

func newKeyHouse(t *testing.T, p plan) *keyHouse {
	k := &keyHouse{acme: apikey.New(), orbit: apikey.New(), log: &lines{}}
	if p.routes == "" {
		p.routes = keyRoutes
	}
	p.more += fmt.Sprintf("principals: {batch: ['issuer/corp:alice', 'apikey:acme']}\napi_keys:\n  acme: {hash: '%s', groups: partners}\napi_key_file: keys\n", apikey.HashText(k.acme))
	p.files = map[string]string{"keys": "orbit " + apikey.HashText(k.orbit) + "\n"}
	p.options.Log = slog.New(slog.NewTextHandler(k.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	k.house = build(t, p)
	return k
}

// basicAuth is the value of Authorization for Basic.
func basicAuth(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestAPIKeysNeverLeaveTheGateway sends keys in every way and checks who is believed, that no
// field with a key reaches the upstream, and that no record, log, metric or answer repeats one.
func TestAPIKeysNeverLeaveTheGateway(t *testing.T) {
	h := newKeyHouse(t, plan{})
	hits, answers := int64(0), ""
	token := "Bearer " + h.token()
	unknown := apikey.New()
	for _, c := range []struct {
		path    string
		fields  []string
		outcome string // the principal, or the reason of a refusal
	}{
		{"/keys", []string{"Authorization", "Bearer " + h.acme}, "apikey:acme"},
		{"/keys", []string{"X-Api-Key", h.acme}, "apikey:acme"},
		{"/keys", []string{"x-aPI-kEY", h.acme}, "apikey:acme"},
		{"/keys", []string{"Api-Key", h.acme}, "apikey:acme"},
		{"/keys", []string{"Authorization", basicAuth("me", h.acme)}, "apikey:acme"},
		{"/keys", []string{"Authorization", token, "X-Api-Key", h.acme}, "apikey:acme"},
		{"/keys", []string{"X-Api-Key", h.orbit}, "api_key_unknown"},
		{"/keys", []string{"X-Api-Key", unknown}, "api_key_unknown"},
		{"/keys", []string{"X-Api-Key", h.acme + "x"}, "api_key_unknown"},
		{"/keys", []string{"X-Api-Key", h.acme, "Authorization", "Bearer " + h.acme}, "bad_credential"},
		{"/keys", []string{"Cookie", "key=" + h.acme}, "no_credential"},
		{"/keys?api_key=" + h.acme, nil, "no_credential"},
		{"/keys", nil, "no_credential"},
		{"/keys", []string{"Authorization", token}, "unlisted_credential"},
		{"/either", []string{"Authorization", "Bearer " + h.orbit}, "apikey:orbit"},
		{"/either", []string{"Authorization", token}, "issuer/corp:alice"},
		{"/either", []string{"Authorization", token, "X-Api-Key", "of-the-app"}, "api_key_unknown"},
		{"/both", []string{"Authorization", token, "X-Api-Key", h.acme}, "issuer/corp:alice"},
		{"/both", []string{"Authorization", token, "X-Api-Key", h.orbit}, "proofs_differ"},
		{"/both", []string{"X-Api-Key", h.acme}, "no_credential"},
		{"/both", []string{"Authorization", token}, "no_credential"},
		{"/tokens", []string{"Authorization", "Bearer " + h.acme}, "unlisted_credential"},
		{"/tokens", []string{"Authorization", basicAuth("me", h.acme)}, "unlisted_credential"},
		{"/tokens", []string{"Authorization", token, "X-Api-Key", h.acme}, "issuer/corp:alice"},
		{"/passing", []string{"Authorization", "Bearer " + h.acme, "Api-Key", h.acme}, "anonymous"},
		{"/passing", []string{"Authorization", basicAuth("me", unknown)}, "anonymous"},
	} {
		t.Run(fmt.Sprintf("%s with %d", c.path[:5], len(c.fields)), func(t *testing.T) {
			h := h.in(t)
			req, _ := http.NewRequest("GET", "https://models.test"+c.path, nil)
			for i := 0; i < len(c.fields); i += 2 {
				req.Header[c.fields[i]] = []string{c.fields[i+1]}
			}
			r := h.send(h.client(false), req)
			answers += r.body + fmt.Sprint(r.Header)
			if r.StatusCode == 200 {
				hits++
				up, _ := h.model.seen()
				if got := up.Header.Get("X-Sallyport-Principal"); got != c.outcome {
					t.Errorf("the upstream was told %s, want %s", got, c.outcome)
				}
				if all := fmt.Sprint(up.Header); strings.Contains(all, "sp_") || up.Header.Get("Authorization") != "" {
					t.Errorf("the upstream got a credential")
				}
			} else if r.reason() != c.outcome {
				t.Errorf("got %d %s, want %s", r.StatusCode, r.body, c.outcome)
			} else if challenge := r.Header.Get("Www-Authenticate"); r.StatusCode != 401 || strings.Count(challenge, "Bearer") != 1 {
				t.Errorf("got %d with the challenge %q", r.StatusCode, challenge)
			}
			if n := h.model.hits.Load(); n != hits {
				t.Errorf("the upstream saw %d requests, want %d", n, hits)
			}
		})
	}
	metrics := h.metrics()
	record := h.ended()
	if record["principal"] != "anonymous" {
		t.Errorf("record %v", record)
	}
	for name, text := range map[string]string{"records": h.audit.text(), "log": h.log.text(), "metrics": metrics, "answers": answers} {
		for _, key := range []string{h.acme, h.orbit, unknown} {
			if strings.Contains(text, key[len("sp_"):len(key)-9]) {
				t.Errorf("the %s repeat an API key", name)
			}
		}
	}
	if text := h.audit.text(); !strings.Contains(text, `"credential":"apikey","key_id":"acme:`+apikey.HashText(h.acme)[7:15]) {
		t.Error("no record names the key")
	}
}

// TestAppsKeepTheirOwnKeyFields checks that X-Api-Key and Api-Key reach the upstream of a route that
// lists no API keys.
func TestAppsKeepTheirOwnKeyFields(t *testing.T) {
	h := newKeyHouse(t, plan{})
	h.do("GET", "/tokens", "", map[string]string{"X-Api-Key": "of-the-app", "Api-Key": "sp_short"})
	up, _ := h.model.seen()
	if up.Header.Get("X-Api-Key") != "of-the-app" || up.Header.Get("Api-Key") != "sp_short" {
		t.Errorf("the upstream got %v", up.Header)
	}
}

// TestKeyFieldsHaveOneSpelling refuses spellings that a lenient server would take for the field.
func TestKeyFieldsHaveOneSpelling(t *testing.T) {
	h := newKeyHouse(t, plan{})
	for _, name := range []string{"Api_Key", "X_Api_Key", "x-api_key", "X.Api.Key", "-Api-Key"} {
		if r := h.do("GET", "/keys", "", map[string]string{"Authorization": "Bearer " + h.acme, name: h.acme}); r.StatusCode != 400 {
			t.Errorf("%s: %d", name, r.StatusCode)
		}
	}
	twice := h.raw("GET /keys HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nApi-Key: " + h.acme + "\r\nApi-Key: " + h.acme + "\r\n\r\n")
	if statuses(twice) != "400" {
		t.Errorf("Api-Key twice: %s", twice)
	}
	h.untouched()
}

// TestRemovedAPIKeyEndsItsStreams removes a key from the file of keys. Its stream is cut; that of
// another key goes on.
func TestRemovedAPIKeyEndsItsStreams(t *testing.T) {
	h := newKeyHouse(t, plan{more: unwatched, handler: ticking})
	c := h.client(true)
	refused, kept := h.stream(c, "/either", h.orbit), h.stream(c, "/either", h.acme)
	file := filepath.Join(filepath.Dir(h.file), "keys")
	if err := os.WriteFile(file, []byte("# none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.reload("changed")
	if _, err := io.Copy(io.Discard, refused); err == nil {
		t.Error("the stream of a removed key ended cleanly; want it cut")
	}
	for range 10 {
		if _, err := kept.ReadString('\n'); err != nil {
			t.Fatalf("the stream of another key: %v", err)
		}
	}
	if record := h.recordOf("apikey:orbit"); record["reason"] != "withdrawn_in_stream" {
		t.Errorf("record %v", record)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	h.reload("refused")
}

// TestLargeAPIKeyFileIsReadAgain removes the last of many keys, behind the first megabyte.
func TestLargeAPIKeyFileIsReadAgain(t *testing.T) {
	h := newKeyHouse(t, plan{more: unwatched})
	file := filepath.Join(filepath.Dir(h.file), "keys")
	text := strings.Builder{}
	for i := range 20_000 {
		fmt.Fprintf(&text, "user-%d sha256:%064x\n", i, i)
	}
	for want, last := range map[int]string{200: "last " + apikey.HashText(h.orbit) + "\n", 401: "last " + apikey.HashText(apikey.New()) + "\n"} {
		if err := os.WriteFile(file, []byte(text.String()+last), 0o600); err != nil {
			t.Fatal(err)
		}
		h.reload("changed")
		if r := h.do("GET", "/either", "", map[string]string{"Authorization": "Bearer " + h.orbit}); r.StatusCode != want {
			t.Errorf("got %d, want %d", r.StatusCode, want)
		}
	}
}

// TestRefusedAPIKeyIsInTheCallersShape checks the refusals for OpenAI's SDKs and for gRPC.
func TestRefusedAPIKeyIsInTheCallersShape(t *testing.T) {
	h := newKeyHouse(t, plan{routes: `
  - {host: models.test, path: /v1, upstream: llm, callers: apikey, rules: [{allow: "*", models: "*"}]}
  - {host: models.test, path: /a.B, upstream: tf, callers: apikey, rules: [{allow: "*", models: "*"}]}
`, more: "upstreams: {llm: {serves: openai, rest: 'http://127.0.0.1:1'}, tf: {grpc: 'h2c://127.0.0.1:1'}}\n"})
	r := h.do("POST", "/v1/chat/completions", "{}", map[string]string{"Authorization": "Bearer " + apikey.New()})
	if r.StatusCode != 401 || !strings.Contains(r.body, `"code":"api_key_unknown"`) || !strings.Contains(r.body, `"error":{`) {
		t.Errorf("OpenAI: %d %s", r.StatusCode, r.body)
	}
	for key, want := range map[string]string{apikey.New(): "16", h.acme: "14"} {
		res, err := h.call(t.Context(), "/a.B/C", strings.NewReader(string(framedText("hello"))), "Authorization", "Bearer "+key)
		if err != nil {
			t.Fatal(err)
		}
		if _, status := finish(t, res); status != want {
			t.Errorf("gRPC: status %s, want %s", status, want)
		}
	}
}

// refusedAPIKeys are requests whose API key is missing or at fault.
func refusedAPIKeys(t *testing.T) *refusals {
	ended, probe := apikey.New(), apikey.New()
	r := &refusals{house: build(t, plan{routes: `
  - {host: models.test, path: /both, upstream: '%s', callers: {all: [issuer/corp, apikey], bind: independent}, rules: [{allow: "*"}]}
  - {host: models.test, path: /tokens, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, upstream: '%s', callers: apikey/old, rules: [{allow: "*"}]}
`, more: fmt.Sprintf("api_keys: {old: {hash: '%s', not_after: 2020-01-01}, probe: {hash: '%s'}}\n", apikey.HashText(ended), apikey.HashText(probe))})}
	key := func(s string) string { return r.ask("GET / HTTP/1.1", "X-Api-Key: "+r.secret(s)) }
	id := func(name, key string) string { return name + ":" + apikey.HashText(key)[7:15] }
	r.expect("api_key_expired", 401, "API key "+id("old", ended)+" ended at 2020-01-01T00:00:00Z", key(ended))
	r.expect("api_key_unknown", 401, "the route does not list apikey:probe, whose key "+id("probe", probe)+" is", key(probe))
	r.expect("api_key_unknown", 401, "no API key has a hash that begins with sha256:…", key(apikey.New()))
	r.expect("api_key_unknown", 401, "not an API key: its form or checksum is wrong, as if it were cut off or mistyped", key(ended[:40]))
	r.expect("api_key_unknown", 401, "the API key is Basic's user name; it must be the password", r.ask("GET / HTTP/1.1", "Authorization: "+r.secret(basicAuth(ended, ""))))
	r.expect("bad_credential", 401, "more than one field with an API key", r.ask("GET / HTTP/1.1", "X-Api-Key: "+ended, "Api-Key: "+ended))
	r.expect("unlisted_credential", 401, "Authorization has an API key; the route takes issuer/corp", r.ask("GET /tokens HTTP/1.1", "Authorization: Bearer "+probe))
	r.expect("no_credential", 401, "another credential than that of Authorization is missing; the route takes issuer/corp, apikey", r.ask("GET /both HTTP/1.1", "Authorization: Bearer TOKEN"))
	return r
}
