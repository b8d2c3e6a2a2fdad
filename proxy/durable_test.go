package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sallyport/proxy"
	"sallyport/proxy/setting"
)

// anyForm is the handler of a model server that has an answer of each form.
func anyForm(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/small":
		_, _ = io.WriteString(w, "small")
	case "/large":
		w.Header().Set("Content-Length", strconv.Itoa(1<<20))
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
	case "/chunked":
		for range 3 {
			_, _ = io.WriteString(w, "event\n")
			_ = http.NewResponseController(w).Flush()
		}
	case "/none":
		w.WriteHeader(http.StatusNoContent)
	default:
		socket(w, r)
	}
}

// durableHouse builds a gateway with durable records for models.test and grpc.test, but not for
// fast.test.
func durableHouse(t *testing.T) *house {
	s := newGRPCServer(t)
	return build(t, plan{
		handler: anyForm,
		more: `audit: {durable: answer}
upstreams:
  tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}
`,
		routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n" +
			strings.Replace(strings.Replace(oneRoute, "models.test", "grpc.test", 1), "%s", "tf", 1) +
			strings.TrimRight(strings.Replace(oneRoute, "models.test", "fast.test", 1), "\n") + "\n    audit: {durable: off}\n",
	})
}

// whole sends a request and returns an error unless the whole answer came, with this status.
func (h *house) whole(h2 bool, method, url string, status int, token string) error {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if strings.Contains(url, "grpc.test") {
		req.Method, req.Body, req.ContentLength = "POST", io.NopCloser(strings.NewReader(string(framedText("hi")))), -1
		req.Header.Set("Content-Type", "application/grpc+proto")
		req.Header.Set("Te", "trailers")
	}
	res, err := h.client(h2).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err != nil {
		return err
	}
	if res.StatusCode != status {
		return fmt.Errorf("status %d, want %d", res.StatusCode, status)
	}
	return nil
}

