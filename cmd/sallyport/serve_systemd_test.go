package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServeUnderServiceManager runs the program as systemd does: with a socket at descriptor 3 and
// a place for messages. It reports its start, a reload by SIGHUP, and its end.
func TestServeUnderServiceManager(t *testing.T) {
	dir := t.TempDir()
	notify := filepath.Join(dir, "notify")
	messages, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()

	config := filepath.Join(dir, "gateway.yaml")
	write := func(more string) {
		text := `listen: {https: ":443", http: off, health: off}
tls: {local: {}}
routes:
  - {host: a.example, upstream: "http://127.0.0.1:1", callers: anonymous, rules: [{allow: "*"}]}
reload: {watch: false}
` + more
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	log := &strings.Builder{}
	c := exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec sallyport serve -c "$0"`, config)
	c.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify, "LISTEN_FDS=1", "LISTEN_FDNAMES=https", "WATCHDOG_USEC=600000000")
	c.ExtraFiles, c.Stderr = []*os.File{socket}, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = c.Process.Kill()
			_ = c.Wait()
			t.Log(log)
		}
	}()
	expect := func(want ...string) {
		t.Helper()
		b := make([]byte, 4096)
		if err := messages.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			n, err := messages.Read(b)
			if err != nil {
				t.Fatalf("no message %s: %v", w, err)
			}
			got := strings.ReplaceAll(string(b[:n]), "\n", " ")
			if got == "WATCHDOG=1" {
				n, err = messages.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				got = strings.ReplaceAll(string(b[:n]), "\n", " ")
			}
			if !strings.HasPrefix(got, w) {
				t.Fatalf("got %q, want %q", got, w)
			}
		}
	}
	expect("READY=1 STATUS=serving on https " + l.Addr().String())
	if conn, err := net.Dial("tcp", l.Addr().String()); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	write("drain: 9s\n")
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("RELOADING=1 MONOTONIC_USEC=", "READY=1 STATUS=serving on https")
	write("drain: nine\n")
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("RELOADING=1 MONOTONIC_USEC=", "READY=1 STATUS=serving on https "+l.Addr().String()+"; the last reload was refused: ")
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect("STOPPING=1 EXTEND_TIMEOUT_USEC=24000000 STATUS=draining 0 requests")
	ended = true
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}
