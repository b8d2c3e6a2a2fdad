package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy"
)

// as returns the header with a token of a caller with these scopes and groups.
func (h *house) as(name string, scopes []string, groups ...string) map[string]string {
	h.t.Helper()
	claims := h.issuer.Claims(name, scopes...)
	if len(groups) > 0 {
		claims["groups"] = groups
	}
	token, err := h.issuer.Sign(claims)
	if err != nil {
		h.t.Fatal(err)
	}
	return map[string]string{"Authorization": "Bearer " + token}
}

var predict = []string{"models.predict"}

// chatWith asks a model whose name stands in the body.
func (h *house) chatWith(model string, who map[string]string) *reply {
	h.t.Helper()
	return h.do("POST", "/v1/chat/completions", `{"model":"`+model+`","messages":[]}`, who)
}

// wants checks the status and reason of an answer.
func (h *house) wants(r *reply, status int, reason string) {
	h.t.Helper()
	if r.StatusCode != status || r.reason() != reason {
		h.t.Errorf("got %d %s; want %d with reason %q", r.StatusCode, r.body, status, reason)
	}
}

// The attacker may use some models but not gold, and asks for gold again and again. The limits of gold
// and of the route, which the victim shares, do not feel it.
func TestCallerWithoutTheRightTakesNothingOfSharedLimits(t *testing.T) {
	h := build(t, plan{routes: `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules: [{allow: "*", models: cheap, who: {scope: models.predict}}, {allow: "*", models: "*", who: {scope: admin}}]
    limits: {rate: [{per: model, limit: 3/h}, {per: route, limit: 4/h}, {per: principal, limit: 9/h}]}
  - host: models.test
    path: /tf
    strip: /tf
    upstream: '%s'
    serves: tensorflow
    callers: issuer/corp
    rules: [{allow: "*", models: cheap, who: {scope: models.predict}}, {allow: "*", models: "*", who: {scope: admin}}]
    limits: {rate: [{per: model, limit: 3/h}, {per: route, limit: 4/h}, {per: principal, limit: 9/h}]}
`})
	attacker, victim := h.as("mallory", predict), h.as("alice", []string{"admin"})
	tf := func(model string, who map[string]string) *reply {
		return h.do("POST", "/tf/v1/models/"+model+":predict", `{"instances":[1]}`, who)
	}
	for name, ask := range map[string]func(string, map[string]string) *reply{"in the body": h.chatWith, "in the path": tf} {
		for range 8 {
			h.wants(ask("gold", attacker), 403, "insufficient_scope")
		}
		for i, want := range []int{200, 200, 200, 429} {
			if r := ask("gold", victim); r.StatusCode != want {
				t.Errorf("the model is named %s, request %d of the victim: %d %s, want %d", name, i, r.StatusCode, r.body, want)
			}
		}
		// The refused request has taken nothing of the route's four. The attacker's own are used up now.
		if r := ask("cheap", attacker); r.StatusCode != 200 {
			t.Errorf("the model is named %s, the route's fourth request: %d %s", name, r.StatusCode, r.body)
		}
		h.wants(ask("cheap", attacker), 429, "rate_limited")
		h.wants(ask("gold", attacker), 429, "rate_limited")
	}
	h.ended()
	for _, cause := range []string{`"cause":"over 3/h per model (limits.rate)"`, `"cause":"over 4/h per route (limits.rate)"`} {
		if !strings.Contains(h.audit.text(), cause) {
			t.Errorf("no record has %s", cause)
		}
	}
}

// The attacker asks for more models than a caller may begin to use. The victim's models have their own
// allowances, also after a reload.
func TestManyModelsOfOneCallerLeaveRoomForOthers(t *testing.T) {
	h := build(t, plan{more: unwatched, routes: `
  - host: models.test
    upstream: '%s'
    serves: tensorflow
    callers: issuer/corp
    rules: [{allow: "*", models: "*"}]
    limits: {rate: {per: model, limit: 1/h}}
`})
	client, allowed := h.client(true), 0
	ask := func(model string, who map[string]string) int {
		req, _ := http.NewRequest("GET", "https://models.test/v1/models/"+model, nil)
		req.Header.Set("Authorization", who["Authorization"])
		return h.send(client, req).StatusCode
	}
	attacker, victim := h.as("mallory", predict), h.as("alice", predict)
	for i := range 320 {
		if ask(fmt.Sprint("m", i), attacker) == 200 {
			allowed++
		}
	}
	if allowed > 257 {
		t.Errorf("the attacker used %d models, want at most 257", allowed)
	}
	for i := range 10 {
		if got := ask(fmt.Sprint("mine", i), victim); got != 200 {
			t.Errorf("model %d of the victim: %d", i, got)
		}
	}
	h.edit(unwatched, unwatched+"drain: 7s\n")
	h.reload("changed")
	if a, v := ask("m0", victim), ask("mine0", victim); a != 429 || v != 429 {
		t.Errorf("after a reload: %d and %d, want what was used to stay used", a, v)
	}
}

