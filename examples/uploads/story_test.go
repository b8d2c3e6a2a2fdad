// Package uploads tests uploads that are refused early: clients that send a whole body before they
// read must see the refusal.
package uploads

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// setting returns an environment variable, or a default; see README.md.
func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// client is a program that uploads, and prints a line for each answer.
type client struct {
	name string
	args []string
	grpc bool // speaks only gRPC
}

// clients returns the clients that the tests always use, and those that UPLOADS_ variables name.
func clients(t *testing.T) []client {
	t.Helper()
	story.Need(t, "curl", "node")
	python := filepath.Join(story.Installed(t, "clients", "clients/python/requirements.txt", "clients/interop/requirements.txt"), "bin", "python")
	all := []client{
		{name: "curl HTTP/1.1", args: []string{"./curl.sh", "--http1.1"}},
		{name: "curl HTTP/2", args: []string{"./curl.sh", "--http2"}},
		{name: "requests", args: []string{python, "python/upload.py", "requests"}},
		{name: "requests, chunked", args: []string{python, "python/upload.py", "chunked"}},
		{name: "httpx HTTP/1.1", args: []string{python, "python/upload.py", "httpx"}},
		{name: "node fetch", args: []string{"node", "node/upload.mjs", "fetch"}},
	}
	if more := os.Getenv("UPLOADS_PYTHON"); more != "" {
		all = append(all,
			client{name: "httpx HTTP/2", args: []string{more, "python/upload.py", "httpx2"}},
			client{name: "tritonclient HTTP", args: []string{more, "python/upload.py", "triton"}},
			client{name: "tritonclient gRPC", args: []string{more, "python/upload.py", "triton-grpc"}, grpc: true})
	}
	if modules := os.Getenv("UPLOADS_NODE_MODULES"); modules != "" {
		dir := t.TempDir()
		program, err := os.ReadFile("node/upload.mjs")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "upload.mjs"), program, 0o600)
		}
		if err == nil {
			err = os.Symlink(modules, filepath.Join(dir, "node_modules"))
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all,
			client{name: "undici HTTP/1.1", args: []string{"node", filepath.Join(dir, "upload.mjs"), "undici"}},
			client{name: "undici HTTP/2", args: []string{"node", filepath.Join(dir, "upload.mjs"), "undici2"}})
	}
	if java := os.Getenv("UPLOADS_JAVA"); java != "" {
		all = append(all,
			client{name: "Java HTTP/1.1", args: []string{java, "java/Upload.java", "HTTP_1_1"}},
			client{name: "Java HTTP/2", args: []string{java, "java/Upload.java", "HTTP_2"}})
	}
	if only := os.Getenv("UPLOADS_CLIENTS"); only != "" {
		all = slices.DeleteFunc(all, func(c client) bool { return !strings.Contains(c.name, only) })
	}
	return all
}

// run uploads some times, and returns what the client printed.
func (c *client) run(t *testing.T, ca, url string, mib string, times int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.args[0], append(slices.Clone(c.args[1:]), url, mib, strconv.Itoa(times))...)
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+ca, "NODE_EXTRA_CA_CERTS="+ca, "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s", c.name, err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// early starts a server that answers once it has read a head. Then it discards the rest, or closes
// at once.
func early(t *testing.T, abrupt bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				fmt.Fprint(c, "HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
				if !abrupt {
					_ = c.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// overH2 starts a server over HTTP/2 without TLS. It answers once it has read a head, or the whole.
func overH2(t *testing.T, whole bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if whole {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		if r.Header.Get("Content-Type") == "application/grpc" {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "9") // FAILED_PRECONDITION
			return
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() { s.Close() })
	go s.Serve(l)
	return l.Addr().String()
}

// TestRefusalsReachClientsThatStillSend counts, for each client and each refusal, in how many tries
// the client saw the status.
func TestRefusalsReachClientsThatStillSend(t *testing.T) {
	reader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer reader.Close()
	g := story.StartGateway(t, "http://127.0.0.1:5003", reader.URL, "127.0.0.1:5000", early(t, false), "127.0.0.1:5001", early(t, true), "127.0.0.1:5002", overH2(t, false), "127.0.0.1:5004", overH2(t, true))
	base := setting("UPLOADS_URL", strings.TrimSuffix(g.URL("/"), "/"))
	ca := setting("UPLOADS_CA", g.CA)
	mib := setting("UPLOADS_MIB", "32")
	times, err := strconv.Atoi(setting("UPLOADS_TIMES", "1"))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct{ path, status, grpc string }{
		{"/token", "401", "UNAUTHENTICATED"}, {"/large", "413", "RESOURCE_EXHAUSTED"}, {"/down", "502", "UNAVAILABLE"},
		{"/early", "422", ""}, {"/abrupt", "422", ""}, {"/h2c", "422", "FAILED_PRECONDITION"},
	}
	for _, c := range clients(t) {
		row := c.name
		for _, x := range cases {
			status := x.status
			if c.grpc {
				if x.grpc == "" { // servers of gRPC speak HTTP/2
					row += "\t-"
					continue
				}
				status = "StatusCode." + x.grpc
			}
			begun, saw := time.Now(), 0
			for _, line := range c.run(t, ca, base+x.path, mib, times) {
				if line == status {
					saw++
				} else {
					t.Errorf("%s, %s: %s", c.name, x.path, line)
				}
			}
			row += fmt.Sprintf("\t%s %d/%d in %.1fs", x.path, saw, times, time.Since(begun).Seconds())
		}
		t.Log(row)
	}
}

// TestSmallRefusedUploadsKeepTheirConnection: a refusal costs no new handshake.
func TestSmallRefusedUploadsKeepTheirConnection(t *testing.T) {
	g := story.StartGateway(t)
	for _, version := range []string{"--http1.1", "--http2"} {
		one := []string{"-sS", version, "--cacert", g.CA, "-o", os.DevNull, "-w", "%{http_code} in %{num_connects}, ", "-d", "{}", g.URL("/token")}
		out, err := exec.CommandContext(t.Context(), "curl", slices.Concat(one, []string{"--next"}, one)...).CombinedOutput()
		if want := "401 in 1, 401 in 0, "; err != nil || string(out) != want {
			t.Errorf("curl %s: %v, %q; want %q", version, err, out, want)
		}
	}
	python := filepath.Join(story.Installed(t, "clients", "clients/python/requirements.txt", "clients/interop/requirements.txt"), "bin", "python")
	session := client{name: "requests.Session", args: []string{python, "python/upload.py", "session"}}
	if got := strings.Join(session.run(t, g.CA, g.URL("/token"), "0.001", 3), ", "); got != "401, 401, 401, 1 connections" {
		t.Errorf("requests.Session: %s", got)
	}
}
