// Package flask holds the story of a Flask model server behind sallyport.
package flask

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/examples/story"
)

var record = flag.Bool("record", false, "write the golden exchanges instead of comparing with them")

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// house is everything that runs in the story.
type house struct {
	t        *testing.T // the whole story's: what it starts lives as long
	python   string
	app      string // host:port of the Flask app
	server   *story.Process
	relay    *story.Relay
	provider *story.Provider
	gateway  *story.Gateway
}

// start starts all of it: the app as its README says, and the gateway with the
// gateway.yaml of this folder.
func start(t *testing.T) *house {
	t.Helper()
	h := &house{
		t:      t,
		python: filepath.Join(story.Installed(t, "flask", "flask/requirements.txt"), "bin", "python"),
		app:    story.FreeAddress(t),
	}
	h.provider = story.StartProvider(t)
	h.startApp()
	h.relay = story.StartRelay(t, h.app)
	h.gateway = story.StartGateway(t,
		"http://127.0.0.1:5000", "http://"+h.relay.Address,
		"https://localhost:9000", h.provider.URL,
		"../openid-provider/provider.crt", h.provider.CA)
	return h
}

func (h *house) startApp() {
	h.t.Helper()
	cmd := exec.Command(h.python, "-m", "gunicorn", "--no-control-socket", "--workers", "2", "--bind", h.app, "app:app")
	cmd.Env = append(os.Environ(), "PYTHONHASHSEED=0") // else the order of Allow changes
	h.server = story.Start(h.t, "gunicorn", cmd)
	h.server.Listens(h.t, h.app)
}

func bearer(token string) []string { return []string{"-H", "Authorization: Bearer " + token} }

// seen is what the app says it was told, by its /echo.
type seen struct {
	Method, Path, Query string
	Headers             [][2]string
	BodyBytes           int `json:"body_bytes"`
}

func (s seen) get(name string) (values []string) {
	for _, h := range s.Headers {
		if h[0] == name {
			values = append(values, h[1])
		}
	}
	return values
}

func TestFlask(t *testing.T) {
	h := start(t)
	predict := h.provider.Token(t, "models.predict", "")
	read := h.provider.Token(t, "models.read", "")

	t.Run("admitted", func(t *testing.T) { h.admitted(t, predict, read) })
	t.Run("refused", func(t *testing.T) { h.refused(t, predict, read) })
	t.Run("identity", func(t *testing.T) { h.identity(t, predict) })
	t.Run("bodies", func(t *testing.T) { h.bodies(t, predict) })
	t.Run("events", func(t *testing.T) { h.events(t, read) })
	t.Run("requests", h.requests)
	t.Run("plain http", func(t *testing.T) { h.plain(t, predict) })
	t.Run("golden", func(t *testing.T) { h.golden(t, h.provider.Token(t, "models.predict models.read", "")) })
	t.Run("app away and back", func(t *testing.T) { h.away(t, predict) })
	t.Run("drain", func(t *testing.T) { h.drain(t, read) })
	t.Run("a gigabyte", func(t *testing.T) { h.gigabyte(t, predict, read) })
	t.Run("provider and app away", func(t *testing.T) { h.alone(t, predict) })
}

func (h *house) admitted(t *testing.T, predict, read string) {
	for _, version := range []string{"--http1.1", "--http2"} {
		a := h.gateway.Curl(t, "/predict", append(bearer(predict), version, "--json", `{"a": 1, "b": 2, "c": 3}`)...)
		if a.Status != 200 || strings.TrimSpace(a.Body) != `{"prediction":6}` {
			t.Errorf("curl %s: %d %s", version, a.Status, a.Body)
		}
		if want := strings.TrimSuffix(strings.TrimPrefix(version, "--http"), ".1"); !strings.HasPrefix(a.Protocol, want) {
			t.Errorf("curl %s spoke HTTP/%s", version, a.Protocol)
		}
		if s := a.Header.Get("Server"); s != "" {
			t.Errorf("the answer names the server: %s", s)
		}
		if a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("X-Frame-Options") != "SAMEORIGIN" {
			t.Errorf("security headers are missing: %v", a.Header)
		}
		if a.Header.Get("Strict-Transport-Security") != "" {
			t.Error("Strict-Transport-Security with a development certificate")
		}
	}
	if a := h.gateway.Curl(t, "/health"); a.Status != 200 {
		t.Errorf("/health without a token: %d %s", a.Status, a.Body)
	}
	if a := h.gateway.Curl(t, "/echo", bearer(read)...); a.Status != 200 {
		t.Errorf("GET with models.read: %d %s", a.Status, a.Body)
	}
}