// Places in flight by caller and model come back however a request ends. The victim beside the attacker
// always has its own.
func TestPlacesInFlightComeBackOnEveryWayOut(t *testing.T) {
	var mode atomic.Value
	mode.Store("")
	entered := make(chan struct{}, 8)
	panics := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "fails.test:80" {
			panic("what no input may cause")
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	h := build(t, plan{audience: "models, groups: groups", options: proxy.Options{Dial: panics}, routes: `
  - {host: models.test, path: /fails, upstream: 'http://fails.test', callers: issuer/corp, rules: [{allow: "*"}], limits: {in_flight: [{per: principal, limit: 1}]}}
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules: [{allow: "*", models: ["*"], who: {scope: models.predict}}, {deny: "*", models: secret}]
    limits: {in_flight: [{per: [principal, model], limit: 1}, {per: group, groups: [a, b], limit: 2}]}
`, handler: func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "held") {
			_ = http.NewResponseController(w).Flush()
			entered <- struct{}{}
			<-r.Context().Done()
			return
		}
		switch mode.Load() {
		case "abort":
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "fail":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}})
	attacker, victim := h.as("mallory", predict), h.as("alice", predict)
	free := func(way, model string, who map[string]string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			if r := h.chatWith(model, who); r.StatusCode == 200 {
				return
			} else if r.StatusCode != 429 || time.Now().After(deadline) {
				t.Errorf("%s: the place did not come back: %d %s", way, r.StatusCode, r.body)
				return
			}
			time.Sleep(time.Millisecond) // the gateway learns of the client's end by itself
		}
	}
	for _, h2 := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", "https://models.test/v1/chat/completions", strings.NewReader(`{"model":"m","held":true}`))
		req.Header.Set("Authorization", attacker["Authorization"])
		done := make(chan struct{})
		go func() {
			defer close(done)
			if res, err := h.client(h2).Do(req); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		<-entered
		for range 3 {
			r := h.chatWith("m", attacker)
			h.wants(r, 429, "too_many_in_flight")
			if p, s := r.Header.Get("RateLimit-Policy"), r.Header.Get("RateLimit"); p != `"1 in flight per principal, model";q=1;qu="concurrent-requests"` || s != `"1 in flight per principal, model";r=0;t=1` || r.Header.Get("Retry-After") != "1" {
				t.Errorf("RateLimit-Policy: %s, RateLimit: %s, Retry-After: %s", p, s, r.Header.Get("Retry-After"))
			}
		}
		if r := h.chatWith("other", attacker); r.StatusCode != 200 {
			t.Errorf("another model: %d %s", r.StatusCode, r.body)
		}
		if r := h.chatWith("m", victim); r.StatusCode != 200 {
			t.Errorf("the victim: %d %s", r.StatusCode, r.body)
		}
		cancel()
		<-done
		free("a client that leaves", "m", attacker)
	}
	for _, way := range []string{"abort", "fail"} {
		mode.Store(way)
		req, _ := http.NewRequest("POST", "https://models.test/v1/chat/completions", strings.NewReader(`{"model":"m"}`))
		req.Header.Set("Authorization", attacker["Authorization"])
		if res, err := h.client(true).Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		mode.Store("")
		free("an upstream that does "+way, "m", attacker)
	}
	h.wants(h.chatWith("secret", attacker), 403, "forbidden")
	h.wants(h.chatWith("secret", attacker), 403, "forbidden")
	h.wants(h.do("POST", "/v1/chat/completions", `{"model":"m"`, attacker), 400, "bad_model")
	free("refused bodies", "m", attacker)

	for range 3 {
		h.wants(h.do("GET", "/fails", "", attacker), 500, "internal") // a panic of the gateway
	}

	// Each group that the caller is in counts it.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, groups := range [][]string{{"a"}, {"a", "b", "c"}} {
		req, _ := http.NewRequestWithContext(ctx, "POST", "https://models.test/v1/chat/completions", strings.NewReader(`{"model":"`+groups[len(groups)-1]+`","held":true}`))
		req.Header.Set("Authorization", h.as("mallory", predict, groups...)["Authorization"])
		go func() {
			if res, err := h.client(true).Do(req); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		<-entered
	}
	h.wants(h.chatWith("x", h.as("bob", predict, "a")), 429, "too_many_in_flight")
	if r := h.chatWith("x", h.as("bob", predict, "b")); r.StatusCode != 200 {
		t.Errorf("a member of b, which has one place left: %d %s", r.StatusCode, r.body)
	}
	if r := h.chatWith("x", victim); r.StatusCode != 200 {
		t.Errorf("a caller in no group: %d %s", r.StatusCode, r.body)
	}
}

