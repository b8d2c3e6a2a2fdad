package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/apikey"
)

// TestAKeysOwnLimitsAreItsOwn lets one key run into its own limits. Another key, and the route's rate
// that both share, feel nothing, and a reload gives nothing back.
func TestAKeysOwnLimitsAreItsOwn(t *testing.T) {
	attacker, second, victim := apikey.New(), apikey.New(), apikey.New()
	h := build(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: apikey, rules: [{allow: "*"}], limits: {rate: {per: route, limit: 5/h}}}
`, more: unwatched + fmt.Sprintf("api_keys:\n  attacker: {hash: ['%s', '%s'], principal: lab, rate: {limit: 2/h}}\napi_key_file: keys\n", apikey.HashText(attacker), apikey.HashText(second)),
		files: map[string]string{"keys": "victim " + apikey.HashText(victim) + " principal=lab rate=2/h burst=9 in_flight=4\n"}})
	ask := func(key string) *reply {
		return h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + key})
	}
	for i := range 10 {
		r := ask([]string{attacker, second}[i%2])
		switch {
		case i < 2 && r.StatusCode != 200:
			t.Fatalf("request %d: %d %s", i, r.StatusCode, r.body)
		case i >= 2 && (r.StatusCode != 429 || r.reason() != "rate_limited" || r.Header.Get("Retry-After") == ""):
			t.Fatalf("request %d: %d %s, Retry-After %s", i, r.StatusCode, r.body, r.Header.Get("Retry-After"))
		}
	}
	if r := ask(victim); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, r.body)
	}
	h.edit(unwatched, unwatched+"drain: 7s\n")
	h.reload("changed")
	if r := ask(attacker); r.StatusCode != 429 {
		t.Errorf("after a reload: %d", r.StatusCode)
	}
	for i, want := range []int{200, 200, 429} { // the third and fifth request of the route
		if r := ask(victim); r.StatusCode != want {
			t.Errorf("request %d of the victim after a reload: %d, want %d", i, r.StatusCode, want)
		}
	}
	h.ended()
	for _, cause := range []string{`"cause":"over 2/h (rate of API key attacker)"`, `"cause":"over 5/h per route (limits.rate)"`} {
		if !strings.Contains(h.audit.text(), cause) {
			t.Errorf("no record has %s", cause)
		}
	}
}

// TestAKeysPlacesInFlightAreItsOwn fills the places of one key and checks that they come back.
func TestAKeysPlacesInFlightAreItsOwn(t *testing.T) {
	h := newKeyHouse(t, plan{handler: ticking, more: unwatched})
	file := filepath.Join(filepath.Dir(h.file), "keys")
	if err := os.WriteFile(file, []byte("orbit "+apikey.HashText(h.orbit)+" in_flight=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.reload("changed")
	one, two := h.client(true), h.client(true)
	h.stream(one, "/either", h.orbit)
	h.stream(two, "/either", h.orbit)
	if r := h.do("GET", "/either", "", map[string]string{"Authorization": "Bearer " + h.orbit}); r.StatusCode != 429 || r.reason() != "too_many_in_flight" {
		t.Errorf("a third request: %d %s", r.StatusCode, r.body)
	}
	h.stream(h.client(true), "/either", h.acme)
	one.CloseIdleConnections()
}

// TestAKeyWithoutPlacesTakesNoRateOfOthers: the attacker's key has no place left, and it repeats its
// request. The rate of the route, which the victim shares, feels nothing.
func TestAKeyWithoutPlacesTakesNoRateOfOthers(t *testing.T) {
	attacker, victim := apikey.New(), apikey.New()
	h := build(t, plan{handler: ticking, routes: `
  - {host: models.test, upstream: '%s', callers: apikey, rules: [{allow: "*"}], limits: {rate: {per: route, limit: 3/h}}}
`, more: unwatched + fmt.Sprintf("api_keys: {attacker: {hash: '%s', in_flight: 1}, victim: {hash: '%s'}}\n", apikey.HashText(attacker), apikey.HashText(victim))})
	h.stream(h.client(true), "/", attacker)
	for range 5 {
		if r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + attacker}); r.StatusCode != 429 || r.reason() != "too_many_in_flight" {
			t.Errorf("the attacker: %d %s", r.StatusCode, r.body)
		}
	}
	h.stream(h.client(true), "/", victim)
	h.stream(h.client(true), "/", victim)
	if r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + victim}); r.StatusCode != 429 || r.reason() != "rate_limited" {
		t.Errorf("over the route's rate: %d %s", r.StatusCode, r.body)
	}
}

// TestGRPCCallersWithAPIKeysGetStatuses calls over HTTP/2 with the key in the metadata that gRPC
// clients can set, and checks what their library would show.
func TestGRPCCallersWithAPIKeysGetStatuses(t *testing.T) {
	good, ended, slow := apikey.New(), apikey.New(), apikey.New()
	server := newGRPCServer(t)
	h := build(t, plan{routes: `
  - {host: models.test, path: /listed.Echo, upstream: tf, callers: apikey, rules: [{allow: "*"}]}
  - {host: models.test, path: /other.Echo, upstream: tf, callers: apikey/slow, rules: [{allow: "*", who: {group: nobody}}]}
  - {host: models.test, path: /tokens.Echo, upstream: tf, callers: issuer/corp, rules: [{allow: "*"}]}
`, more: fmt.Sprintf("upstreams: {tf: {grpc: 'h2c://%s'}}\napi_keys: {good: {hash: '%s'}, ended: {hash: '%s@2020-01-01'}, slow: {hash: '%s', rate: {limit: 1/h}}}\n",
		server.addr, apikey.HashText(good), apikey.HashText(ended), apikey.HashText(slow))})
	calls := int64(0)
	for _, c := range []struct {
		method, name, value string
		status, message     string
	}{
		{"/listed.Echo/Echo", "x-api-key", good, "0", ""},
		{"/listed.Echo/Echo", "api-key", good, "0", ""},
		{"/listed.Echo/Echo", "authorization", "Bearer " + good, "0", ""},
		{"/listed.Echo/Echo", "authorization", basicAuth("me", good), "0", ""},
		{"/listed.Echo/Echo", "x-api-key", apikey.New(), "16", "the API key is not valid"},
		{"/listed.Echo/Echo", "authorization", "Bearer " + good[:40], "16", "the API key is not valid"},
		{"/listed.Echo/Echo", "x-api-key", ended, "16", "the API key has expired"},
		{"/listed.Echo/Echo", "", "", "16", "a credential is required"},
		{"/other.Echo/Echo", "x-api-key", good, "16", "the API key is not valid"},
		{"/other.Echo/Echo", "x-api-key", slow, "7", "The caller is not allowed to do this."},
		{"/tokens.Echo/Echo", "authorization", "Bearer " + good, "16", "this kind of credential is not accepted here"},
		{"/listed.Echo/Echo", "x-api-key", slow, "0", ""},
		{"/listed.Echo/Echo", "x-api-key", slow, "8", "Too many requests."},
	} {
		more := []string{"Authorization", ""}
		if c.name != "" {
			more = append(more, c.name, c.value)
		}
		res, err := h.call(t.Context(), c.method, strings.NewReader(string(framedText("hello"))), more...)
		if err != nil {
			t.Fatal(err)
		}
		message := res.Header.Get("grpc-message")
		body, status := finish(t, res)
		if c.status == "0" {
			calls++
		}
		if res.StatusCode != 200 || status != c.status || message != c.message || (body != "") != (c.status == "0") {
			t.Errorf("%s with %s: HTTP %d, status %s %q, want %s %q", c.method, c.name, res.StatusCode, status, message, c.status, c.message)
		}
		if n := server.calls.Load(); n != calls {
			t.Fatalf("%s with %s: the server saw %d calls, want %d", c.method, c.name, n, calls)
		}
	}
}

// TestEndOfTheFirstKeyInTheFileIsAnnounced looks at the metric that stands for the whole file.
func TestEndOfTheFirstKeyInTheFileIsAnnounced(t *testing.T) {
	h := build(t, plan{more: "api_key_file: keys\n", routes: `
  - {host: models.test, upstream: '%s', callers: apikey, rules: [{allow: "*"}]}
`, files: map[string]string{"keys": fmt.Sprintf("a sha256:%064x not_after=2020-01-01\nb sha256:%064x not_after=2098-01-01\nc sha256:%064x@2097-01-01\n", 1, 2, 3)}})
	metrics := h.metrics()
	if want := `sallyport_not_after_timestamp_seconds{kind="api_key",name="api_key_file"} 4.0078368e+09`; !strings.Contains(metrics, want) {
		t.Errorf("the metrics lack %s", want)
	}
}