// refused makes the calls that must not reach the app, and sees that none does.
func (h *house) refused(t *testing.T, predict, read string) {
	body := []string{"--json", `{"a": 1}`}
	head, rest, _ := strings.Cut(predict, ".")
	claims, signature, _ := strings.Cut(rest, ".")
	flipped := strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return 'A'
	}, signature[:1]) + signature[1:]
	h.relay.Take()
	for _, c := range []struct {
		name      string
		path      string
		args      []string
		status    int
		reason    string
		challenge string
	}{
		{"no token", "/predict", body, 401, "no_credential", "Bearer"},
		{"broken signature", "/predict", append(bearer(head+"."+claims+"."+flipped), body...), 401, "bad_credential", `error="invalid_token"`},
		{"no JWT", "/predict", append(bearer("hello"), body...), 401, "bad_credential", `error="invalid_token"`},
		{"wrong audience", "/predict", append(bearer(h.provider.Token(t, "models.predict", "https://other.example")), body...), 401, "wrong_audience", `error="invalid_token"`},
		{"wrong scope", "/predict", append(bearer(read), body...), 403, "insufficient_scope", `error="insufficient_scope"`},
		{"wrong verb", "/predict", append(bearer(predict), "-X", "DELETE"), 403, "", ""},
		{"token twice", "/predict", append(append(bearer(predict), bearer(predict)...), body...), 400, "bad_field", ""},
		{"token in the query", "/predict?access_token=" + predict, body, 401, "no_credential", "Bearer"},
		{"our header forged", "/predict", append(append(bearer(predict), "-H", "X-Sallyport-Principal: issuer/lab:root"), body...), 400, "protected_field", ""},
		{"our header forged as WSGI folds it", "/predict", append(append(bearer(predict), "-H", "X_Sallyport_Principal: issuer/lab:root"), body...), 400, "protected_field", ""},
		{"encoded slash", "/x%2f..%2fpredict", append(bearer(predict), body...), 400, "", ""},
		{"dot segments", "/health/../predict", append(bearer(predict), append(body, "--path-as-is")...), 400, "ambiguous_path", ""},
		{"another host", "/predict", append(append(bearer(predict), "-H", "Host: other.example"), body...), 404, "no_route", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := h.gateway.Curl(t, c.path, c.args...)
			if a.Status != c.status {
				t.Fatalf("status %d, want %d: %s", a.Status, c.status, a.Body)
			}
			if got := a.Header.Get("WWW-Authenticate"); !strings.Contains(got, c.challenge) {
				t.Errorf("challenge %q, want %q in it", got, c.challenge)
			}
			id := a.Header.Get("X-Request-Id")
			if id == "" {
				t.Fatal("the refusal has no request id")
			}
			if r := h.gateway.Record(t, id); r.Status != c.status || c.reason != "" && r.Reason != c.reason {
				t.Errorf("recorded as %+v, want reason %q", r, c.reason)
			}
			if x := h.relay.Take(); len(x) > 0 {
				t.Errorf("the app was asked: %q", x[0].Request)
			}
		})
	}
	if strings.Contains(h.gateway.Process.Output(), signature) {
		t.Error("a token stands in the gateway's output")
	}
}

func (h *house) identity(t *testing.T, token string) {
	h.relay.Take()
	a := h.gateway.Curl(t, "/echo?q=1", append(bearer(token), "--json", "{}", "-H", "X-Forwarded-For: 10.9.8.7", "-H", "Forwarded: for=10.9.8.7", "-H", "Cookie: a=b")...)
	if a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	var s seen
	a.JSON(t, &s)
	for name, want := range map[string][]string{
		"authorization":          nil,
		"x-sallyport-principal":  {"issuer/lab:batch"},
		"x-sallyport-scopes":     {"models.predict"},
		"x-sallyport-request-id": {a.Header.Get("X-Request-Id")},
		"x-forwarded-for":        {"127.0.0.1"},
		"x-forwarded-proto":      {"https"},
		"cookie":                 {"a=b"},
	} {
		if got := s.get(name); !slices.Equal(got, want) {
			t.Errorf("the app was told %s: %q, want %q", name, got, want)
		}
	}
	if s.Query != "q=1" {
		t.Errorf("query %q", s.Query)
	}
	for _, x := range h.relay.Take() {
		if bytes.Contains(bytes.ToLower(x.Request), []byte("authorization")) || bytes.Contains(x.Request, []byte(token)) {
			t.Errorf("the token went to the app: %q", x.Request)
		}
	}
}

