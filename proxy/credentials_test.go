package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/proxy"
)

// shown is a model server that records the field lines of each request, and answers with a status.
type shown struct {
	mu     sync.Mutex // guards the fields below
	heads  []http.Header
	peers  map[string]bool // the gateway's ends of connections
	status int             // 0: 200
}

func (s *shown) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.heads = append(s.heads, r.Header.Clone())
	if s.peers == nil {
		s.peers = map[string]bool{}
	}
	s.peers[r.RemoteAddr] = true
	status := s.status
	s.mu.Unlock()
	switch {
	case r.Header.Get("Upgrade") != "" && status == 0:
		socket(w, r)
		return
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", map[int]string{0: "0", 401: "16", 403: "7"}[status])
		return
	case status != 0:
		w.Header().Set("Www-Authenticate", `Bearer realm="inside"`)
		w.WriteHeader(status)
	}
	_, _ = io.WriteString(w, "ok")
}

// answer sets the status of later answers.
func (s *shown) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// values returns the values under a name, in any spelling, of the last request.
func (s *shown) values(name string) (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.heads) == 0 {
		return nil
	}
	for field, values := range s.heads[len(s.heads)-1] {
		words := strings.FieldsFunc(field, func(r rune) bool { return strings.ContainsRune("-_.", r) })
		if strings.EqualFold(strings.Join(words, "-"), name) {
			all = append(all, values...)
		}
	}
	return all
}

const credentialFiles = "static-secret-of-ours"

// credentialHouse is a house whose upstreams over both versions of HTTP get the same credentials.
func credentialHouse(t *testing.T, credentials string) (*house, *shown, *lines) {
	s, log := &shown{}, &lines{}
	one := newModelServer(t, s.ServeHTTP)
	two := newH2CServer(t, s)
	h := build(t, plan{
		more: unwatched + fmt.Sprintf("upstreams:\n  one: {rest: %q, credentials: %s}\n  two: {rest: %q, grpc: %q, credentials: %s}\n", one.URL, credentials, two, two, credentials),
		routes: `
  - {host: models.test, path: /one, upstream: one, callers: issuer/corp, rules: [{allow: "*"}], websocket: true}
  - {host: models.test, path: /two, upstream: two, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /a.B, upstream: two, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /victim, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`,
		files:   map[string]string{"secret": credentialFiles + "\n"},
		options: proxy.Options{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))},
	})
	return h, s, log
}

// rpc makes a gRPC call and returns its status.
func (h *house) rpc(path string) string {
	h.t.Helper()
	req, _ := http.NewRequest("POST", "https://models.test"+path, bytes.NewReader([]byte{0, 0, 0, 0, 0}))
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Authorization": {"Bearer " + h.token()}}
	res := h.send(h.client(true), req)
	if status := res.Header.Get("grpc-status"); status != "" {
		return status
	}
	return res.Trailer.Get("grpc-status")
}

// The gateway's own credential stands alone in its field on every kind of request, whatever the
// client has sent. A server without credentials gets none.
func TestUpstreamsGetTheGatewaysOwnCredentialAlone(t *testing.T) {
	basic := basicAuth("gw", credentialFiles)
	for credentials, want := range map[string][2]string{
		"{bearer: {file: secret}}":                                 {"authorization", "Bearer " + credentialFiles},
		"{basic: {user: gw, password: {file: secret}}}":            {"authorization", basic},
		"{basic: {caller: true, password: {file: secret}}}":        {"authorization", basicAuth("alice", credentialFiles)},
		"{header: {name: X-Api-Key, value: {file: secret}}}":       {"x-api-key", credentialFiles},
		"{header: {name: X-Inference-Key, value: {file: secret}}}": {"x-inference-key", credentialFiles},
	} {
		h, s, log := credentialHouse(t, credentials)
		exactly := func(what string) {
			t.Helper()
			if got := s.values(want[0]); !slices.Equal(got, []string{want[1]}) {
				t.Errorf("%s, %s: the server got %q; want %q alone", credentials, what, got, want[1])
			}
			if want[0] != "authorization" && s.values("authorization") != nil {
				t.Errorf("%s, %s: the server got Authorization: %q", credentials, what, s.values("authorization"))
			}
		}
		mine := map[string]string{"X-Inference-Key": "mallory", "X_Inference_Key": "mallory", "X--Inference.Key": "mallory", "_x-inference-key_": "mallory", "X-Api-Key": "mallory"}
		for _, path := range []string{"/one/x", "/two/x"} {
			if got := h.do("POST", path, "{}", mine); got.StatusCode != 200 {
				t.Fatalf("%s: got %d %s", path, got.StatusCode, got.body)
			}
			exactly(path)
			if got := h.do("GET", path, "", mine); got.StatusCode != 200 {
				t.Fatalf("%s: got %d %s", path, got.StatusCode, got.body)
			}
			exactly(path)
		}
		if got := h.rpc("/a.B/C"); got != "0" {
			t.Errorf("gRPC: got %s", got)
		}
		exactly("gRPC")
		c := h.dial("models.test")
		_, _ = io.WriteString(c, "GET /one/live HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+h.token()+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+wsKey+"\r\n\r\n")
		if line, _ := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "101") {
			t.Errorf("WebSocket: got %s", line)
		}
		exactly("WebSocket")
		c.Close()

		if got := h.do("GET", "/victim", "", nil); got.StatusCode != 200 {
			t.Fatalf("got %d", got.StatusCode)
		}
		if r, _ := h.model.seen(); r.Header.Get(want[0]) != "" {
			t.Errorf("%s: a server without credentials got %q", credentials, r.Header.Get(want[0]))
		}
		h.secretIn(log, credentialFiles, basic[len("Basic "):])
	}
}

