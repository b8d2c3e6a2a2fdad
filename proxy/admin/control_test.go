package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/proxy/setting"
)

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "gateway.sock")
}

// controlling runs a control server until the test ends.
func controlling(t *testing.T, c *Control) {
	t.Helper()
	l, err := c.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Lstat(c.o.Path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket was not removed: %v", err)
		}
	})
}

func fakeReload(r ReloadReport) func(context.Context) ReloadReport {
	return func(context.Context) ReloadReport { return r }
}

func fakeStatus(s StatusReport) func() StatusReport { return func() StatusReport { return s } }

func TestControlAnswersTheClient(t *testing.T) {
	at := time.Date(2026, 11, 28, 9, 12, 0, 0, time.UTC)
	report := ReloadReport{
		Result: ReloadRefused, From: "3f9a", To: "3f9a", Summary: "refused", Changes: []string{"route a changed"}, LoadedAt: at,
		Faults: setting.Faults{{File: "gateway.yaml", Line: 3, Path: "routes[0].upstream", Value: "x", Problem: "p", Cure: "c"}},
	}
	status := StatusReport{
		State: State{Ready: true, Version: "v1", Upstreams: []Upstream{{Name: "app", Endpoints: []Endpoint{{URL: "http://app:8000", Healthy: true, Idle: 2, Active: 1}}}},
			Certificates: []Certificate{{Hosts: []string{"a.example"}, Source: "files", NotAfter: at}}, Issuers: []Issuer{{Name: "corp", Keys: 2}}},
		PID: 7, Since: at, File: "gateway.yaml",
		Listeners: []Listener{{"https", "127.0.0.1:443"}}, Routes: 3, InFlight: 4, Connections: 5,
	}
	path := socketPath(t)
	controlling(t, NewControl(ControlOptions{Path: path, Reload: fakeReload(report), Status: fakeStatus(status)}))
	client := DialControl(path)
	gotReport, err := client.Reload(t.Context())
	if diff := cmp.Diff(report, gotReport); err != nil || diff != "" {
		t.Errorf("Reload: %v\n%s", err, diff)
	}
	gotStatus, err := client.Status(t.Context())
	if diff := cmp.Diff(status, gotStatus); err != nil || diff != "" {
		t.Errorf("Status: %v\n%s", err, diff)
	}
}

func TestControlRefusesOtherRequests(t *testing.T) {
	path := socketPath(t)
	reloads := 0
	controlling(t, NewControl(ControlOptions{Path: path, Status: fakeStatus(StatusReport{}),
		Reload: func(context.Context) ReloadReport { reloads++; return ReloadReport{Result: ReloadChanged} }}))
	client := DialControl(path).http
	for _, c := range []struct {
		method, target, content string
		want                    int
	}{
		{"GET", "/reload", "", http.StatusMethodNotAllowed},
		{"HEAD", "/reload", "", http.StatusMethodNotAllowed},
		{"POST", "/status", "", http.StatusMethodNotAllowed},
		{"POST", "/reload/", "", http.StatusNotFound},
		{"POST", "//reload", "", http.StatusNotFound},
		{"POST", "/%72eload", "", http.StatusNotFound},
		{"GET", "/", "", http.StatusNotFound},
		{"GET", "/debug/pprof/", "", http.StatusNotFound},
		{"POST", "/reload", "content", http.StatusRequestEntityTooLarge},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "http://control"+c.target, strings.NewReader(c.content))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.target, err)
		}
		response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s %s: status %d, want %d", c.method, c.target, response.StatusCode, c.want)
		}
	}
	if reloads != 0 {
		t.Errorf("%d reloads by refused requests", reloads)
	}
}

func TestControlBoundsTheHead(t *testing.T) {
	path := socketPath(t)
	controlling(t, NewControl(ControlOptions{Path: path, Reload: fakeReload(ReloadReport{}), Status: fakeStatus(StatusReport{})}))
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		_, _ = io.WriteString(c, "GET /status HTTP/1.1\r\nHost: control\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	}()
	answer := make([]byte, 12)
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 431" {
		t.Errorf("got %q, %v, want 431", answer, err)
	}
}

func TestSocketIsForItsUserOnly(t *testing.T) {
	path := socketPath(t)
	controlling(t, NewControl(ControlOptions{Path: path, Reload: fakeReload(ReloadReport{}), Status: fakeStatus(StatusReport{})}))
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v, want a socket of 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files in the folder, %v, want the socket alone", len(entries), err)
	}
}

func TestConnectionsOfOtherUsersAreClosed(t *testing.T) {
	for _, c := range []struct {
		name    string
		uid     int
		known   bool
		refused bool
	}{
		{"own user", os.Geteuid(), true, false},
		{"root", 0, true, false},
		{"another user", os.Geteuid() + 1000, true, true},
		{"unknown to the kernel", -1, true, true},
		{"unsupported system", 0, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := socketPath(t)
			var text bytes.Buffer
			control := NewControl(ControlOptions{Path: path, Reload: fakeReload(ReloadReport{}), Status: fakeStatus(StatusReport{PID: 7}), Log: slog.New(slog.NewTextHandler(&text, nil))})
			control.peer = func(net.Conn) (int, bool) { return c.uid, c.known }
			t.Run("", func(t *testing.T) {
				controlling(t, control)
				s, err := DialControl(path).Status(t.Context())
				var closed *ControlError
				if c.refused && !errors.As(err, &closed) || !c.refused && (err != nil || s.PID != 7) {
					t.Errorf("got %+v, %v, refused must be %v", s, err, c.refused)
				}
			})
			if logged := strings.Contains(text.String(), "refused a connection"); logged != c.refused {
				t.Errorf("logged %q", text.String())
			}
		})
	}
}

