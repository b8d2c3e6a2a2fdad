// Package audit records what happened to each request: one [Record] each, which [Log] writes as a
// line of JSON and [Metrics] counts.
//
// A slow or full disk must neither stall requests nor lose records unnoticed. Lines are therefore
// buffered in memory, up to a fixed limit, and one writer writes them in large pieces. A request
// reserves space for its record with [Log.Reserve] before it is forwarded, and is refused if
// there is none. So nothing reaches an upstream without a record. Records of requests that are
// refused earlier have a separate buffer. When that is full they are dropped, and the log itself
// says how many. A flood of refused requests therefore cannot block admitted ones, nor the
// reverse.
package audit

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"sallyport/proxy/setting"
)

// Config is the section `audit` of gateway.yaml.
type Config struct {
	// File is the destination of records, appended as lines of JSON: a path, or "stdout", the
	// default. A missing file is created with mode 0600. The gateway opens the file again at
	// SIGUSR1, and when the path leads to another file or to none, as after a log rotation.
	File setting.Place `yaml:"file"`
	// Durable says what must have happened to a record before the last byte of its answer is sent.
	// Default: off. Then a record is written at most 50 ms after its request, or later if the file
	// is slower than the records; a crash loses the records that were not written yet.
	//
	// With answer, the file has the record: a crash of the gateway loses no record of an answered
	// request. With synced, the disk has it too (fsync), so a crash of the machine loses none either.
	// If a record cannot be written within 5 s, its answer is cut: the client never gets the end.
	// This also holds for refusals, for the trailers of gRPC and for the close of a WebSocket.
	Durable setting.Durability `yaml:"durable"`
}

// Check records the faults of the section at path. It reads no file.
func (c *Config) Check(path string, f *setting.Faults) {
	switch word := c.File.Word(); word {
	case "off", "none", "false", "no":
		f.Add(path+".file", word, "the audit log cannot be switched off", `leave it out for stdout, or name a file; /dev/null takes everything`)
	default:
		c.File.Check(path+".file", "leave it out for stdout, or name a file", f, stdout)
	}
	c.Durable.Check(path+".durable", c.OnStdout(), f)
}

// OnStdout reports whether records go to standard output.
func (c *Config) OnStdout() bool { return c.File == "" || c.File == stdout }

// Options configure a [Log]. The zero value works.
type Options struct {
	Stdout io.Writer        // os.Stdout if nil
	Log    *slog.Logger     // logs the first failed write and the recovery; discarded if nil
	Now    func() time.Time // time.Now if nil
}

const (
	// stdout is the value for standard output.
	stdout = "stdout"
	// budget limits the bytes of buffered lines with a reservation, and of open reservations,
	// together.
	budget = 32 << 20
	// refusedBudget limits the bytes of all other buffered lines.
	refusedBudget = 8 << 20
	// reservation is the bytes that a reservation counts: about twice a common line. A
	// longer line (up to maxLine) is accepted too, so memory is limited by the number of
	// reservations.
	reservation = 1 << 10
	// batch is the number of buffered bytes that wakes the writer before pause ends.
	batch = 64 << 10
	// pause is how long a line waits for others, because a write for each line would cost
	// more than formatting it.
	pause = 50 * time.Millisecond
	// looking is how often an idle writer checks whether its file was moved away.
	looking = time.Second
	// retry is the wait of the writer after a failed write.
	retry = time.Second
	// CommitTime is how long an answer waits at most until its record is written.
	CommitTime = 5 * time.Second
	// farewell is how long Run waits, once its context has ended, for a write that hangs.
	farewell = 5 * time.Second
)

// ErrFull is the error of [Log.Reserve] when the sink is slower than the records arrive, or
// fails.
var ErrFull = errors.New("no room for an audit record: the log's sink is slow or failing")