func (h *house) bodies(t *testing.T, token string) {
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 20<<16), 0o600); err != nil { // 20 MiB
		t.Fatal(err)
	}
	huge := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(huge, make([]byte, 33<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	upload := func(file string, args ...string) []string {
		return append(append(bearer(token), args...), "-H", "Content-Type: application/octet-stream", "--data-binary", "@"+file)
	}
	for _, c := range []struct {
		name   string
		args   []string
		status int
	}{
		{"20 MiB", upload(big, "--http1.1"), 200},
		{"20 MiB by HTTP/2", upload(big, "--http2"), 200},
		{"20 MiB in chunks", upload(big, "--http1.1", "-H", "Transfer-Encoding: chunked"), 200},
		{"20 MiB after 100", upload(big, "--http1.1", "-H", "Expect: 100-continue"), 200},
		{"over the limit", upload(huge, "--http1.1"), 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := h.gateway.Curl(t, "/echo", c.args...)
			if a.Status != c.status {
				t.Fatalf("status %d, want %d: %s", a.Status, c.status, a.Body)
			}
			if a.Status == 200 {
				var s seen
				a.JSON(t, &s)
				if s.BodyBytes != 20<<20 {
					t.Errorf("%d bytes arrived", s.BodyBytes)
				}
			}
		})
	}
	a := h.gateway.Curl(t, "/predict", append(bearer(token), "--http1.1", "-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked", "-d", `{"a": 40, "b": 2}`)...)
	if a.Status != 200 || !strings.Contains(a.Body, "42") {
		t.Errorf("chunked JSON: %d %s", a.Status, a.Body)
	}
}

// events sees that server-sent events come one by one: the app pauses 0.1 s
// between them, so that five which were held back would come within a moment.
func (h *house) events(t *testing.T, token string) {
	req, err := http.NewRequest("GET", h.gateway.URL("/stream"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := story.Client(t, h.gateway.CA).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var arrived []time.Time
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			arrived = append(arrived, time.Now())
		}
	}
	if len(arrived) != 5 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d events of type %s", len(arrived), res.Header.Get("Content-Type"))
	}
	if d := arrived[4].Sub(arrived[0]); d < 200*time.Millisecond {
		t.Errorf("all events came within %v: they were held back", d)
	}
}

// requests runs client.py.
func (h *house) requests(t *testing.T) {
	for _, c := range []struct{ ca, want string }{
		{h.gateway.CA, `200 {"prediction":42}`},
		{h.provider.CA, "SSLError"},
	} {
		cmd := exec.Command(h.python, "client.py", h.provider.URL, h.provider.CA, h.gateway.URL(""), c.ca, `{"a": 40, "b": 2}`)
		cmd.Env = append(os.Environ(), "CLIENT_SECRET="+h.provider.Secret)
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), c.want) {
			t.Errorf("client.py with the root %s printed %s, want %s", filepath.Base(c.ca), out, c.want)
		}
	}
}

func (h *house) plain(t *testing.T, token string) {
	_, port, _ := net.SplitHostPort(h.gateway.Plain)
	url := "http://localhost:" + port + "/predict?x=1"
	a := story.Curl(t, "", url)
	if want := h.gateway.URL("/predict?x=1"); a.Status != 308 || a.Header.Get("Location") != want {
		t.Errorf("%d to %q, want 308 to %s", a.Status, a.Header.Get("Location"), want)
	}
	if a := story.Curl(t, "", append(bearer(token), url)...); a.Status != 403 {
		t.Errorf("a token in the clear: %d, want 403", a.Status)
	}
	if x := h.relay.Take(); len(x) > 0 {
		for _, e := range x {
			if bytes.Contains(e.Request, []byte("x=1")) {
				t.Errorf("plain HTTP reached the app: %q", e.Request)
			}
		}
	}
}

// away stops the app and starts it again: 502, and then all is as before.
func (h *house) away(t *testing.T, token string) {
	ask := func() story.Answer {
		return h.gateway.Curl(t, "/predict", append(bearer(token), "--json", `{"a": 1}`)...)
	}
	h.server.Stop(t)
	if a := ask(); a.Status != 502 || !strings.Contains(a.Body, "request_id") || strings.Contains(a.Body, "dial") {
		t.Errorf("without the app: %d %s", a.Status, a.Body)
	}
	h.startApp()
	if a := ask(); a.Status != 200 {
		t.Errorf("with the app again: %d %s", a.Status, a.Body)
	}
}

