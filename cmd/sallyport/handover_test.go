package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// handover is a gateway configured with the output of keygen for two partners, and the
// partners.
type handover struct {
	t      *testing.T
	dir    string
	url    string
	status chan int
}

// sallyport runs a command that must succeed, and returns its output.
func (h *handover) sallyport(want int, args ...string) (stdout, stderr string) {
	h.t.Helper()
	var out, faults bytes.Buffer
	if got := run(args, &out, &faults); got != want {
		h.t.Errorf("sallyport %s: status %d, want %d\n%s", strings.Join(args, " "), got, want, faults.String())
	}
	return out.String(), faults.String()
}

// path returns the path of a file in the folder.
func (h *handover) path(name string) string { return filepath.Join(h.dir, name) }

// write writes a file.
func (h *handover) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// newHandover makes the keys and starts the gateway.
func newHandover(t *testing.T, upstream string) *handover {
	h := &handover{t: t, dir: t.TempDir(), status: make(chan int, 1)}
	h.write("route.yaml", fmt.Sprintf(`listen: {https: "127.0.0.1:0", http: off, health: off}
tls: {local: {}}
routes:
  - {name: models, host: localhost, upstream: %s, callers: [key/acme, key/orbit], rules: [{allow: "*"}]}
`, upstream))
	var entries string
	for _, args := range [][]string{{"acme", "--alg", "hmac-sha256"}, {"orbit", "--alg", "ed25519"}, {"gateway", "--alg", "ed25519"}} {
		partner := args[0]
		said, _ := h.sallyport(exitOK, append([]string{"keygen", "--partner", partner, "--id", partner + "-1", "--route", "models",
			"--url", "https://localhost/", "--out", h.path(partner)}, args[1:]...)...)
		var made struct {
			Gateway string `json:"gateway_yaml"`
		}
		if err := json.Unmarshal([]byte(said), &made); err != nil {
			t.Fatal(err)
		}
		if partner != "gateway" {
			entries += strings.TrimPrefix(made.Gateway, "signing_keys:\n")
		}
	}
	route, err := os.ReadFile(h.path("route.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write("gateway.yaml", fmt.Sprintf("%ssigning_keys:\n%s  gw: {private_key: {file: %s}, use: sign_response}\nintegrity: {publish: gw}\n",
		route, entries, h.path("gateway/gateway-1.private.pem")))
	h.write("sallyport-nonces", "") // no nonce was used before
	h.start()
	return h
}

// start runs the gateway until the test ends.
func (h *handover) start() {
	log, w := io.Pipe()
	go func() {
		h.status <- run([]string{"serve", "-c", h.path("gateway.yaml")}, io.Discard, w)
		_ = w.Close()
	}()
	var said strings.Builder
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		said.Write(append(lines.Bytes(), '\n'))
		var line struct{ Msg, For, Addr string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			continue
		}
		if line.For == "https" {
			h.url = strings.Replace("https://"+line.Addr, "127.0.0.1", "localhost", 1)
		}
		if line.Msg == "ready" {
			break
		}
	}
	if h.url == "" {
		h.t.Fatalf("the gateway did not come up, status %d:\n%s", <-h.status, said.String())
	}
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, log) }()
	h.t.Cleanup(func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			h.t.Error(err)
		}
		if got := <-h.status; got != exitOK {
			h.t.Errorf("serve ended with %d", got)
		}
		<-drained
	})
}

// TestHandover uses the output of keygen unchanged with a gateway.
func TestHandover(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/plain")
		if r.URL.Path == "/stream" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		fmt.Fprintf(w, "%s %s", r.Header.Get("X-Sallyport-Principal"), content)
	}))
	defer upstream.Close()
	h := newHandover(t, upstream.URL)
	ca, keys := h.path("sallyport-ca/root.pem"), h.path("keys.json")
	h.sallyport(exitOK, "curl", "--cacert", ca, "--unsigned-ok", "--key-id", "acme-1", "--secret", h.path("acme/acme-1.secret"),
		"-o", keys, h.url+"/.well-known/sallyport/keys")

	acme := []string{"curl", "--cacert", ca, "--key-id", "acme-1", "--secret", h.path("acme/acme-1.secret")}
	orbit := []string{"curl", "--cacert", ca, "--key-id", "orbit-1", "--secret", h.path("orbit/orbit-1.private.pem")}
	const verified = "sallyport: verified: "
	for _, c := range []struct {
		name           string
		caller, more   []string
		path           string
		status         int
		stdout, stderr string // of the one all, of the other a part
	}{
		{name: "secret", caller: acme, path: "/p?x=%20", stdout: "key:acme hello"},
		{name: "secret, stream", caller: acme, path: "/stream", stdout: "key:acme hello", stderr: verified},
		{name: "secret, gateway's own signature", caller: acme, more: []string{"--response-key", keys, "-v"}, path: "/p", stdout: "key:acme hello", stderr: `keyid="gw"`},
		{name: "secret, its stream", caller: acme, more: []string{"--response-key", keys}, path: "/stream", stdout: "key:acme hello", stderr: verified},
		{name: "private key", caller: orbit, more: []string{"--response-key", keys}, path: "/p", stdout: "key:orbit hello"},
		{name: "private key, stream", caller: orbit, more: []string{"--response-key", keys}, path: "/stream", stdout: "key:orbit hello", stderr: verified},
		{name: "private key, no response key", caller: orbit, path: "/p", status: exitFailed, stderr: "name it with --response-key"},
		{name: "no content", caller: acme, more: []string{"-X", "HEAD"}, path: "/p"},
		{name: "another's secret", caller: orbit, more: []string{"--secret", h.path("acme/acme-1.secret")}, path: "/p", status: exitFailed, stderr: "could not verify the signature with its key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.t = t
			args := append(append([]string{}, c.caller...), c.more...)
			if !strings.Contains(c.name, "no content") {
				args = append(args, "-d", "hello")
			}
			stdout, stderr := h.sallyport(c.status, append(args, h.url+c.path)...)
			if stdout != c.stdout || !strings.Contains(stderr, c.stderr) {
				t.Errorf("got %q and %q, want %q and %q", stdout, stderr, c.stdout, c.stderr)
			}
		})
	}
	h.t = t
}