// chat opens a WebSocket, says bye and waits for the end of the connection. It returns an error if the
// connection was reset.
func (h *house) chat() error {
	c := h.dial("models.test")
	_, _ = io.WriteString(c, strings.ReplaceAll("GET /chat HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+wsKey+"\r\n\r\nbye\n", "TOKEN", h.token()))
	in := bufio.NewReader(c)
	text, err := io.ReadAll(in)
	if !strings.HasPrefix(string(text), "HTTP/1.1 101 ") {
		return fmt.Errorf("got %q", text)
	}
	return err
}

// chatOverHTTP2 is chat over HTTP/2. It returns an error if the stream was reset.
func (h *house) chatOverHTTP2() error {
	f := h.frames()
	defer f.c.Close()
	f.headers(1, false, h.extended("/chat")...)
	f.data(1, false, "bye\n")
	for f.next() && (f.got[1] == nil || !f.got[1].done) {
	}
	if got := f.got[1]; got == nil || !got.done || got.reset != "" {
		return errors.New("the stream was cut")
	}
	return nil
}

// endings returns a request for each form of answer, over each protocol.
func endings(h *house) map[string]func() error {
	ask := func(h2 bool, method, path string, status int) func() error {
		return func() error {
			token := h.token()
			if status == 401 {
				token = "x.y.z"
			}
			url := "https://models.test" + path
			if strings.HasPrefix(path, "/a.B/") {
				url = "https://grpc.test" + path
			}
			return h.whole(h2, method, url, status, token)
		}
	}
	all := map[string]func() error{"tunnel": h.chat, "tunnel over HTTP/2": h.chatOverHTTP2, "gRPC": ask(true, "POST", "/a.B/Echo", 200)}
	for _, h2 := range []bool{false, true} {
		at := map[bool]string{true: " over HTTP/2"}[h2]
		all["small"+at] = ask(h2, "GET", "/small", 200)
		all["large"+at] = ask(h2, "GET", "/large", 200)
		all["chunked"+at] = ask(h2, "GET", "/chunked", 200)
		all["HEAD"+at] = ask(h2, "HEAD", "/large", 200)
		all["no content"+at] = ask(h2, "GET", "/none", 204)
		all["refusal"+at] = ask(h2, "GET", "/small", 401)
	}
	return all
}

func TestRecordIsWrittenBeforeTheAnswersEnd(t *testing.T) {
	h := durableHouse(t)
	n := 0
	for name, end := range endings(h) {
		if err := end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n++; len(h.audit.records(t)) != n {
			t.Errorf("%s: %d records once the answer was whole, want %d", name, len(h.audit.records(t)), n)
		}
	}
}

// The audit log blocks. Answers that wait for their record must be cut, and other routes are served as
// always.
func TestAnswerWithoutADurableRecordIsCut(t *testing.T) {
	t.Parallel()
	h := durableHouse(t)
	token := h.token()
	h.audit.mu.Lock()
	var wg sync.WaitGroup
	for name, end := range endings(h) {
		wg.Go(func() {
			if end() == nil {
				t.Errorf("%s: the answer was whole while no record could be written", name)
			}
		})
	}
	for range 20 {
		if err := h.whole(false, "GET", "https://fast.test/large", 200, token); err != nil {
			t.Errorf("a route without durable records: %v", err)
		}
	}
	wg.Wait()
	// The gateway knows by now that the audit log is late, so it forwards no request.
	hits := h.model.hits.Load()
	if err := h.whole(false, "GET", "https://models.test/small", 200, token); err == nil || h.model.hits.Load() != hits {
		t.Errorf("error %v, and %d requests reached the model server; want a cut and none", err, h.model.hits.Load()-hits)
	}
	h.audit.mu.Unlock()

	eventually(t, "durable answers work again", func() bool {
		return h.whole(false, "GET", "https://models.test/small", 200, token) == nil
	})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	byID, cut := map[any]int{}, 0
	for _, r := range h.audit.records(t) {
		byID[r["id"]]++
		if byID[r["id"]] == 2 && r["reason"] == "audit_unavailable" && strings.HasPrefix(fmt.Sprint(r["cause"]), "the answer was cut: ") {
			cut++
		}
	}
	if want := len(endings(h)) + 1; cut != want {
		t.Errorf("%d second records say that the answer was cut, want %d", cut, want)
	}
}

func TestSyncedRecordIsInTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.log")
	h := build(t, plan{more: "audit: {durable: synced, file: " + strconv.Quote(file) + "}\n"})
	for i := 1; i <= 3; i++ {
		h.do("GET", "/", "", nil)
		text, err := os.ReadFile(file)
		if n := strings.Count(string(text), "\n"); err != nil || n != i {
			t.Errorf("after %d answers: %d records, error %v", i, n, err)
		}
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestDurabilityIsChecked(t *testing.T) {
	for _, tt := range []struct{ top, route, want string }{
		{"audit: {durable: answer}", "", ""},
		{"audit: {durable: off}", "answer", ""},
		{"audit: {durable: yes}", "", `audit.durable: "yes": not a known durability; write off, answer or synced`},
		{"audit: {durable: synced}", "", `audit.durable: "synced": standard output has no disk to wait for`},
		{"", "synced", `routes[0].audit.durable: "synced": standard output has no disk to wait for`},
		{"audit: {file: /dev/null}", "synced", ""},
	} {
		text := "tls: {local: {}}\n" + tt.top + "\nroutes: [{host: a.test, respond: 200, callers: anonymous, audit: {durable: " + strconv.Quote(tt.route) + "}}]\n"
		file := filepath.Join(t.TempDir(), "gateway.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := proxy.LoadConfig(file)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s %s: got %v, want %q", tt.top, tt.route, err, tt.want)
		}
	}
	if setting.Durability("").Waits() || setting.NotDurable.Waits() {
		t.Error("an answer waits although nothing demands it")
	}
}
