package story

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a program may take to start to listen: TensorFlow needs
// several seconds on a busy machine.
const patience = 60 * time.Second

// Process is a program that a test has started. It is stopped with the test.
type Process struct {
	name string
	pid  int
	log  string
	done chan struct{} // closed when it has ended
	err  error         // of Wait, once done is closed
}

// Start starts a program. Its output goes to a file, whose end is shown if the
// test fails. Should the test die without its cleanup, the kernel ends the
// program.
func Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{name: name, log: filepath.Join(t.TempDir(), "log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig is sent when the thread that started the program ends, so
		// that thread stays with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	p.pid = cmd.Process.Pid
	t.Cleanup(func() {
		p.Stop(t)
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.tail(4000))
		}
	})
	return p
}

// PeakMemory is the most memory that the program has had resident, in bytes.
func (p *Process) PeakMemory(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatalf("reading the memory of %s: %v", p.name, err)
	}
	return kib << 10
}

// CPU is the time that the program and its children have computed, in steps of ten milliseconds.
func (p *Process) CPU(t testing.TB) time.Duration {
	t.Helper()
	var sum time.Duration
	for pids := []string{strconv.Itoa(p.pid)}; len(pids) > 0; pids = pids[1:] {
		stat, err := os.ReadFile("/proc/" + pids[0] + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		// The name of the program, in parentheses, may have spaces; state is the first field behind it.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, field := range fields[11:13] { // utime and stime
			ticks, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
		children, err := os.ReadFile("/proc/" + pids[0] + "/task/" + pids[0] + "/children")
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(children))...)
	}
	return sum
}

// Output is what the program has printed so far.
func (p *Process) Output() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

func (p *Process) tail(n int) string {
	s := p.Output()
	return s[max(0, len(s)-n):]
}

// Signal sends a signal, if the program still runs.
func (p *Process) Signal(s syscall.Signal) {
	select {
	case <-p.done: // its id may be another's by now
	default:
		_ = syscall.Kill(p.pid, s)
	}
}

// Wait waits until the program has ended by itself and returns its exit status,
// -1 if a signal ended it.
func (p *Process) Wait(t testing.TB, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		t.Fatalf("%s still runs after %v", p.name, limit)
	}
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0
	case errors.As(p.err, &exit):
		return exit.ExitCode()
	}
	t.Fatalf("waiting for %s: %v", p.name, p.err)
	return -1
}

// Stop ends the program: politely, and by force after ten seconds.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(10 * time.Second):
	}
	t.Logf("%s did not end within 10 s", p.name)
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Listens waits until the program accepts connections at an address: host:port,
// or the path of a UNIX socket.
func (p *Process) Listens(t testing.TB, address string) {
	t.Helper()
	p.ListensWithin(t, address, patience)
}

// ListensWithin is Listens for programs that may take longer to start.
func (p *Process) ListensWithin(t testing.TB, address string, limit time.Duration) {
	t.Helper()
	network := "tcp"
	if filepath.IsAbs(address) {
		network = "unix"
	}
	p.untilLimit(t, limit, "listen on "+address, func() bool {
		c, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// up reports whether the program accepts connections at an address within a time.
func (p *Process) up(address string, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			c.Close()
			return true
		}
	}
	return false
}

// Prints waits until the program has printed text.
func (p *Process) Prints(t testing.TB, text string) {
	t.Helper()
	p.until(t, "print "+text, func() bool {
		b, err := os.ReadFile(p.log)
		return err == nil && bytes.Contains(b, []byte(text))
	})
}

func (p *Process) until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	p.untilLimit(t, patience, what, holds)
}

func (p *Process) untilLimit(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if holds() {
			return
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended before it did %s: %v\n%s", p.name, what, p.err, p.tail(4000))
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s did not %s within %v\n%s", p.name, what, limit, p.tail(4000))
}

// FreeAddress is a loopback address whose port was free a moment ago. It lies
// below the range from which the system takes ports for connections, so that no
// client has it by the time a server wants it.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(22000))))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}