// drain ends the gateway while it streams: the stream is whole, the exit status 0.
func (h *house) drain(t *testing.T, token string) {
	req, err := http.NewRequest("GET", h.gateway.URL("/stream"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := story.Client(t, h.gateway.CA).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if !lines.Scan() {
		t.Fatal("no event")
	}
	h.gateway.Process.Signal(syscall.SIGTERM)
	events := 1
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			events++
		}
	}
	if events != 5 || lines.Err() != nil {
		t.Errorf("%d events of 5, %v", events, lines.Err())
	}
	if code := h.gateway.Process.Wait(t, 40*time.Second); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// gigabyte streams 1 GiB to the app, then 1 GiB from it, and looks at the
// gateway's memory.
func (h *house) gigabyte(t *testing.T, predict, read string) {
	file, err := os.Create(filepath.Join(t.TempDir(), "zeros"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 30); err != nil { // takes no room on disk
		t.Fatal(err)
	}
	g := story.StartGateway(t,
		"http://127.0.0.1:5000", "http://"+h.app,
		"https://localhost:9000", h.provider.URL,
		"../openid-provider/provider.crt", h.provider.CA,
		"limits: {body: 32MiB}", "limits: {body: 2GiB}")
	for _, version := range []string{"--http1.1", "--http2"} {
		g.Curl(t, "/echo", append(bearer(predict), version, "-X", "PUT", "-d", "x")...)
		before := g.Process.PeakMemory(t)
		a := g.Curl(t, "/echo", append(bearer(predict), version, "-T", file.Name())...)
		if a.Status != 200 || !strings.Contains(a.Body, `"body_bytes":1073741824`) {
			t.Errorf("%s: %d %s", version, a.Status, a.Body)
		}
		if n := download(t, g, read, version, 1024); n != 1<<30 {
			t.Errorf("%s: %d bytes came down", version, n)
		}
		grown := g.Process.PeakMemory(t) - before
		t.Logf("%s: the gateway's memory grew by %d KiB", version, grown>>10)
		if grown > 64<<20 {
			t.Errorf("%s: the gateway's memory grew by %d MiB", version, grown>>20)
		}
	}
}

// download fetches so many MiB from the app and returns how many bytes came.
func download(t *testing.T, g *story.Gateway, token, version string, mib int) (n int64) {
	t.Helper()
	out, err := exec.Command("curl", "-sS", version, "--cacert", g.CA, "-H", "Authorization: Bearer "+token,
		"-o", os.DevNull, "-w", "%{size_download}", "-m", "60", g.URL(fmt.Sprintf("/weights?mib=%d", mib))).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err = strconv.ParseInt(string(out), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// alone starts a gateway that has nobody: neither the provider, whose keys it has
// never seen, nor the app.
func (h *house) alone(t *testing.T, token string) {
	h.provider.Stop(t)
	g := story.StartGateway(t,
		"http://127.0.0.1:5000", "http://"+story.FreeAddress(t),
		"https://localhost:9000", h.provider.URL,
		"../openid-provider/provider.crt", h.provider.CA)
	for _, c := range []struct {
		path   string
		args   []string
		status int
		reason string
	}{
		{"/predict", append(bearer(token), "--json", "{}"), 503, "issuer_unavailable"},
		{"/health", nil, 502, "upstream_refused"},
	} {
		a := g.Curl(t, c.path, c.args...)
		if r := g.Record(t, a.Header.Get("X-Request-Id")); a.Status != c.status || r.Reason != c.reason {
			t.Errorf("%s: %d %s, recorded as %+v; want %d %s", c.path, a.Status, a.Body, r, c.status, c.reason)
		}
	}
	if a := story.Curl(t, "", "http://"+g.Health+"/readyz"); a.Status != 200 {
		t.Errorf("/readyz: %d %s, want 200: others being away must not take the gateway out of service", a.Status, a.Body)
	}
}

// golden sends raw requests and compares what the gateway and the app said to
// each other with what is recorded; the gateway's own tests replay that.
func (h *house) golden(t *testing.T, token string) {
	for _, c := range []struct{ name, client string }{
		{"predict", "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"a\": 1, \"b\": 2}"},
		{"predict-chunked", "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\nb\r\n 1, \"b\": 2}\r\n0\r\n\r\n"},
		{"bad-json", "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{\"a\":"},
		{"app-fails", "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{\"a\": \"b\"}"},
		{"wrong-type", "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"},
		{"not-found", "GET /nothing?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		{"wrong-method", "PUT /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"},
		{"stream", "GET /stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"},
		{"health", "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.relay.Take()
			res, _ := h.gateway.Raw(t, []byte(strings.Replace(c.client, "\r\n", "\r\nAuthorization: Bearer "+token+"\r\n", 1)))
			x := h.relay.Take()
			if len(x) != 1 {
				t.Fatalf("%d exchanges with the app, status %d", len(x), res.StatusCode)
			}
			story.Golden(t, *record, c.name, []byte(c.client), x[0])
		})
	}
}