// TestInstructionsOfKeygenWorkAsPrinted pastes the lines that keygen prints into gateway.yaml, and
// the commands into a shell. Then the partner calls with the files of the folder.
func TestInstructionsOfKeygenWorkAsPrinted(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Sallyport-Principal"))
	}))
	defer upstream.Close()
	h := &handover{t: t, dir: t.TempDir(), status: make(chan int, 1)}
	t.Chdir(h.dir)
	before := fmt.Sprintf(`listen: {https: "127.0.0.1:0", http: off, health: off}
tls: {local: {}}
issuers:
  corp: {url: "http://127.0.0.1:1", audience: models}
routes:
  - name: models
    host: localhost
    upstream: %s
`, upstream.URL)
	h.write("gateway.yaml", before+`    callers: issuer/corp    # people
    rules:
      - {deny: delete}
      - allow: post         # with a scope
        who: {scope: models.predict}
`)
	said, _ := h.sallyport(exitOK, "keygen", "--partner", "acme", "--id", "acme-1", "--route", "models", "--out", "acme", "-o", "table")
	top, rest := between(t, said, "Add to gateway.yaml:\n\n", "\nand in the route models, in place of the lines of the same names:\n\n")
	route, rest := between(t, rest, "", "\nBefore the first start")
	touch, rest := between(t, rest, ":\n\n", "\nAfter the first start")
	_, root := between(t, rest, "", ":\n\n")
	h.write("gateway.yaml", before+route+top)
	shell := func(command string) {
		t.Helper()
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	shell(touch)
	if _, warnings := h.sallyport(exitOK, "check"); warnings != "" {
		t.Errorf("check warns: %s", warnings)
	}
	h.start()
	shell(root)

	// A second key goes under the section that there is now.
	said, _ = h.sallyport(exitOK, "keygen", "--partner", "acme", "--id", "acme-2", "--route", "models", "--out", "next", "-o", "table")
	second, _ := between(t, said, "under the signing_keys that it has:\n\n", "\nand in the route")
	h.write("both.yaml", before+route+top+second)
	h.sallyport(exitOK, "check", "-c", "both.yaml")
	if !exists("next/root.pem") || strings.Contains(said, "After the first start") || strings.Contains(said, "touch") {
		t.Errorf("the second time want only lines to paste, got:\n%s", said)
	}

	t.Chdir(h.path("acme"))
	call := []string{"curl", "--key-id", "acme-1", "--secret", "acme-1.secret", "--cacert", "root.pem"}
	if out, _ := h.sallyport(exitOK, append(call, "-d", "x", h.url)...); out != "key:acme" {
		t.Errorf("the server was asked by %q, want key:acme", out)
	}
	// Advice about tokens does not help a caller with a key.
	if out, stderr := h.sallyport(exitOK, append(call, "-X", "DELETE", h.url)...); strings.Contains(out+stderr, "token") || !strings.Contains(stderr, "forbidden: ") {
		t.Errorf("got %q and %q, want words about the key", out, stderr)
	}
	if exec.Command("python3", "-c", "import requests").Run() != nil {
		t.Log("python3 has no requests here: call.py was not run")
		return
	}
	out, err := exec.Command("python3", "call.py", h.url).CombinedOutput()
	if err != nil || string(out) != "200\nkey:acme\n" {
		t.Errorf("call.py: %v\n%s", err, out)
	}
	late := strings.Replace(read(t, "call.py"), "answer = requests", "import time; real = time.time; time.time = lambda: real() - 100\n    answer = requests", 1)
	if err := os.WriteFile("call_late.py", []byte(late+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("python3", "call_late.py", h.url).CombinedOutput(); err == nil || !strings.Contains(string(out), "refused: stale: ") {
		t.Errorf("with a clock that is late: %v\n%s", err, out)
	}
}

// between returns what stands between two texts, and what follows.
func between(t *testing.T, text, from, to string) (part, rest string) {
	t.Helper()
	_, text, ok := strings.Cut(text, from)
	part, rest, found := strings.Cut(text, to)
	if !ok || !found {
		t.Fatalf("no %q and %q in:\n%s", from, to, text)
	}
	return part, rest
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