// secretIn stops the gateway and fails the test if a record, a line of the log or a metric holds one
// of the secrets.
func (h *house) secretIn(log *lines, secrets ...string) {
	h.t.Helper()
	text := h.get("/metrics") + h.get("/readyz")
	h.ended()
	text += h.audit.text() + log.text()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			h.t.Errorf("a record, a line or a metric holds %s", s)
		}
	}
}

// A caller whose own credential is good must not be told to get another one. What the server denies
// to a gateway that it knows is for the caller to hear.
func TestRefusalOfTheGatewaysCredentialIsNotTheCallers(t *testing.T) {
	h, s, log := credentialHouse(t, "{bearer: {file: secret}}")
	s.answer(401)
	for _, path := range []string{"/one/x", "/two/x"} {
		got := h.do("GET", path, "", nil)
		if got.StatusCode != 502 || got.reason() != "upstream_credential_refused" || got.Header.Get("Www-Authenticate") != "" || strings.Contains(got.body, "bearer") {
			t.Errorf("%s: got %d %s %v", path, got.StatusCode, got.body, got.Header)
		}
	}
	if got := h.rpc("/a.B/C"); got != "14" {
		t.Errorf("gRPC: got %s", got)
	}
	s.answer(403)
	if got := h.do("GET", "/one/x", "", nil); got.StatusCode != 403 || got.body != "ok" {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	if got := h.rpc("/a.B/C"); got != "7" {
		t.Errorf("gRPC: got %s", got)
	}
	h.secretIn(log, credentialFiles)
}

// Where the server gets the caller's own token too, its 401 may be about that.
func TestRefusalOfAForwardedTokenIsTheCallers(t *testing.T) {
	s := &shown{status: 401}
	server := newModelServer(t, s.ServeHTTP)
	h := build(t, plan{
		more: fmt.Sprintf("upstreams: {one: {rest: %q, credentials: {header: {name: X-Api-Key, value: {file: secret}}}}}\n", server.URL), files: map[string]string{"secret": credentialFiles},
		routes: "\n  - {host: models.test, upstream: one, callers: issuer/corp, rules: [{allow: '*'}], insecure_forward_authorization: true}\n",
	})
	got := h.do("GET", "/", "", nil)
	if got.StatusCode != 401 || got.Header.Get("Www-Authenticate") == "" {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	if token := s.values("authorization"); len(token) != 1 || !slices.Equal(s.values("x-api-key"), []string{credentialFiles}) {
		t.Errorf("the server got %q and %q", token, s.values("x-api-key"))
	}
}

// A token that rotates takes effect with a reload, on the connections that are open. A broken file
// changes nothing.
func TestRotatedCredentialKeepsConnections(t *testing.T) {
	h, s, _ := credentialHouse(t, "{bearer: {file: secret}}")
	file := filepath.Join(filepath.Dir(h.file), "secret")
	ask := func(want string) {
		t.Helper()
		for _, path := range []string{"/one/x", "/two/x"} {
			if got := h.do("GET", path, "", nil); got.StatusCode != 200 || !slices.Equal(s.values("authorization"), []string{"Bearer " + want}) {
				t.Errorf("got %d, the server %q; want %s", got.StatusCode, s.values("authorization"), want)
			}
		}
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ask(credentialFiles)
	write("second-token\n")
	h.reload("changed")
	ask("second-token")
	for _, broken := range []string{"", "two words", "a\x01b"} {
		write(broken)
		if r := h.reload("refused"); !strings.Contains(fmt.Sprint(r.Faults), "credentials.bearer") {
			t.Errorf("%q: %v", broken, r.Faults)
		}
		ask("second-token")
	}
	if len(s.peers) != 2 {
		t.Errorf("the gateway had %d connections to two servers", len(s.peers))
	}
}

// A request that is sent again, because its connection had ended, has the credential again, once.
func TestRepeatedRequestHasTheCredentialOnce(t *testing.T) {
	var seen []string
	server := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, fmt.Sprint(r.Header["Authorization"])) // requests come one after the other
		if len(seen) == 2 {
			c, _, _ := http.NewResponseController(w).Hijack()
			c.Close()
		}
	})
	h := build(t, plan{
		more: fmt.Sprintf("upstreams: {one: {rest: %q, credentials: {bearer: {file: secret}}}}\n", server.URL), files: map[string]string{"secret": "t0"},
		routes: "\n  - {host: models.test, upstream: one, callers: issuer/corp, rules: [{allow: '*'}]}\n",
	})
	for range 2 {
		if got := h.do("GET", "/", "", nil); got.StatusCode != 200 {
			t.Fatalf("got %d %s", got.StatusCode, got.body)
		}
	}
	if fmt.Sprint(seen) != "[[Bearer t0] [Bearer t0] [Bearer t0]]" {
		t.Errorf("the server saw %q", seen)
	}
}

