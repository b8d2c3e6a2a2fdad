package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
)

// edit replaces texts of gateway.yaml, given as pairs of old and new.
func (h *house) edit(pairs ...string) {
	h.t.Helper()
	text, err := os.ReadFile(h.file)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			h.t.Fatalf("gateway.yaml has no %q:\n%s", pairs[i], text)
		}
	}
	if err := os.WriteFile(h.file, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// reload reloads and checks the result.
func (h *house) reload(want string) proxy.ReloadReport {
	h.t.Helper()
	r := h.gateway.Reload(h.t.Context())
	if string(r.Result) != want {
		h.t.Fatalf("the reload was %s: %s\n%v; want %s", r.Result, r.Summary, r.Faults, want)
	}
	h.addrs = h.gateway.Addrs()
	return r
}

// unwatched turns off watching, so that only the test reloads.
const unwatched = "reload: {watch: false}\n"

// get sends a request on a keep-alive connection.
func get(t *testing.T, c *http.Client, token string) (status int) {
	t.Helper()
	req, _ := http.NewRequest("GET", "https://models.test/", nil)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func TestReloadHoldsForTheNextRequestOfAnOpenConnection(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			h := build(t, plan{more: unwatched})
			c, token := h.client(h2), h.token()
			if status := get(t, c, token); status != 200 {
				t.Fatalf("before the reload: %d", status)
			}
			h.edit("models.predict", "models.admin")
			r := h.reload("changed")
			if !strings.Contains(r.Summary, "1 route changed") || len(r.Changes) != 1 || r.From == r.To {
				t.Errorf("report %+v", r)
			}
			h.model.hits.Store(0)
			if status := get(t, c, token); status != 403 {
				t.Errorf("after a reload that takes the right away: %d", status)
			}
			h.untouched()
			h.edit("models.admin", "models.predict")
			h.reload("changed")
			if status := get(t, c, token); status != 200 {
				t.Errorf("after a reload that gives it back: %d", status)
			}
		})
	}
}

func TestReloadOfABrokenFileChangesNothing(t *testing.T) {
	h := build(t, plan{more: unwatched})
	good, _ := os.ReadFile(h.file)
	for name, text := range map[string]string{
		"empty":         "",
		"half a file":   string(good[:len(good)/2]),
		"not YAML":      "\x00\x01{{{",
		"unknown field": string(good) + "nonsense: true\n",
		"no CA file":    strings.Replace(string(good), "audience: models", "audience: models, ca: none.pem", 1),
		"two faults":    strings.NewReplacer("callers: issuer/corp", "callers: issuer/none", "upstream: ", "upstream: ftp://x #").Replace(string(good)),
	} {
		if err := os.WriteFile(h.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := h.reload("refused")
		if len(r.Faults) == 0 || r.Faults[0].File == "" || r.From != r.To {
			t.Errorf("%s: report %+v", name, r)
		}
		if name == "two faults" && len(r.Faults) < 2 {
			t.Errorf("of two faults the report has %v", r.Faults)
		}
		if got := h.do("GET", "/", "", nil); got.StatusCode != 200 {
			t.Errorf("%s: the old configuration answers %d", name, got.StatusCode)
		}
	}
	if err := os.Remove(h.file); err != nil {
		t.Fatal(err)
	}
	h.reload("refused")
	if err := os.WriteFile(h.file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.reload("unchanged"); !strings.HasPrefix(r.Summary, "nothing changed: ") {
		t.Errorf("report %+v", r)
	}
	if err := os.WriteFile(h.file, append(good, "# a comment\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.reload("changed"); !strings.Contains(r.Summary, "comments") {
		t.Errorf("report %+v", r)
	}
}

func TestReloadKeepsUnchangedState(t *testing.T) {
	h := build(t, plan{more: unwatched, routes: `
  - host: models.test
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", who: {scope: models.predict}}]
    limits: {rate: {per: principal, limit: 3/h}}
  - {host: models.test, path: /other, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`})
	c, token := h.client(false), h.token()
	for i, want := range []int{200, 200} {
		if status := get(t, c, token); status != want {
			t.Fatalf("request %d: %d", i, status)
		}
	}
	// The issuer is down now: its cached keys must suffice.
	h.edit("path: /other", "path: /another")
	h.reload("changed")
	if status := get(t, c, token); status != 200 {
		t.Errorf("with a token from before the reload: %d", status)
	}
	if status := get(t, c, token); status != 429 {
		t.Errorf("the fourth request of an hour, across a reload: %d; want 429", status)
	}
}

func TestReloadRefusesTokensOfAnIssuerThatChanged(t *testing.T) {
	for name, change := range map[string][2]string{
		"another audience":  {"audience: models}", "audience: other}"},
		"a required claim":  {"audience: models}", "audience: models, require: {tenant: a}}"},
		"another principal": {"audience: models}", "audience: models, principal: azp}"},
		"an issuer removed": {"callers: issuer/corp", "callers: issuer/second"},
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t, plan{more: unwatched, issuers: "  second: {url: 'https://second.test', audience: models}"})
			c, token := h.client(true), h.token()
			for range 2 {
				if status := get(t, c, token); status != 200 {
					t.Fatalf("before: %d", status)
				}
			}
			h.edit(change[0], change[1])
			h.reload("changed")
			h.model.hits.Store(0)
			if status := get(t, c, token); status != 401 {
				t.Errorf("a token from the cache: %d; want 401", status)
			}
			h.untouched()
		})
	}
}

