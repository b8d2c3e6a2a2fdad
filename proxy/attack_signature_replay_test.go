package proxy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

// signatures is the part of /readyz about signed requests.
func (h *house) signatures() (s struct {
	Remembered  int
	MemoryUsed  int64 `json:"memory_used"`
	MemoryTotal int64 `json:"memory_total"`
}) {
	h.t.Helper()
	var ready struct{ Signatures any }
	ready.Signatures = &s
	if err := json.Unmarshal([]byte(h.get("/readyz")), &ready); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func TestReplaysAreRefused(t *testing.T) {
	h := signed(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: key, rules: [{allow: "*"}]}
`})
	n := int64(0)
	for _, first := range []struct {
		name string
		send func(h *house, e *errand) *reply
	}{
		{"HTTP/1.1", func(h *house, e *errand) *reply { return h.parse(h.tell(e.raw()), e.method) }},
		{"HTTP/2", func(h *house, e *errand) *reply { return h.send(h.client(true), e.request(h.t)) }},
	} {
		for _, key := range []*httpsig.Key{keyOf("acme-1"), edKey("orbit-ed")} {
			t.Run(fmt.Sprintf("%s, %s", first.name, key.Algorithm()), func(t *testing.T) {
				h := h.in(t)
				e := errand{key: key}.signed(t)
				n++
				h.passed(first.send(h, e), n)
				label := *e
				label.input, label.signature = strings.Replace(e.input, "sp=", "other=", 1), strings.Replace(e.signature, "sp=", "other=", 1)
				more := *e
				more.fields = append(e.fields[:len(e.fields):len(e.fields)], httpsig.Line{Name: "X-More", Value: "1"})
				beside := *e
				beside.input, beside.signature = `a=();tag="x", `+e.input, "a=:AA==:, "+e.signature
				spaces := *e
				spaces.input = strings.Replace(e.input, `" "`, `"   "`, 1)
				for name, again := range map[string]*errand{"as it was": e, "another label": &label, "another field": &more, "a foreign signature beside": &beside, "other spaces": &spaces} {
					for h2, r := range map[bool]*reply{
						false: h.parse(h.tell(again.raw()), "POST"),
						true:  h.send(h.client(true), again.request(t)),
					} {
						if r.StatusCode != 401 || r.reason() != "replayed" {
							t.Errorf("%s (HTTP/2: %v): got %d %s", name, h2, r.StatusCode, r.body)
						}
						if h2 || name == "as it was" {
							h.challenged(r)
						}
					}
				}
				if got := h.model.hits.Load(); got != n {
					t.Errorf("the upstream saw %d requests; want %d", got, n)
				}
			})
		}
	}
	t.Run("on the same connection", func(t *testing.T) {
		h := h.in(t)
		e := errand{}.signed(t)
		once := strings.Replace(e.raw(), "Connection: close\r\n", "", 1)
		n++
		if got := statuses(h.tell(once + e.raw())); got != "200 401" || h.model.hits.Load() != n {
			t.Errorf("got %s", got)
		}
	})
	t.Run("another body", func(t *testing.T) {
		h := h.in(t)
		e := errand{}.signed(t)
		n++
		h.passed(h.sendErrand(e), n)
		other := *e
		other.body = `{"instances": [2.0]}`
		h.stillRefused(h.sendErrand(&other), 401, "replayed", n)
	})
	t.Run("an answer to a replay is bound to it", func(t *testing.T) {
		h := h.in(t)
		e := errand{}.signed(t)
		n++
		h.passed(h.sendErrand(e), n)
		h.vouched(e, h.sendErrand(e), keyOf("acme-1"))
	})
}

// TestOneOfManyConcurrentReplaysPasses sends one request many times concurrently.
func TestOneOfManyConcurrentReplaysPasses(t *testing.T) {
	const times = 24
	h := signed(t, plan{})
	for round := range 4 {
		e := errand{}.signed(t)
		clients := []*http.Client{h.client(false), h.client(true)}
		var passed, replayed atomic.Int64
		var all sync.WaitGroup
		for i := range times {
			all.Go(func() {
				res, err := clients[i%2].Do(e.request(t))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				r := reply{res, string(body)}
				switch {
				case res.StatusCode == 200:
					passed.Add(1)
				case res.StatusCode == 401 && r.reason() == "replayed":
					replayed.Add(1)
				default:
					t.Errorf("got %d %s", res.StatusCode, body)
				}
			})
		}
		all.Wait()
		if passed.Load() != 1 || replayed.Load() != times-1 || h.model.hits.Load() != int64(round+1) {
			t.Errorf("%d passed, %d were replays, the upstream saw %d; want 1, %d, %d", passed.Load(), replayed.Load(), h.model.hits.Load(), times-1, round+1)
		}
	}
}

// TestSignatureIsTheReplayKeyWithoutANonce treats equal requests within one second as replays.
func TestSignatureIsTheReplayKeyWithoutANonce(t *testing.T) {
	h := signed(t, plan{})
	bare := params(usualIdentifiers, "")
	h.refused(h.sendErrand(errand{params: bare}.signed(t)), 401, "malformed")
	e := errand{params: strings.Replace(bare, "acme-1", "plain-1", 1)}.signed(t)
	base, err := httpsig.Base(e.message(), strings.TrimPrefix(e.input, "sp="))
	if err != nil {
		t.Fatal(err)
	}
	e.signature = "sp=:" + base64Of(macOf("plain-1", base)) + ":"
	h.passed(h.sendErrand(e), 1)
	h.stillRefused(h.sendErrand(e), 401, "replayed", 1)
}

// TestRefusedRequestUsesUpNoNonce refuses requests for reasons that must not use up the nonce, and
// checks that they are accepted afterwards.
func TestRefusedRequestUsesUpNoNonce(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 8)
	h := signed(t, plan{
		handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				held <- struct{}{}
				<-hold
			}
		},
		routes: `
  - {host: models.test, upstream: '%s', callers: key, rules: [{allow: "*", who: {principal: "key:acme"}}]}
  - {host: models.test, path: /rate, upstream: '%s', callers: key, rules: [{allow: "*"}], limits: {rate: {per: principal, limit: 1/h, burst: 1}}}
  - {host: models.test, path: /slow, upstream: '%s', callers: key, rules: [{allow: "*"}], limits: {in_flight: 1}}
  - {host: models.test, path: /small, upstream: '%s', callers: key, rules: [{allow: "*"}], integrity: {buffer: 1KiB}}
  - {host: models.test, path: /token, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`})
	t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-hold:
		default:
			close(hold)
		}
	}))
	remembered := func(h *house, want int) {
		h.t.Helper()
		if got := h.signatures().Remembered; got != want {
			h.t.Errorf("%d signatures are remembered; want %d", got, want)
		}
	}
	ask := func(h *house, e errand, status int, reason string) *errand {
		h.t.Helper()
		made := e.signed(h.t)
		r := h.sendErrand(made)
		if r.StatusCode != status || r.reason() != reason {
			h.t.Errorf("got %d %s; want %d %s", r.StatusCode, r.body, status, reason)
		}
		return made
	}
	t.Run("by forgers and by nobody", func(t *testing.T) {
		h := h.in(t)
		for range 20 {
			ask(h, errand{key: mustKey("acme-1", "wrong")}, 401, "bad_signature")
			ask(h, errand{key: keyOf("nobody-1")}, 401, "bad_signature")
			ask(h, errand{at: -time.Hour}, 401, "stale")
		}
		remembered(h, 0)
		h.untouched()
	})
	t.Run("by a forged request with the same nonce", func(t *testing.T) {
		h := h.in(t)
		e := errand{}.signed(t)
		ask(h, errand{key: mustKey("acme-1", "wrong"), nonce: e.nonce}, 401, "bad_signature")
		if r := h.sendErrand(e); r.StatusCode != 200 {
			t.Errorf("got %d %s", r.StatusCode, r.body)
		}
		remembered(h, 1)
	})
	t.Run("by another key with the same nonce", func(t *testing.T) {
		h := h.in(t)
		e := errand{key: keyOf("acme-2")}.signed(t)
		ask(h, errand{nonce: e.nonce}, 200, "")
		if r := h.sendErrand(e); r.StatusCode != 200 {
			t.Errorf("got %d %s", r.StatusCode, r.body)
		}
		remembered(h, 3)
	})
	t.Run("by 403", func(t *testing.T) {
		h := h.in(t)
		ask(h, errand{key: keyOf("orbit-1")}, 403, "forbidden")
		remembered(h, 3)
	})
	t.Run("where no signatures are taken", func(t *testing.T) {
		h := h.in(t)
		ask(h, errand{target: "/token"}, 401, "unlisted_credential")
		remembered(h, 3)
	})
	t.Run("by 413", func(t *testing.T) {
		h := h.in(t)
		e := ask(h, errand{method: "POST", target: "/small", body: strings.Repeat("a", 2000)}, 413, "body_too_large")
		remembered(h, 3)
		r := h.sendErrand(e)
		if r.StatusCode != 413 {
			t.Errorf("the same again: %d %s", r.StatusCode, r.body)
		}
		h.vouched(e, r, keyOf("acme-1"))
	})
	t.Run("by 429 for the rate", func(t *testing.T) {
		h := h.in(t)
		ask(h, errand{target: "/rate"}, 200, "")
		ask(h, errand{target: "/rate"}, 429, "rate_limited")
		remembered(h, 4)
	})
	t.Run("by 429 for a place", func(t *testing.T) {
		h := h.in(t)
		first := make(chan int, 1)
		c, req := h.client(false), errand{target: "/slow"}.signed(t).request(t)
		go func() {
			res, err := c.Do(req)
			if err != nil {
				first <- 0
				return
			}
			res.Body.Close()
			first <- res.StatusCode
		}()
		<-held
		e := ask(h, errand{target: "/slow"}, 429, "too_many_in_flight")
		remembered(h, 5)
		close(hold)
		if got := <-first; got != 200 {
			t.Fatalf("the first got %d", got)
		}
		eventually(t, "the place is free", func() bool {
			r := h.sendErrand(e)
			return r.StatusCode == 200 || r.StatusCode != 429 && t.Failed()
		})
		remembered(h, 6)
	})
}

// TestFullNonceStoreForgetsNoNonce fills the share of a key. Further requests are refused, and used
// nonces stay used.
func TestFullNonceStoreForgetsNoNonce(t *testing.T) {
	h := signed(t, plan{more: "integrity: {nonces: 3000, nonces_per_key: 1000}\n"})
	c := h.client(false)
	first := errand{method: "GET"}.signed(t)
	h.passed(h.send(c, first.request(t)), 1)
	for n := int64(2); n <= 1000; n++ {
		h.passed(h.send(c, errand{method: "GET"}.signed(t).request(t)), n)
	}
	e := errand{method: "GET"}.signed(t)
	r := h.send(c, e.request(t))
	h.stillRefused(r, 503, "replay_full", 1000)
	if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || s < 1 {
		t.Errorf("Retry-After: %s", r.Header.Get("Retry-After"))
	}
	h.vouched(e, r, keyOf("acme-1"))
	h.stillRefused(h.send(c, first.request(t)), 401, "replayed", 1000)
	h.passed(h.send(c, errand{method: "GET", key: keyOf("acme-2")}.signed(t).request(t)), 1001)
}

// shiftedClock is a gateway clock that is ahead of the test's.
type shiftedClock struct{ ahead atomic.Int64 }

func (c *shiftedClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// TestReplayIsRefusedAfterRestartAndCrash replays after a planned stop, after a crash, and after a
// crash that damages the file.
func TestReplayIsRefusedAfterRestartAndCrash(t *testing.T) {
	clock := &shiftedClock{}
	h := signed(t, plan{
		options: proxy.Options{Now: clock.now},
		routes: signedRoute + `
  - {host: models.test, path: /token, upstream: '%s', callers: [issuer/corp, key/acme], rules: [{allow: "*"}]}
`})
	state := filepath.Join(filepath.Dir(h.file), noNonces)
	stop := func() {
		t.Helper()
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
	}
	e := errand{}.signed(t)
	h.passed(h.sendErrand(e), 1)
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the state is there while the gateway runs: %v", err)
	}

	stop()
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("after a planned stop: %v, %v", info, err)
	}
	left, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	mustNotHold(t, "the state", string(left), "acme-1", "acme-2")
	h.restart()
	h.stillRefused(h.sendErrand(e), 401, "replayed", 1)
	h.passed(h.sendErrand(errand{}.signed(t)), 2)

	for _, crash := range []func() error{
		func() error { return os.Remove(state) },
		func() error { return os.WriteFile(state, left[:len(left)-1], 0o600) },
	} {
		stop()
		if err := crash(); err != nil {
			t.Fatal(err)
		}
		h.restart()
		n := h.model.hits.Load()
		for _, replay := range []*errand{e, errand{}.signed(t), errand{at: clockShift(clock) + 15*time.Second}.signed(t)} {
			r := h.sendErrand(replay)
			h.stillRefused(r, 503, "replay_window", n)
			if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || s < 1 || s > 32 {
				t.Errorf("Retry-After: %q", r.Header.Get("Retry-After"))
			}
			h.vouched(replay, r, keyOf("acme-1"))
		}
		if r := h.do("POST", "/token", usualBody, nil); r.StatusCode != 200 {
			t.Errorf("a token in the window: %d %s", r.StatusCode, r.body)
		}
		n = h.model.hits.Load()
		late := errand{at: clockShift(clock)}.signed(t) // signed within the window, sent after it
		clock.ahead.Add(int64(32 * time.Second))
		h.stillRefused(h.sendErrand(late), 503, "replay_window", n)
		h.passed(h.sendErrand(errand{at: clockShift(clock)}.signed(t)), n+1)
	}
}

func clockShift(c *shiftedClock) time.Duration { return time.Duration(c.ahead.Load()) }

// TestStartWithoutAStateFileIsUnclean treats each such start as one after a crash.
func TestStartWithoutAStateFileIsUnclean(t *testing.T) {
	h := signed(t, plan{more: "integrity: {state: off}\n"})
	h.refused(h.sendErrand(errand{}.signed(t)), 503, "replay_window")
}

// TestStateFileThatOthersWriteIsRefused: whoever can write the file can delete nonces.
func TestStateFileThatOthersWriteIsRefused(t *testing.T) {
	h := signed(t, plan{})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(h.file), noNonces), 0o666); err != nil {
		t.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(h.file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.New(cfg, proxy.Options{}); err == nil || !strings.Contains(err.Error(), "integrity.state") {
		t.Errorf("New: %v", err)
	}
}