// tokenServer is an authorization server that gives out tokens t1, t2 and so on, or fails.
func tokenServer(t *testing.T, fails *atomic.Bool) *httptest.Server {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != credentialFiles || fails.Load() {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error": "invalid_client"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token": "fetched-token-%d", "expires_in": 3600}`, n.Add(1))
	}))
	t.Cleanup(srv.Close)
	return srv
}

// The gateway fetches a token for itself once, and sends it with every request. A reload that leaves
// the section as it is keeps the token.
func TestUpstreamsGetTokensOfTheGatewaysOwn(t *testing.T) {
	var fails atomic.Bool
	srv := tokenServer(t, &fails)
	h, s, log := credentialHouse(t, "{oauth2: {token_url: '"+srv.URL+"/token', client_id: gateway, client_secret: {file: secret}}}")
	ask := func() {
		t.Helper()
		for _, path := range []string{"/one/x", "/two/x"} {
			if got := h.do("GET", path, "", nil); got.StatusCode != 200 {
				t.Fatalf("%s: got %d %s", path, got.StatusCode, got.body)
			}
			if got := s.values("authorization"); !slices.Equal(got, []string{"Bearer fetched-token-1"}) {
				t.Errorf("%s: the server got %q", path, got)
			}
		}
		if got := h.rpc("/a.B/C"); got != "0" {
			t.Errorf("gRPC: got %s", got)
		}
	}
	ask()
	h.edit("path: /victim", "path: /moved")
	h.reload("changed")
	fails.Store(true)
	ask()
	h.secretIn(log, credentialFiles, "fetched-token")
}

// refusedCredentials are requests for which the gateway's own credential did not do.
func refusedCredentials(t *testing.T) *refusals {
	h, s, _ := credentialHouse(t, "{bearer: {file: secret}}")
	r := &refusals{house: h}
	r.secret(credentialFiles)
	s.answer(401)
	r.expect("upstream_credential_refused", 502, "credentials of upstream one: the server answered 401 to the gateway's own bearer", r.ask("GET /one/x HTTP/1.1", "Authorization: Bearer TOKEN"))
	var fails atomic.Bool
	fails.Store(true)
	h.edit("one: {rest: ", "three: {rest: 'http://127.0.0.1:1', credentials: {oauth2: {token_url: '"+tokenServer(t, &fails).URL+"', client_id: gateway, client_secret: {file: secret}}}}\n  one: {rest: ", "path: /victim, upstream: ", "path: /three, upstream: three, callers: issuer/corp, rules: [{allow: '*'}]}\n  - {host: models.test, path: /victim, upstream: ")
	h.reload("changed")
	r.expect("upstream_credential_unavailable", 503, "credentials of upstream three: fetching a token: the token endpoint answered 401 invalid_client", r.ask("GET /three HTTP/1.1", "Authorization: Bearer TOKEN"))
	return r
}