// ticking is a model server that streams until its client leaves.
func ticking(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for r.Context().Err() == nil {
		_, _ = io.WriteString(w, "data: tick\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stream opens an event stream and reads its first event.
func (h *house) stream(c *http.Client, path, token string) *bufio.Reader {
	h.t.Helper()
	req, _ := http.NewRequest("GET", "https://models.test"+path, nil)
	req.Header.Set("Authorization", "Bearer "+token)
	return h.streamOf(c, req)
}

// streamOf is stream for a request that the caller makes.
func (h *house) streamOf(c *http.Client, req *http.Request) *bufio.Reader {
	h.t.Helper()
	res, err := c.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { res.Body.Close() })
	r := bufio.NewReader(res.Body)
	if line, err := r.ReadString('\n'); line != "data: tick\n" {
		h.t.Fatalf("%d %q %v", res.StatusCode, line, err)
	}
	return r
}

func TestReloadCutsStreamsOfCallersThatItRefuses(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			h := build(t, plan{more: unwatched, handler: ticking})
			claims := h.issuer.Claims("bob", "models.predict")
			bob, err := h.issuer.Sign(claims)
			if err != nil {
				t.Fatal(err)
			}
			c := h.client(h2)
			refused, kept := h.stream(c, "/", bob), h.stream(c, "/", h.token())
			h.edit(`rules: [{allow`, `rules: [{deny: "*", who: {principal: issuer/corp:bob}}, {allow`)
			h.reload("changed")
			if _, err := io.Copy(io.Discard, refused); err == nil {
				t.Error("the stream of a caller who lost the right ended cleanly; want it cut")
			}
			for range 10 {
				if _, err := kept.ReadString('\n'); err != nil {
					t.Fatalf("the stream of another caller: %v", err)
				}
			}
			record := h.recordOf("issuer/corp:bob")
			if record["reason"] != "withdrawn_in_stream" {
				t.Errorf("record %v", record)
			}
		})
	}
}

// recordOf waits for the record of a caller's request.
func (h *house) recordOf(principal string) map[string]any {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, r := range h.audit.records(h.t) {
			if r["principal"] == principal {
				return r
			}
		}
	}
	h.t.Fatalf("no record of %s", principal)
	return nil
}

func TestReloadCutsTunnelsThatItRefuses(t *testing.T) {
	held := make(chan struct{})
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n", more: unwatched, handler: func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
		close(held)
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}})
	got := make(chan string, 1)
	c := h.dial("models.test")
	go func() {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+h.token()+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsKey+"\r\n\r\n")
		all, _ := io.ReadAll(c)
		got <- string(all)
	}()
	<-held
	h.edit("    websocket: true\n", "")
	h.reload("changed")
	if text := <-got; !strings.HasPrefix(text, "HTTP/1.1 101 ") {
		t.Errorf("got %q", text)
	}
	if record := h.recordOf("issuer/corp:alice"); record["reason"] != "withdrawn_in_stream" {
		t.Errorf("record %v", record)
	}
}

func TestReplacedConfigurationEndsWithItsGracePeriod(t *testing.T) {
	h := build(t, plan{more: unwatched + "drain: 50ms\n", handler: ticking})
	kept := h.stream(h.client(false), "/", h.token())
	h.edit("drain: 50ms", "drain: 60ms")
	h.reload("changed")
	if _, err := io.Copy(io.Discard, kept); err == nil {
		t.Error("the stream ended cleanly; want it cut")
	}
	if record := h.recordOf("issuer/corp:alice"); record["reason"] != "configuration_replaced" {
		t.Errorf("record %v", record)
	}
}

func TestReloadOpensAndClosesListeners(t *testing.T) {
	h := build(t, plan{more: unwatched})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := free.Addr().String()
	free.Close()
	c, token := h.client(false), h.token()
	if status := get(t, c, token); status != 200 {
		t.Fatal(status)
	}
	first := h.addrs.HTTPS[0].String()
	h.edit("https: '127.0.0.1:0'", "https: '"+second+"'")
	h.reload("changed")
	if got := h.addrs.HTTPS[0].String(); got != second {
		t.Errorf("listens on %s; want %s", got, second)
	}
	if conn, err := net.Dial("tcp", first); err == nil {
		conn.Close()
		t.Error("the address that the file names no more takes connections")
	}
	if status := get(t, c, token); status != 200 {
		t.Errorf("on a connection of the closed listener: %d", status)
	}
	if status := get(t, h.client(true), token); status != 200 {
		t.Errorf("on the new listener: %d", status)
	}
	// The address is in use: nothing changes.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h.edit("https: '"+second+"'", "https: ['"+second+"', '"+taken.Addr().String()+"']")
	if r := h.reload("refused"); !strings.Contains(r.Summary, "listen.https") {
		t.Errorf("report %+v", r)
	}
	if status := get(t, h.client(false), token); status != 200 {
		t.Errorf("after a reload that could not listen: %d", status)
	}
}

