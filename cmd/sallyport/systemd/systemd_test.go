package systemd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// manager is the receiving end of NOTIFY_SOCKET.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, c}
}

// next returns the lines of the next message.
func (m *manager) next() []string {
	m.t.Helper()
	b := make([]byte, 4096)
	if err := m.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	n, err := m.conn.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Split(string(b[:n]), "\n")
}

func take(t *testing.T, log *bytes.Buffer) *Service {
	t.Helper()
	s, err := Take(slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMessages(t *testing.T) {
	m, log := newManager(t), &bytes.Buffer{}
	s := take(t, log)
	s.Ready("serving on https [::]:443")
	if got, want := m.next(), []string{"READY=1", "STATUS=serving on https [::]:443"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	s.Reloading()
	if got := m.next(); got[0] != "RELOADING=1" || !strings.HasPrefix(got[1], "MONOTONIC_USEC=") || len(got) != 3 {
		t.Errorf("got %q, want RELOADING=1 with the time and a status", got)
	}
	s.Stopping("draining 3 requests", 30*time.Second)
	if got, want := m.next(), []string{"STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000", "STATUS=draining 3 requests"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if log.Len() > 0 {
		t.Error(log)
	}
}

// A status comes from files that others may have written. It must not become an assignment.
func TestStatusIsOneLine(t *testing.T) {
	m := newManager(t)
	take(t, &bytes.Buffer{}).Ready("refused: a\nMAINPID=1\r\nSTOPPING=1")
	if got, want := m.next(), []string{"READY=1", "STATUS=refused: a; MAINPID=1; STOPPING=1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A child process must not inherit variables that let it report for this process.
func TestTakeLeavesNothingInTheEnvironment(t *testing.T) {
	newManager(t)
	all := []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
	for _, name := range all[1:] {
		t.Setenv(name, "1") // sockets and watchdog of another process
	}
	s := take(t, &bytes.Buffer{})
	for _, name := range all {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s is still %q", name, v)
		}
	}
	if len(s.Sockets) > 0 || s.watchdog != 0 {
		t.Errorf("took %d sockets and a watchdog of %v that belong to another process", len(s.Sockets), s.watchdog)
	}
}

// The watchdog gets a message for each check at which the gateway was alive, and no other.
func TestWatchdogIsFedOnlyWhileAlive(t *testing.T) {
	m, log := newManager(t), &bytes.Buffer{}
	t.Setenv("WATCHDOG_USEC", "2000")
	s := take(t, log)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := 0
	s.Watch(ctx, func(context.Context) error {
		switch looks++; looks {
		case 2, 3:
			return errors.New("accepting connections at [::]:443")
		case 5:
			cancel()
		}
		return nil
	})
	s.Ready("the end of the test")
	for range 3 { // the first, fourth and fifth look
		if got := m.next(); !slices.Equal(got, []string{"WATCHDOG=1"}) {
			t.Errorf("got %q, want WATCHDOG=1", got)
		}
	}
	if got := m.next(); got[0] != "READY=1" {
		t.Errorf("got %q, want no further sign of life", got)
	}
	if n := strings.Count(log.String(), "accepting connections at [::]:443"); n != 2 {
		t.Errorf("the log names the fault %d times, want 2:\n%s", n, log)
	}
}

// Without a service manager nothing is sent or watched.
func TestNothingIsSentWithoutAServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	log := &bytes.Buffer{}
	s := take(t, log)
	s.Ready("serving")
	s.Watch(t.Context(), func(context.Context) error { t.Error("asked whether it is alive"); return nil })
	if log.Len() > 0 {
		t.Error(log)
	}
}

// If the service manager cannot be reached, that is logged, and the gateway goes on.
func TestMessageThatCannotBeSentIsLogged(t *testing.T) {
	m, log := newManager(t), &bytes.Buffer{}
	m.conn.Close()
	take(t, log).Ready("serving")
	if !strings.Contains(log.String(), "READY=1") {
		t.Errorf("the log lacks the message that was lost: %q", log)
	}
}