func TestKernelReportsThePeer(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if uid, known := peerUID(server); known && uid != os.Geteuid() {
		t.Errorf("peer %d, want %d", uid, os.Geteuid())
	}
}

func TestSocketOfDeadProcessIsReplaced(t *testing.T) {
	path := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as a killed process leaves it
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	if _, err := DialControl(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("asking: %v, want that the gateway is not running", err)
	}
	controlling(t, NewControl(ControlOptions{Path: path, Status: fakeStatus(StatusReport{PID: 7})}))
	if s, err := DialControl(path).Status(t.Context()); err != nil || s.PID != 7 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestListenReplacesNoFileAndNoLiveSocket(t *testing.T) {
	live := socketPath(t)
	l, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := socketPath(t)
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := socketPath(t)
	if err := os.Symlink(live, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"live socket", live, "another process answers"},
		{"file", file, "not a socket"},
		{"link to a socket", link, "not a socket"},
		{"missing folder", filepath.Join(filepath.Dir(file), "no", "s.sock"), "no such file"},
		{"long path", filepath.Join(filepath.Dir(file), strings.Repeat("x", 200)), "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := NewControl(ControlOptions{Path: c.path}).Listen()
			if err == nil {
				got.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Error("the file was replaced")
	}
}

func TestOnlyOneOfConcurrentListensSucceeds(t *testing.T) {
	path := socketPath(t)
	var all sync.WaitGroup
	listeners := make(chan net.Listener, 16)
	for range 16 {
		all.Go(func() {
			if l, err := NewControl(ControlOptions{Path: path}).Listen(); err == nil {
				listeners <- l
			} else if !strings.Contains(err.Error(), "another process answers") {
				t.Errorf("Listen: %v", err)
			}
		})
	}
	all.Wait()
	if n := len(listeners); n != 1 {
		t.Errorf("%d listen, want 1", n)
	}
	for len(listeners) > 0 {
		(<-listeners).Close()
	}
}

func TestCloseKeepsTheSocketOfAnotherProcess(t *testing.T) {
	path := socketPath(t)
	first, err := NewControl(ControlOptions{Path: path}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // an operator removes it, and another gateway starts
		t.Fatal(err)
	}
	second, err := NewControl(ControlOptions{Path: path}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of the second was removed: %v", err)
	}
}

func TestClientExplainsWhyNobodyAnswers(t *testing.T) {
	missing := socketPath(t)
	_, err := DialControl(missing).Reload(t.Context())
	var nobody *ControlError
	if !errors.As(err, &nobody) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing+": there is no control socket") {
		t.Errorf("Reload: %v", err)
	}
	if _, err := DialControl("/" + strings.Repeat("x", 200)).Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Reload: %v", err)
	}
}

func TestClientLimitsAnswersOfOtherServers(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", "malformed"},
		{"an error with control characters", "HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n\x1b[2Jwiped", "[2Jwiped"},
		{"unknown result", "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"result\":\"maybe\"}", `unknown result "maybe"`},
		{"no JSON", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "reading the gateway's answer"},
		{"half an answer", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "closed the connection"},
		{"a huge head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), "exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := socketPath(t)
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if s, err := l.Accept(); err == nil {
					_, _ = s.Read(make([]byte, 4096))
					_, _ = io.WriteString(s, c.answer)
					s.Close()
				}
			}()
			_, err = DialControl(path).Reload(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
		})
	}
}

func TestReloadEndsWithItsClient(t *testing.T) {
	path := socketPath(t)
	begun, ended := make(chan struct{}), make(chan struct{})
	controlling(t, NewControl(ControlOptions{Path: path, Reload: func(ctx context.Context) ReloadReport {
		close(begun)
		<-ctx.Done()
		close(ended)
		return ReloadReport{Result: ReloadRefused}
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := DialControl(path).Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Reload: %v, want context.Canceled", err)
	}
	<-ended
}

func ExampleControl() {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	control := NewControl(ControlOptions{
		Path: filepath.Join(dir, "gateway.sock"),
		Reload: func(context.Context) ReloadReport {
			return ReloadReport{Result: ReloadChanged, Summary: "config 3f9a -> 81c2: 1 route added"}
		},
		Status: func() StatusReport { return StatusReport{Routes: 3} },
	})
	l, err := control.Listen()
	if err != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- control.Run(ctx, l) }()
	report, err := DialControl(filepath.Join(dir, "gateway.sock")).Reload(ctx)
	fmt.Println(report.Summary, err)
	stop()
	fmt.Println(<-done)
	// Output:
	// config 3f9a -> 81c2: 1 route added <nil>
	// <nil>
}
