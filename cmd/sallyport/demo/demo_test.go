package demo_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/cmd/sallyport/demo"
)

// output collects the output of a command. It is safe for concurrent use.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
	more chan struct{} // has room for one
}

func newOutput() *output { return &output{more: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until the output matches, and returns the submatches.
func (o *output) await(t *testing.T, pattern string) []string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	for late := time.After(time.Minute); ; {
		if m := want.FindStringSubmatch(o.String()); m != nil {
			return m
		}
		select {
		case <-o.more:
		case <-late:
			t.Fatalf("the output never matched %q:\n%s", pattern, o.String())
		}
	}
}

// start runs `sallyport demo` and returns its output; stop acts like Ctrl-C.
func start(t *testing.T, args ...string) (out *output, stop func() error) {
	t.Helper()
	out = newOutput()
	c := demo.Command()
	c.SetArgs(append([]string{}, args...)) // nil would be the arguments of the test itself
	c.SetOut(out)
	c.SetErr(out)
	c.SilenceUsage = true
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	return out, sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
}

func TestCheck(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	c := demo.Command()
	c.SetArgs([]string{"--check", "--listen", "127.0.0.1:0"})
	c.SetOut(&out)
	c.SetErr(&out)
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, row := range []string{
		`(?m)^a fresh token +200 predictions +200 predictions *$`,
		`(?m)^no token +401 Bearer +401 Bearer *$`,
		`(?m)^a token without the scope +403 insufficient_scope +403 insufficient_scope *$`,
		`(?m)^an expired token +401 invalid_token +401 invalid_token *$`,
		`(?m)^a signed request +200 predictions, signed +200 predictions, signed *$`,
		`(?m)^the same signed request again +401 replayed +401 replayed *$`,
		`(?m)^a signed request with another body +400 digest_mismatch +400 digest_mismatch *$`,
		`(?m)^a token of a forger +401 invalid_token +401 invalid_token *$`,
	} {
		if !regexp.MustCompile(row).MatchString(out.String()) {
			t.Errorf("the table lacks %s", row)
		}
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "sallyport-demo-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// TestPrintedLinesWork runs the commands that the demo prints, without a shell.
func TestPrintedLinesWork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with a space")
	out, stop := start(t, "--listen", "127.0.0.1:0", "--dir", dir)
	defer stop()
	out.await(t, "Ctrl-C ends")
	line := regexp.MustCompile(`(?m)^  curl -i --cacert '([^']+)'(?: -H 'Authorization: ([^']+)')? -d '([^']+)' https://localhost:(\d+)(/\S+)$`)
	lines := line.FindAllStringSubmatch(out.String(), -1)
	if len(lines) != 2 {
		t.Fatalf("want two lines to paste, found %d:\n%s", len(lines), out.String())
	}
	for i, want := range []struct {
		status int
		body   string
	}{{200, "2.5, 3.0, 4.5"}, {401, ""}} {
		root, token, body, port, path := lines[i][1], lines[i][2], lines[i][3], lines[i][4], lines[i][5]
		status, answer := post(t, root, token, port, path, body)
		if status != want.status || !strings.Contains(answer, want.body) {
			t.Errorf("line %d: got %d %s, want %d %s", i, status, answer, want.status, want.body)
		}
		out.await(t, fmt.Sprintf(`"status":%d`, want.status)) // the record of the call
	}
	signed := regexp.MustCompile(`(?m)^  \S+ curl -i --cacert '[^']+' --key-id partner-demo --secret '([^']+)' -d '[^']+' https://localhost:\d+/\S+$`)
	key := signed.FindStringSubmatch(out.String())
	if key == nil {
		t.Fatalf("no line with a signed call:\n%s", out.String())
	}
	if info, err := os.Stat(key[1]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the partner's key: %v, %v", info, err)
	}
	if err := stop(); err != nil {
		t.Errorf("ending: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "demo-gateway.yaml")); err != nil {
		t.Errorf("a folder that the user chose must stay: %v", err)
	}
}

// post makes the request of the printed curl command.
func post(t *testing.T, root, authorization, port, path, body string) (int, string) {
	t.Helper()
	pem, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "https://localhost:"+port+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl -d does
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestListen(t *testing.T) {
	// Make sure that the default port is in use, by this test or another process.
	if l, err := net.Listen("tcp", "127.0.0.1:8443"); err == nil {
		defer l.Close()
	}
	t.Run("the default port is in use", func(t *testing.T) {
		out, stop := start(t)
		defer stop()
		out.await(t, `127\.0\.0\.1:8443 is in use; the gateway takes another port`)
		out.await(t, "Ctrl-C ends")
		if err := stop(); err != nil {
			t.Errorf("ending: %v", err)
		}
	})
	t.Run("a chosen port is in use", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := demo.Command()
		c.SetArgs([]string{"--listen", l.Addr().String()})
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "opening the gateway's port") {
			t.Errorf("got %v, want a refusal of the port", err)
		}
	})
}
