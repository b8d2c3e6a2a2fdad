// Package audit answers what happened to each request: one [Record] each, which
// [Log] writes as a line of JSON and [Metrics] counts.
//
// A slow or full disk must neither stall requests nor lose their records
// unseen. Lines are therefore gathered in memory, up to a fixed amount, and one
// writer carries them out in large pieces. A request takes a place for its
// record with [Log.Reserve] before it is forwarded, and is refused if there is
// none: nothing reaches an upstream that could not be recorded. Records of
// requests that were refused before that have room of their own, and are counted,
// in the log itself too, when that is full. Neither kind takes room from the
// other: a flood of refused requests stops no good one.
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
	// File is where the records go, appended as lines of JSON: a path, whose
	// file is made with mode 0600 if it is missing, or "stdout", the default.
	File setting.Place `yaml:"file"`
}

// Check records the faults of the section at path. It looks at no file.
func (c *Config) Check(path string, f *setting.Faults) {
	switch word := c.File.Word(); word {
	case "off", "none", "false", "no":
		f.Add(path+".file", word, "the audit log cannot be switched off", `leave it out for stdout, or name a file; /dev/null takes everything`)
	default:
		c.File.Check(path+".file", "leave it out for stdout, or name a file", f, stdout)
	}
}

// Options are what a [Log] takes from its surroundings. The zero value works.
type Options struct {
	Stdout io.Writer        // os.Stdout if nil
	Log    *slog.Logger     // gets a line when writing fails and when it works again; discarded if nil
	Now    func() time.Time // time.Now if nil
}

const (
	// stdout is the word for standard output.
	stdout = "stdout"
	// budget bounds the bytes of lines in memory of requests that had reserved a place,
	// and places reserved, together.
	budget = 32 << 20
	// refusedBudget bounds the bytes of lines in memory of all other requests.
	refusedBudget = 8 << 20
	// place is the room that a reservation holds: about twice a common line. A
	// reserved line may be longer (maxLine) and is kept all the same, so memory is
	// bounded by the reservations that the budget allows.
	place = 1 << 10
	// batch is how much is gathered before the writer is woken early.
	batch = 64 << 10
	// pause is how long a line waits for others. A write a line would cost more
	// than making the line.
	pause = 50 * time.Millisecond
	// retry is how long the writer waits after a failed write.
	retry = time.Second
	// farewell bounds how long Run waits, once its context has ended, for a write
	// that hangs.
	farewell = 5 * time.Second
)

// ErrFull is what [Log.Reserve] says when the sink takes records more slowly
// than they arrive, or not at all.
var ErrFull = errors.New("no room for an audit record: the log's sink is slow or failing")

// Log writes records. It is safe for concurrent use. Nothing leaves memory but
// while [Log.Run] runs.
type Log struct {
	stdout io.Writer
	log    *slog.Logger
	now    func() time.Time

	wake    chan struct{} // holds one: there are lines
	full    chan struct{} // holds one: there is a batch
	changed chan struct{} // holds one: the target changes

	mu      sync.Mutex // guards all below
	target  target     // where lines go; changed by the writer alone
	next    *target    // where lines after head go; nil: all go to target
	head    buffered   // of lines, what goes to target while there is a next
	lines   []byte     // waiting for the writer
	refused int        // bytes of lines that are of requests without a place
	spare   []byte     // the buffer that the writer has emptied
	out     buffered   // what the writer has taken and not yet written
	stats   Stats
	stamp   stamp
	lost    uint64 // dropped since the last line that counted such records

	begun []byte // what the target has of a line that it took in part; the writer's alone
}

// buffered is an amount of lines.
type buffered struct {
	bytes   int // in all
	refused int // of them, those of requests without a place
}

// Stats are counts since the start, and the present fill.
type Stats struct {
	Written  uint64 // records taken for the sink
	Dropped  uint64 // records of refused requests for which there was no room
	Failures uint64 // writes that the sink refused
	Pending  int    // bytes waiting
	Reserved int    // places taken for requests under way
}

// New opens the file or takes stdout. It starts nothing: see [Log.Run].
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

// Reserve takes a place for one record, or returns [ErrFull]. The caller must
// then [Log.Write] one with Reserved set.
func (l *Log) Reserve() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting()-l.waitingRefused()+(l.stats.Reserved+1)*place > budget {
		return ErrFull
	}
	l.stats.Reserved++
	return nil
}

// waiting is how many bytes of lines are in memory. The caller holds mu.
func (l *Log) waiting() int { return len(l.lines) + l.out.bytes }

// waitingRefused is how many of them are of requests without a place. The caller holds mu.
func (l *Log) waitingRefused() int { return l.refused + l.out.refused }

// Write takes the record and keeps no reference to it. It never waits for the
// disk. A record without a reserved place is dropped, and counted, when there
// is no room for its kind.
func (l *Log) Write(r *Record) {
	l.mu.Lock()
	reserved := r.Reserved && l.stats.Reserved > 0
	if reserved {
		l.stats.Reserved--
	} else if l.waitingRefused()+place > refusedBudget {
		l.stats.Dropped++
		l.lost++
		l.mu.Unlock()
		return
	}
	before := len(l.lines)
	if l.lost > 0 {
		l.lines = appendDropped(l.lines, &l.stamp, l.now(), l.lost)
		l.lost = 0
	}
	// The line is made under the lock: that costs less than a second buffer and
	// a copy, and the lock is held for less than a microsecond.
	l.lines = r.appendLine(l.lines, &l.stamp)
	if !reserved {
		l.refused += len(l.lines) - before
	}
	l.stats.Written++
	n := len(l.lines)
	l.mu.Unlock()

	post(l.wake)
	if n >= batch {
		post(l.full)
	}
}

// appendDropped appends the line that tells of records that had no room.
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

// Stats returns the present counts.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Pending = l.waiting()
	return s
}