// A body that servers could read in two ways does not evade a limit by model, although no rule is about
// models. Requests that no such entry covers may have any body.
func TestUnclearBodyDoesNotEvadeALimitByModel(t *testing.T) {
	h := build(t, plan{routes: `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules: [{allow: "*", models: "*"}]
    limits: {rate: {per: route, models: ["gold*"], verbs: [chat], limit: 1/h}}
`})
	if r := h.chatWith("gold-1", nil); r.StatusCode != 200 {
		t.Fatalf("the first request: %d %s", r.StatusCode, r.body)
	}
	h.model.hits.Store(0)
	h.refused(h.chatWith("gold-2", nil), 429, "rate_limited")
	for _, body := range []string{`{"model":"cheap","model":"gold-1"}`, `{"Model":"gold-1","model":"cheap"}`, `{"messages":[]}`, `{"model":"cheap"`} {
		h.refused(h.do("POST", "/v1/chat/completions", body, nil), 400, "bad_model")
	}
	h.refused(h.do("POST", "/v1/chat/completions", `{"model":"cheap"}`, map[string]string{"Content-Encoding": "gzip"}), 400, "bad_model")
	if r := h.chatWith("cheap", nil); r.StatusCode != 200 {
		t.Errorf("a model that no entry covers: %d %s", r.StatusCode, r.body)
	}
	if r := h.do("POST", "/v1/embeddings", `{"model":"gold-1","model":"cheap"}`, nil); r.StatusCode != 200 {
		t.Errorf("a verb that no entry covers: %d %s", r.StatusCode, r.body)
	}
}

// A proxy that asks for a decision keeps the body, so a limit by the model in it could be evaded.
func TestDecisionForAnotherProxyDoesNotEvadeALimitByModel(t *testing.T) {
	h := asked(t, "traefik", `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    rules: [{allow: "*", models: "*"}]
    limits: {rate: {per: route, models: ["gold*"], verbs: [chat], limit: 1/h}}
`)
	ask := func(method, path string) *reply {
		return h.askAs(append(told("traefik", method, "models.test", path), "Authorization: Bearer TOKEN")...)
	}
	h.wants(ask("POST", "/v1/chat/completions"), 403, "not_for_another_proxy")
	for _, r := range []*reply{ask("POST", "/v1/embeddings"), ask("GET", "/v1/models")} {
		if r.StatusCode != 200 {
			t.Errorf("a request that no entry covers: %d %s", r.StatusCode, r.body)
		}
	}
}

// Only the gateway tells what is left, and it tells the nearest limit.
func TestAnswersTellWhatIsLeft(t *testing.T) {
	h := build(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], limits: {headers: true, rate: [{per: principal, limit: 3/h, name: mine}, {per: route, limit: 1000/s}]}}
  - {host: models.test, path: /quiet, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], limits: {rate: {per: principal, limit: 2/m}}}
  - {host: models.test, path: /free, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`, handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit", `"theirs";r=999`)
		w.Header().Set("RateLimit-Policy", `"theirs";q=999`)
		w.Header().Set("Trailer", "RateLimit")
		_, _ = io.WriteString(w, "text")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set(http.TrailerPrefix+"RateLimit", `"theirs";r=999`)
	}})
	fields := func(r *reply) string {
		return r.Header.Get("RateLimit-Policy") + " " + r.Header.Get("RateLimit") + fmt.Sprint(len(r.Header["Ratelimit"]), len(r.Header["Ratelimit-Policy"]), len(r.Trailer["Ratelimit"]))
	}
	for i, want := range []string{`"mine";q=3;w=3600 "mine";r=2;t=1200`, `"mine";q=3;w=3600 "mine";r=1;t=1200`, `"mine";q=3;w=3600 "mine";r=0;t=1`} {
		if r := h.do("GET", "/", "", nil); r.StatusCode != 200 || !strings.HasPrefix(fields(r), want) || !strings.HasSuffix(fields(r), "1 1 0") {
			t.Errorf("request %d: %d %s, want %s", i, r.StatusCode, fields(r), want)
		}
	}
	r := h.do("GET", "/", "", nil)
	h.wants(r, 429, "rate_limited")
	if want := `"mine";q=3;w=3600 "mine";r=0;t=` + r.Header.Get("Retry-After") + "1 1 0"; fields(r) != want {
		t.Errorf("the refusal: %s, want %s", fields(r), want)
	}
	for range 2 {
		if r := h.do("GET", "/quiet", "", nil); r.StatusCode != 200 || fields(r) != " 0 0 0" {
			t.Errorf("without limits.headers: %d %s", r.StatusCode, fields(r))
		}
	}
	r = h.do("GET", "/quiet", "", nil)
	if want := `"2/m per principal";q=2;w=60 "2/m per principal";r=0;t=` + r.Header.Get("Retry-After") + "1 1 0"; r.StatusCode != 429 || fields(r) != want {
		t.Errorf("a refusal without limits.headers: %d %s, want %s", r.StatusCode, fields(r), want)
	}
	if r := h.do("GET", "/free", "", nil); !strings.HasPrefix(fields(r), `"theirs";q=999 "theirs";r=999`) {
		t.Errorf("a route without limits: %s, want the upstream's", fields(r))
	}
}

// A call over the rate ends with RESOURCE_EXHAUSTED, and tells programs and client libraries when to try
// again. The victim is not touched.
func TestCallOverTheRateTellsWhenToRetry(t *testing.T) {
	s := newGRPCServer(t)
	h := build(t, plan{more: `upstreams: {tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}}`, routes: `
  - {host: models.test, upstream: tf, callers: issuer/corp, rules: [{allow: metadata, models: "*"}], limits: {rate: {per: [principal, verb], verbs: [metadata], limit: 1/h}}}
