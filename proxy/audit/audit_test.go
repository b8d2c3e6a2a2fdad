package audit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/setting"
)

// sink is a destination that can be slow or fail.
type sink struct {
	mu    sync.Mutex
	b     bytes.Buffer
	err   error         // the error of Write
	part  int           // how much a failing Write takes anyway
	block chan struct{} // if not nil, Write waits for it
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	block := s.block
	s.mu.Unlock()
	if block != nil {
		<-block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		n := min(s.part, len(p))
		s.b.Write(p[:n])
		return n, s.err
	}
	return s.b.Write(p)
}

func (s *sink) fail(err error, part int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.part = err, part
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// run runs the log. The returned function stops it and waits.
func run(t *testing.T, l *Log) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func newLog(t *testing.T, c Config, o Options) *Log {
	t.Helper()
	l, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFileIsAppendedToAndPrivate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	for range 2 { // the second run appends
		l := newLog(t, Config{File: setting.Place(name)}, Options{})
		stop := run(t, l)
		l.Write(fullRecord())
		l.Write(fullRecord())
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat(string(fullRecord().appendLine(nil, new(stamp))), 4); string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v, want 0600", info.Mode(), err)
	}
}

func TestLogNeedsAFileThatOpens(t *testing.T) {
	if _, err := New(Config{File: setting.Place(filepath.Join(t.TempDir(), "no", "audit.log"))}, Options{}); err == nil {
		t.Error("New succeeded without a file")
	}
}

func TestRecordsAreWrittenWithinThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		l.Write(fullRecord())
		time.Sleep(2 * pause)
		synctest.Wait()
		if want := string(fullRecord().appendLine(nil, new(stamp))); s.String() != want {
			t.Errorf("after %s: %q, want %q", 2*pause, s.String(), want)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A stalled sink stalls no request: records with a reservation are kept, further reservations
// are refused, and other records are dropped and counted.
func TestStalledSinkStallsNoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{block: make(chan struct{})}
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)

		reserved := 0
		for l.Reserve() == nil {
			reserved++
		}
		if want := budget / reservation; reserved != want {
			t.Errorf("%d reservations, want %d", reserved, want)
		}
		kept := 0
		for l.Write(fullRecord()); l.Stats().Dropped == 0; l.Write(fullRecord()) {
			kept++
		}
		if line := len(fullRecord().appendLine(nil, new(stamp))); kept < refusedBudget/line-2 {
			t.Errorf("%d records without a reservation were kept, want as many as fit into %d bytes", kept, refusedBudget)
		}
		r := fullRecord()
		r.Reserved = true
		for range reserved {
			l.Write(r)
		}
		if st := l.Stats(); st.Written != uint64(reserved+kept) || st.Reserved != 0 {
			t.Errorf("written %d with %d reservations left, want %d and none", st.Written, st.Reserved, reserved+kept)
		}
		for !errors.Is(l.Reserve(), ErrFull) {
			l.Write(fullRecord())
		}
		close(s.block)
		if err := stop(); err != nil {
			t.Error(err)
		}
		out := s.String()
		if got := strings.Count(out, `"id":`); got < reserved {
			t.Errorf("%d records came out, want at least %d", got, reserved)
		}
		if !strings.Contains(out, `"dropped":1}`) {
			t.Error("the log does not say that a record was dropped")
		}
	})
}

func TestFailingSinkLosesAndRepeatsNoRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		var logged bytes.Buffer
		l := newLog(t, Config{}, Options{Stdout: &s, Log: slog.New(slog.NewTextHandler(&logged, nil))})
		stop := run(t, l)

		s.fail(errors.New("no space left on device"), 10)
		l.Write(fullRecord())
		time.Sleep(2*pause + 5*retry)
		l.Write(fullRecord())
		s.fail(nil, 0)
		time.Sleep(2 * retry)
		if err := stop(); err != nil {
			t.Error(err)
		}
		// The sink took ten bytes at each attempt: nothing twice, nothing lost.
		if want := strings.Repeat(string(fullRecord().appendLine(nil, new(stamp))), 2); s.String() != want {
			t.Errorf("got  %q\nwant %q", s.String(), want)
		}
		if got := strings.Count(logged.String(), "cannot be written"); got != 1 {
			t.Errorf("the failure was logged %d times, want once:\n%s", got, logged.String())
		}
		if !strings.Contains(logged.String(), "can be written again") {
			t.Errorf("the recovery was not logged:\n%s", logged.String())
		}
	})
}

func TestRunReportsLostBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		s.fail(errors.New("broken"), 0)
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		l.Write(fullRecord())
		time.Sleep(time.Minute)
		if err := stop(); err == nil || !strings.Contains(err.Error(), "bytes are lost") {
			t.Errorf("got %v, want an error about lost bytes", err)
		}
	})
}

func TestRunWaitsAtMostFiveSecondsForAHangingWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{block: make(chan struct{})}
		l := newLog(t, Config{}, Options{Stdout: &s})
		stop := run(t, l)
		l.Write(fullRecord())
		time.Sleep(time.Second)
		start := time.Now()
		if err := stop(); err == nil || !strings.Contains(err.Error(), "the last write hangs") {
			t.Errorf("got %v, want an error about a hanging write", err)
		}
		if took := time.Since(start); took != farewell {
			t.Errorf("Run ended after %s, want %s", took, farewell)
		}
		close(s.block)
	})
}

func TestConcurrentRecordsStayWholeLines(t *testing.T) {
	var s sink
	l := newLog(t, Config{}, Options{Stdout: &s})
	stop := run(t, l)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				r := fullRecord()
				r.Reserved = l.Reserve() == nil
				l.Write(r)
			}
		})
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat(string(fullRecord().appendLine(nil, new(stamp))), 4000); s.String() != want {
		t.Errorf("got %d bytes, want %d of 4000 equal lines", len(s.String()), len(want))
	}
}

func TestAuditLogCannotBeSwitchedOff(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"", ""},
		{"stdout", ""},
		{"/var/log/sallyport/audit.log", ""},
		{"off", `audit.file: "off": the audit log cannot be switched off`},
		{"stderr", `audit.file: "stderr": is not a valid destination here`},
	} {
		t.Run(tt.file, func(t *testing.T) {
			var f setting.Faults
			(&Config{File: setting.Place(tt.file)}).Check("audit", &f)
			if tt.want == "" && len(f) > 0 || !strings.HasPrefix(f.Error(), tt.want) {
				t.Errorf("got %q, want %q", f.Error(), tt.want)
			}
		})
	}
}

func TestWriteDoesNotAllocate(t *testing.T) {
	l := newLog(t, Config{}, Options{Stdout: &sink{}})
	l.lines = make([]byte, 0, 1<<20)
	r := fullRecord()
	n := testing.AllocsPerRun(1000, func() {
		r.Reserved = l.Reserve() == nil
		l.Write(r)
		l.lines = l.lines[:0]
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkWrite(b *testing.B) {
	l, err := New(Config{}, Options{Stdout: discard{}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := fullRecord()
		for pb.Next() {
			r.Reserved = l.Reserve() == nil
			l.Write(r)
		}
	})
	cancel()
	<-done
}