// The health listener moves, goes and comes back, and the gateway serves on.
func TestReloadMovesTheHealthListener(t *testing.T) {
	h := build(t, plan{more: unwatched})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := "health: '" + free.Addr().String() + "'"
	free.Close()
	c, token := h.client(false), h.token()
	for _, edit := range [][2]string{{"health: '127.0.0.1:0'", second}, {second, "health: off"}, {"health: off", "health: '127.0.0.1:0'"}} {
		h.edit(edit[0], edit[1])
		h.reload("changed")
		if status := get(t, c, token); status != 200 {
			t.Fatalf("%s: %d", edit[1], status)
		}
		if edit[1] == "health: off" {
			continue
		}
		answer, err := http.Get("http://" + h.addrs.Health.String() + "/readyz")
		if err != nil {
			t.Fatalf("%s: %v", edit[1], err)
		}
		answer.Body.Close()
		if answer.StatusCode != 200 {
			t.Errorf("%s: %d", edit[1], answer.StatusCode)
		}
	}
}

func TestReloadRefusesSettingsFixedWhileRunning(t *testing.T) {
	h := signed(t, plan{more: unwatched})
	h.edit("reload: {watch: false}", "reload: {watch: false}\nintegrity: {state: other-nonces}")
	if r := h.reload("refused"); len(r.Faults) != 1 || !strings.Contains(r.Faults[0].Cure, "restart") {
		t.Errorf("report %+v", r)
	}
}

func TestReplayIsRefusedAcrossAReload(t *testing.T) {
	h := signed(t, plan{more: unwatched})
	e := errand{}.signed(t)
	if got := h.sendErrand(e); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	h.model.hits.Store(0)
	h.edit("callers: key/acme", "callers: [key/acme, key/orbit]")
	h.reload("changed")
	h.refused(h.sendErrand(e), 401, "replayed")
	if got := h.sendErrand(errand{}.signed(t)); got.StatusCode != 200 {
		t.Errorf("a fresh one: got %d %s", got.StatusCode, got.body)
	}
}

// A withdrawn key is refused from the swap on, and so is one whose secret has changed.
func TestReloadReadsKeysAgain(t *testing.T) {
	h := signed(t, plan{more: unwatched})
	if got := h.sendErrand(errand{}.signed(t)); got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	h.model.hits.Store(0)
	file := filepath.Join(filepath.Dir(h.file), "acme-1.key")
	if err := os.WriteFile(file, []byte(base64Of(secretOf("another"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.reload("changed"); !strings.Contains(r.Summary, "signing key") {
		t.Errorf("report %+v", r)
	}
	h.refused(h.sendErrand(errand{}.signed(t)), 401, "bad_signature")
}

func TestChangedFilesReload(t *testing.T) {
	h := build(t, plan{})
	token := h.token()
	h.edit("models.predict", "models.admin")
	h.until("the changed rule holds", func() bool { return get(t, h.client(false), token) == 403 })
	// Replace the file by another, as editors and deployments do.
	text, _ := os.ReadFile(h.file)
	next := filepath.Join(filepath.Dir(h.file), "next.yaml")
	if err := os.WriteFile(next, []byte(strings.ReplaceAll(string(text), "models.admin", "models.predict")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, h.file); err != nil {
		t.Fatal(err)
	}
	h.until("the renamed file holds", func() bool { return get(t, h.client(false), token) == 200 })
}

// TestReloadTellsWhoWasFaster reloads what is already loaded, as an operator does who is slower than
// the file watcher.
func TestReloadTellsWhoWasFaster(t *testing.T) {
	same := func(h *house, want ...string) {
		t.Helper()
		r := h.reload("unchanged")
		for _, w := range want {
			if !strings.Contains(r.Summary, w) {
				t.Errorf("got  %s\nwant %s", r.Summary, w)
			}
		}
		if strings.Contains(r.Summary, "mount") {
			t.Errorf("nothing is mounted: %s", r.Summary)
		}
	}
	h := build(t, plan{})
	same(h, "the files hold what the gateway loaded when it started, ", " ago, at ", ": config ")
	token := h.token()
	h.edit("models.predict", "models.admin")
	h.until("the changed rule holds", func() bool { return get(t, h.client(false), token) == 403 })
	same(h, "the file watcher already loaded this content ", ", when it saw a change of "+h.file+": config ", " -> ", ": 1 route changed")
	h = build(t, plan{more: unwatched})
	h.edit("models.predict", "models.admin")
	h.reload("changed")
	same(h, "an earlier `sallyport reload` or SIGHUP already loaded this content ", ": 1 route changed")
}

// until waits until f holds.
func (h *house) until(what string, f func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	h.t.Fatalf("not within a minute: %s", what)
}

func TestReloadIsRefusedWhileTheGatewayDoesNotRun(t *testing.T) {
	h := build(t, plan{more: unwatched})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if r := h.gateway.Reload(context.Background()); r.Result != proxy.ReloadRefused {
		t.Errorf("report %+v", r)
	}
}