// Log writes records. It is safe for concurrent use. Records leave memory only while [Log.Run]
// runs.
type Log struct {
	stdout io.Writer
	log    *slog.Logger
	now    func() time.Time

	wake    chan struct{} // holds one token: there are lines
	full    chan struct{} // holds one token: there is a batch
	changed chan struct{} // holds one token: the target changes

	mu      sync.Mutex // guards the fields below
	target  target     // destination of lines; changed by the writer only
	next    *target    // destination of lines after head; nil: no change pending
	head    buffered   // the part of lines that still goes to target while next is set
	lines   []byte     // waiting for the writer
	refused int        // bytes of lines without a reservation
	spare   []byte     // empty buffer for reuse
	out     buffered   // taken by the writer but not yet written
	stats   Stats
	commits commits
	stamp   stamp
	lost    uint64 // records dropped since the last line that reported such

	// Used by the writer only.
	begun  []byte // the part of a line that the target took before it failed
	astray string // the last logged fault of opening a moved file again; "" for none
}

// buffered is a number of bytes in lines.
type buffered struct {
	bytes   int // in all
	refused int // of them, in lines without a reservation
}

// Stats are counts since the start, and the current state of the buffer.
type Stats struct {
	Written  uint64 // records accepted
	Dropped  uint64 // records of refused requests without space
	Failures uint64 // failed writes
	Pending  int    // bytes waiting
	Reserved int    // open reservations
}

// New opens the file, or uses stdout. It starts no goroutine: see [Log.Run].
func New(c Config, o Options) (*Log, error) {
	l := &Log{
		stdout:  o.Stdout,
		log:     o.Log,
		now:     o.Now,
		wake:    make(chan struct{}, 1),
		full:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
	}
	if l.stdout == nil {
		l.stdout = os.Stdout
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	var err error
	l.target, err = l.open(c.File)
	return l, err
}

// Reserve reserves space for one record, or returns [ErrFull]. After success the caller must
// [Log.Write] or [Log.Commit] one record with Reserved set.
func (l *Log) Reserve() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting()-l.waitingRefused()+(l.stats.Reserved+1)*reservation > budget {
		return ErrFull
	}
	l.stats.Reserved++
	return nil
}

// waiting returns the bytes of lines in memory. The caller holds mu.
func (l *Log) waiting() int { return len(l.lines) + l.out.bytes }

// waitingRefused returns how many of them have no reservation. The caller holds mu.
func (l *Log) waitingRefused() int { return l.refused + l.out.refused }

// Write formats the record and keeps no reference to it. It never waits for the disk. A record
// without a reservation is dropped, and counted, if its buffer is full.
func (l *Log) Write(r *Record) {
	l.mu.Lock()
	n := l.accept(r)
	l.mu.Unlock()
	if n == 0 {
		return
	}
	post(l.wake)
	if n >= batch {
		post(l.full)
	}
}

// accept appends a record to the waiting lines and returns their length; 0 if it was dropped. The
// caller holds mu.
func (l *Log) accept(r *Record) int {
	reserved := r.Reserved && l.stats.Reserved > 0
	if reserved {
		l.stats.Reserved--
	} else if l.waitingRefused()+reservation > refusedBudget {
		l.stats.Dropped++
		l.lost++
		return 0
	}
	before := len(l.lines)
	if l.lost > 0 {
		l.lines = appendDropped(l.lines, &l.stamp, l.now(), l.lost)
		l.lost = 0
	}
	// Formatting under the lock costs less than a second buffer and a copy. It takes less than a
	// microsecond.
	l.lines = r.appendLine(l.lines, &l.stamp)
	if !reserved {
		l.refused += len(l.lines) - before
	}
	l.commits.accepted += uint64(len(l.lines) - before)
	l.stats.Written++
	return len(l.lines)
}

// appendDropped appends the line that reports dropped records.
func appendDropped(b []byte, s *stamp, now time.Time, n uint64) []byte {
	b = append(b, `{"time":"`...)
	b = s.append(b, now)
	b = append(b, `","dropped":`...)
	b = strconv.AppendUint(b, n, 10)
	return append(b, '}', '\n')
}

func post(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Stats returns the current counts.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Pending = l.waiting()
	return s
}
