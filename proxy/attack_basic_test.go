package proxy_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sallyport/auth/apikey"
	"sallyport/proxy"
)

// bcryptOf is the cheapest hash of a password.
func bcryptOf(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// slowHash is that of the password sesame-of-slow. A check takes longer than requests need to come.
const slowHash = "$2a$10$M3K1Gi719VTZsF9I7pr3JeHoU.j42bxyeE6zF6vFI9IOhhrZ3.cL6"

const basicRoutes = `
  - {host: models.test, path: /basic, upstream: '%s', callers: basic/legacy, rules: [{allow: "*"}]}
  - {host: models.test, path: /either, upstream: '%s', callers: [issuer/corp, apikey, basic/legacy], rules: [{allow: "*"}]}
  - {host: models.test, path: /bob, upstream: '%s', callers: basic/legacy, rules: [{allow: "*", who: {principal: "basic/legacy:bob"}}]}
  - {host: models.test, path: /passing, upstream: '%s', callers: [basic/legacy, issuer/corp], rules: [{allow: "*"}], insecure_forward_authorization: true}
  - {host: models.test, path: /socket, upstream: '%s', callers: basic/legacy, rules: [{allow: "*"}], websocket: true}
  - {host: models.test, path: /ended, upstream: '%s', callers: basic/past, rules: [{allow: "*"}]}
  - {host: models.test, path: /tokens, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`

// basicHouse is a house where bob and eve have passwords.
func basicHouse(t *testing.T, p plan) (*house, *lines) {
	log := &lines{}
	if p.routes == "" {
		p.routes = basicRoutes
	}
	p.more += "basic:\n  legacy: {htpasswd: {file: htpasswd}, until: 2099-01-01}\n  past: {htpasswd: {file: htpasswd}, until: 2020-01-01}\n"
	if !strings.Contains(p.more, "api_keys") {
		p.more += "api_keys: {lab: {hash: '" + apikey.HashText(apikey.New()) + "'}}\n"
	}
	many := ""
	for i := range 20 {
		many += fmt.Sprintf("slow-%d:%s\n", i, slowHash)
	}
	p.files = map[string]string{"htpasswd": "bob:" + bcryptOf(t, "sesame-of-bob") + "\neve:" + bcryptOf(t, "sesame-of-eve") + "\n" + many}
	p.options.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return build(t, p), log
}

// TestPasswordsNeverLeaveTheGateway sends passwords to each route and checks who is believed, that no
// Authorization reaches the upstream, and that nothing repeats a password. The metrics name who
// still uses one.
func TestPasswordsNeverLeaveTheGateway(t *testing.T) {
	key := apikey.New()
	h, log := basicHouse(t, plan{more: "api_keys: {lab: {hash: '" + apikey.HashText(key) + "'}}\n"})
	hits, answers := int64(0), ""
	bob, eve := basicAuth("bob", "sesame-of-bob"), basicAuth("eve", "sesame-of-eve")
	for _, c := range []struct {
		path, authorization, outcome string
		status                       int
	}{
		{"/basic", bob, "basic/legacy:bob", 200},
		{"/basic", bob, "basic/legacy:bob", 200},
		{"/either", eve, "basic/legacy:eve", 200},
		{"/either", basicAuth("bob", key), "apikey:lab", 200},
		{"/either", "Bearer " + h.token(), "issuer/corp:alice", 200},
		{"/bob", bob, "basic/legacy:bob", 200},
		{"/bob", eve, "forbidden", 403},
		{"/passing", bob, "basic/legacy:bob", 200},
		{"/basic", basicAuth("bob", "sesame-of-eve"), "basic_unknown", 401},
		{"/basic", basicAuth("mallory", "sesame-of-bob"), "basic_unknown", 401},
		{"/basic", "", "no_credential", 401},
		{"/basic", "Bearer " + h.token(), "unlisted_credential", 401},
		{"/ended", bob, "basic_ended", 401},
		{"/tokens", bob, "unlisted_credential", 401},
	} {
		r := h.do("GET", c.path, "", map[string]string{"Authorization": c.authorization})
		answers += r.body + fmt.Sprint(r.Header)
		got := r.reason()
		if r.StatusCode == 200 {
			hits++
			up, _ := h.model.seen()
			if got = up.Header.Get("X-Sallyport-Principal"); up.Header.Get("Authorization") != "" {
				t.Errorf("%s: the upstream got Authorization", c.path)
			}
		}
		if got != c.outcome || r.StatusCode != c.status {
			t.Errorf("%s: got %d %s, want %d %s", c.path, r.StatusCode, got, c.status, c.outcome)
		}
		if n := h.model.hits.Load(); n != hits {
			t.Fatalf("%s: the upstream saw %d requests, want %d", c.path, n, hits)
		}
		challenge := r.Header.Get("Www-Authenticate")
		if want := `Basic realm="models.test", charset="UTF-8"`; r.StatusCode == 401 && strings.Contains(challenge, want) != (c.path != "/tokens") {
			t.Errorf("%s: challenge %q", c.path, challenge)
		}
	}
	// A token on a route that passes Authorization on still passes.
	h.do("GET", "/passing", "", nil)
	if up, _ := h.model.seen(); !strings.HasPrefix(up.Header.Get("Authorization"), "Bearer ") {
		t.Error("the route does not pass tokens on")
	}
	metrics := h.metrics()
	for _, want := range []string{
		`sallyport_basic_requests_total{principal="basic/legacy:bob"} 4`, `sallyport_basic_requests_total{principal="basic/legacy:eve"} 2`,
		`sallyport_not_after_timestamp_seconds{kind="basic",name="legacy"} 4.0709088e+09`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(metrics, "mallory") {
		t.Error("the metrics name who has no password")
	}
	h.ended()
	for name, text := range map[string]string{"records": h.audit.text(), "log": log.text(), "metrics": metrics, "answers": answers} {
		for _, secret := range []string{"sesame", strings.TrimPrefix(bob, "Basic "), "$2a$"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s repeat a password or its hash", name)
			}
		}
	}
}

// TestRemovedPasswordEndsItsStreams changes the file while two users have streams.
func TestRemovedPasswordEndsItsStreams(t *testing.T) {
	h, _ := basicHouse(t, plan{more: unwatched, handler: ticking})
	open := func(user string) io.Reader {
		req, _ := http.NewRequest("GET", "https://models.test/basic", nil)
		req.SetBasicAuth(user, "sesame-of-"+user)
		return h.streamOf(h.client(true), req)
	}
	removed, kept := open("eve"), open("bob")
	file := filepath.Join(filepath.Dir(h.file), "htpasswd")
	text, _ := os.ReadFile(file)
	bob, _, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(file, []byte(bob+"\nmallory:{SHA}x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.reload("refused"); !strings.Contains(r.Faults.Error(), "htpasswd:2") || !strings.Contains(r.Faults.Error(), "htpasswd -B FILE mallory") {
		t.Errorf("faults %v", r.Faults)
	}
	if err := os.WriteFile(file, []byte(bob+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.reload("changed")
	if _, err := io.Copy(io.Discard, removed); err == nil {
		t.Error("the stream of a removed user ended cleanly; want it cut")
	}
	buf := make([]byte, 64)
	for range 10 {
		if _, err := kept.Read(buf); err != nil {
			t.Fatalf("the stream of another user: %v", err)
		}
	}
}

// crowd sends more fresh logins at once than may wait. It repeats that with another user if the checks
// were faster than the requests.
func (r *refusals) crowd() {
	c := r.client(true)
	c.Timeout = 2 * time.Minute // they wait for each other
	for user := range 20 {
		busy := make(chan *reply, 80)
		var all sync.WaitGroup
		for range cap(busy) {
			req, _ := http.NewRequest("GET", "https://models.test/basic", nil)
			req.SetBasicAuth(fmt.Sprint("slow-", user), "sesame-of-slow")
			all.Go(func() {
				if reply := r.send(c, req); reply.StatusCode != 200 {
					busy <- reply
				}
			})
		}
		all.Wait()
		for range len(busy) {
			reply := <-busy
			r.expect("basic_busy", 503, "too many passwords are being checked", reply.Status+reply.body)
		}
		if len(r.rows) > 0 && r.rows[len(r.rows)-1].reason == "basic_busy" {
			return
		}
	}
}

// TestLimitsPerPrincipalCountAnAliasOnce uses up the rate of a caller with one kind of credential. The
// others of the same alias have nothing left; another caller has.
func TestLimitsPerPrincipalCountAnAliasOnce(t *testing.T) {
	key, other := apikey.New(), apikey.New()
	h := signed(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, apikey, key/acme, basic/legacy], rules: [{allow: "*"}], limits: {rate: {per: principal, limit: 1/h}}}
`, more: fmt.Sprintf(`principals: {batch: ['issuer/corp:alice', 'key:acme', 'apikey:lab', 'basic/legacy:bob']}
api_keys: {lab: {hash: '%s'}, other: {hash: '%s'}}
basic: {legacy: {htpasswd: {file: htpasswd}, until: 2099-01-01}}
`, apikey.HashText(key), apikey.HashText(other)), files: map[string]string{"htpasswd": "bob:" + bcryptOf(t, "secret") + "\n"}})
	field := func(name, value string) func() *reply {
		return func() *reply { return h.do("GET", "/", "", map[string]string{"Authorization": "", name: value}) }
	}
	asks := map[string]func() *reply{
		"token":     func() *reply { return h.do("GET", "/", "", nil) },
		"API key":   field("X-Api-Key", key),
		"password":  field("Authorization", basicAuth("bob", "secret")),
		"signature": func() *reply { return h.sendErrand(errand{}.signed(t)) },
	}
	passed := 0
	for name, ask := range asks {
		switch r := ask(); r.StatusCode {
		case 200:
			passed++
		case 429:
		default:
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	if passed != 1 {
		t.Errorf("%d of four credentials of one alias passed, want 1", passed)
	}
	if r := field("X-Api-Key", other)(); r.StatusCode != 200 {
		t.Errorf("another caller: %d %s", r.StatusCode, r.body)
	}
}

// refusedPasswords are requests with a password that does not count.
func refusedPasswords(t *testing.T) *refusals {
	now, _ := stopped() // no failure is forgiven meanwhile
	h, _ := basicHouse(t, plan{options: proxy.Options{Now: now}})
	r := &refusals{house: h}
	ask := func(path, user, password string) string {
		return r.ask("GET "+path+" HTTP/1.1", "Authorization: "+r.secret(basicAuth(user, r.secret(password))))
	}
	r.expect("basic_unknown", 401, "basic/legacy has no user of this name", ask("/basic", r.secret("mallory-unproven"), "guess-one"))
	r.expect("basic_unknown", 401, "the password is not that of basic/legacy:bob", ask("/basic", "bob", "guess-two"))
	r.expect("basic_unknown", 401, "the password has 73 bytes, and bcrypt reads 72 of them", ask("/basic", "bob", strings.Repeat("x", 73)))
	r.expect("basic_unknown", 401, "not base64 of USER:PASSWORD", r.ask("GET /basic HTTP/1.1", "Authorization: Basic "+r.secret("bob:guess-three")))
	r.expect("basic_ended", 401, "the passwords of basic/past ended at 2020-01-01T00:00:00Z (until)", ask("/ended", "bob", "sesame-of-bob"))
	r.crowd()
	for i := range 30 {
		wrong := "GET /basic HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: " + basicAuth("bob", fmt.Sprint("guess-", i)) + "\r\n\r\n"
		if got := r.tell(wrong); strings.HasPrefix(got, "HTTP/1.1 429 ") {
			r.expect("too_many_failures", 429, "more than 20 failed checks from 127.0.0.1; one is forgiven every 1s", got)
			break
		} else {
			r.expect("basic_unknown", 401, "the password is not that of basic/legacy:bob", got)
		}
	}
	return r
}