`})
	const method = "/grpc.health.v1.Health/Check"
	call := func(token string) *http.Response {
		res, err := h.call(t.Context(), method, strings.NewReader(string(framedText(""))), "Authorization", token)
		if err != nil {
			t.Fatal(err)
		}
		finish(t, res)
		return res
	}
	attacker, victim := h.as("mallory", predict)["Authorization"], h.as("alice", predict)["Authorization"]
	call(attacker)
	before := s.calls.Load()
	for range 3 {
		res := call(attacker)
		if got := res.Header.Get("grpc-status"); got != "8" || res.Header.Get("grpc-retry-pushback-ms") != "-1" || res.Header.Get("ratelimit-policy") != `"1/h per principal, verb";q=1;w=3600` {
			t.Fatalf("got status %s, fields %v", got, res.Header)
		}
		got, _, _, info := statusOf(t, res.Header)
		if wait := info.GetRetryDelay().AsDuration(); wait < 50*time.Minute || wait > time.Hour {
			t.Errorf("the details are %v", got)
		}
	}
	if n := s.calls.Load(); n != before {
		t.Errorf("%d refused calls came to the server", n-before)
	}
	if got := call(victim).Header.Get("grpc-status"); got == "8" {
		t.Error("the victim was refused")
	}
}

// named is a message in which field 1 is the name of a model, as ModelInferRequest.
func namedMessage(model string) string {
	return string(framedText("\x0a" + string(rune(len(model))) + model))
}

// A stream is one request for the model that it asks, and another one when it turns to another model. So
// neither many messages nor a first message about a cheap model evade the limit of gold. A victim on the
// same route has its own allowance.
func TestStreamCountsForEachModelThatItTurnsTo(t *testing.T) {
	s := newGRPCServer(t)
	h := build(t, plan{more: `upstreams: {triton: {serves: triton, grpc: "h2c://` + s.addr + `"}}`, routes: `
  - host: models.test
    upstream: triton
    callers: issuer/corp
    rules: [{allow: "*", models: "*"}]
    limits: {rate: [{per: principal, models: gold, limit: 2/h}, {per: principal, limit: 1000/h}], in_flight: [{per: [principal, model], limit: 1}]}
`})
	const method = "/inference.GRPCInferenceService/ModelStreamInfer"
	attacker, victim := h.as("mallory", predict)["Authorization"], h.as("alice", predict)["Authorization"]
	call := func(token string, models ...string) (status string) {
		t.Helper()
		var body strings.Builder
		for _, m := range models {
			body.WriteString(namedMessage(m))
		}
		res, err := h.call(t.Context(), method, strings.NewReader(body.String()), "Authorization", token)
		if err != nil {
			t.Fatal(err)
		}
		_, status = finish(t, res)
		return status
	}
	for i, tt := range []struct {
		models []string
		want   string
	}{
		{[]string{"gold", "gold", "gold", "gold"}, "0"},
		{[]string{"cheap", "gold", "gold", "cheap", "cheap"}, "0"}, // the second for gold
		{[]string{"cheap", "cheap"}, "0"},
		{[]string{"cheap", "gold"}, "8"},
		{[]string{"gold"}, "8"},
		{[]string{"cheap", "other", "cheap"}, "0"}, // the place of each was given back
	} {
		if got := call(attacker, tt.models...); got != tt.want {
			t.Errorf("stream %d, %v: status %s, want %s", i, tt.models, got, tt.want)
		}
	}
	if got := call(victim, "gold", "gold"); got != "0" {
		t.Errorf("the victim: status %s", got)
	}
}
