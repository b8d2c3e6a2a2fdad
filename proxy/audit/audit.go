// Package audit answers what happened to each request: one [Record] each, told
// as a line of JSON by [Log] and as numbers by [Metrics].
//
// A slow or full disk must neither stall requests nor lose their records
// unseen. Lines are therefore gathered in memory, up to a fixed amount, and one
// writer carries them out in large pieces. A request takes a place for its
// record with [Log.Reserve] before it is forwarded, and is refused if there is
// none: nothing reaches an upstream that could not be recorded. Records of
// requests that were refused before that are written as long as there is room
// beside the reserved places, and counted, in the log itself too, when not.
package audit

import (
	"context"
	"errors"
	"fmt"
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
	Log    *slog.Logger     // told when the sink fails and when it works again; discarded if nil
	Now    func() time.Time // time.Now if nil
}

const (
	// stdout is the word for standard output.
	stdout = "stdout"
	// budget bounds the bytes of lines in memory and places reserved together.
	budget = 32 << 20
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
	// farewell bounds how long Run waits, once told to end, for a sink that
	// takes nothing.
	farewell = 5 * time.Second
)

// ErrFull is what [Log.Reserve] says when the sink takes records more slowly
// than they arrive, or not at all.
var ErrFull = errors.New("no room for an audit record: the log's sink is slow or failing")

// Log writes records. It is safe for concurrent use. Nothing leaves memory but
// while [Log.Run] runs.
type Log struct {
	name string // for messages
	sink io.Writer
	file *os.File // what Run closes at its end; nil for stdout
	log  *slog.Logger
	now  func() time.Time

	wake chan struct{} // holds one: there are lines
	full chan struct{} // holds one: there is a batch

	mu    sync.Mutex // guards all below
	lines []byte     // waiting for the writer
	spare []byte     // the buffer that the writer has emptied
	out   int        // bytes that the writer has taken and not yet written
	stats Stats
	stamp stamp
	lost  uint64 // dropped since the last line that told of it
}

// Stats are counts since the start, and the present fill.
type Stats struct {
	Written  uint64 // records taken for the sink
	Dropped  uint64 // records of refused requests for which there was no room
	Failures uint64 // writes that the sink refused
	Pending  int    // bytes waiting
	Reserved int    // places taken for requests under way
}

// New opens the sink. It starts nothing: see [Log.Run].
func New(c Config, o Options) (*Log, error) {
	l := &Log{
		name: stdout,
		sink: o.Stdout,
		log:  o.Log,
		now:  o.Now,
		wake: make(chan struct{}, 1),
		full: make(chan struct{}, 1),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	if c.File != "" && c.File != stdout {
		f, err := os.OpenFile(string(c.File), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("opening the audit log: %w", err)
		}
		l.name, l.sink, l.file = string(c.File), f, f
	}
	if l.sink == nil {
		l.sink = os.Stdout
	}
	return l, nil
}

// Reserve takes a place for one record, or returns [ErrFull]. The caller must
// then [Log.Write] one with Reserved set.
func (l *Log) Reserve() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used()+place > budget {
		return ErrFull
	}
	l.stats.Reserved++
	return nil
}

// used is how much of the budget is taken. The caller holds mu.
func (l *Log) used() int { return len(l.lines) + l.out + l.stats.Reserved*place }

// Write takes the record and keeps no reference to it. It never waits for the
// sink. A record without a reserved place is dropped, and counted, when there
// is no room.
func (l *Log) Write(r *Record) {
	l.mu.Lock()
	if r.Reserved && l.stats.Reserved > 0 {
		l.stats.Reserved--
	} else if l.used()+place > budget {
		l.stats.Dropped++
		l.lost++
		l.mu.Unlock()
		return
	}
	if l.lost > 0 {
		l.lines = appendDropped(l.lines, &l.stamp, l.now(), l.lost)
		l.lost = 0
	}
	// The line is made under the lock: that costs less than a second buffer and
	// a copy, and the lock is held for less than a microsecond.
	l.lines = r.appendLine(l.lines, &l.stamp)
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
	s.Pending = len(l.lines) + l.out
	return s
}

// Run carries records to the sink until ctx ends, then writes what is left and
// closes the file. End ctx after the last Write. It returns an error if records
// were left behind, which happens when the sink fails at the end or takes
// nothing for five seconds; in the second case the write that hangs in the
// system stays behind too.
func (l *Log) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- l.write(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(farewell)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return fmt.Errorf("closing the audit log %s: it takes nothing, %d bytes are lost", l.name, l.Stats().Pending)
	}
}

// write is the writer. It is the only user of the sink.
func (l *Log) write(ctx context.Context) (err error) {
	defer func() {
		if l.file != nil {
			err = errors.Join(err, l.file.Close())
		}
	}()
	healthy := true
	for ctx.Err() == nil {
		select {
		case <-l.wake:
		case <-ctx.Done():
		}
		sleep(ctx, pause, l.full)
		for ctx.Err() == nil {
			err := l.flush()
			l.report(&healthy, err)
			if err == nil {
				break
			}
			sleep(ctx, retry, nil)
		}
	}
	l.noteLost()
	if err := l.flush(); err != nil {
		return fmt.Errorf("closing the audit log %s: %d bytes are lost: %w", l.name, l.Stats().Pending, err)
	}
	return nil
}

// noteLost adds the line about dropped records that no later record brought.
func (l *Log) noteLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		l.lines = appendDropped(l.lines, &l.stamp, l.now(), l.lost)
		l.lost = 0
	}
}

// flush writes all lines that are there. What a failing sink did not take stays
// for the next time, from the byte where it stopped.
func (l *Log) flush() error {
	l.mu.Lock()
	b := l.lines
	l.lines, l.spare = l.spare[:0], nil
	l.out = len(b)
	l.mu.Unlock()

	n, err := 0, error(nil)
	if len(b) > 0 {
		n, err = l.sink.Write(b)
	}
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = 0
	if err != nil {
		// Older lines come first again. This path is slow and rare.
		l.stats.Failures++
		l.lines = append(b[:copy(b, b[min(n, len(b)):])], l.lines...)
		return err
	}
	// A buffer that a stalled sink let grow is not kept.
	if cap(b) <= 16*batch {
		l.spare = b[:0]
	}
	return nil
}

// report logs the first failure and the recovery, not what lies between.
func (l *Log) report(healthy *bool, err error) {
	switch {
	case err != nil && *healthy:
		l.log.Error("the audit log cannot be written; requests are refused once its buffer is full", "file", l.name, "error", err)
	case err == nil && !*healthy:
		l.log.Info("the audit log is written again", "file", l.name, "dropped", l.Stats().Dropped)
	}
	*healthy = err == nil
}

// sleep waits for d, for ctx or for c, whichever comes first.
func sleep(ctx context.Context, d time.Duration, c <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c:
	case <-ctx.Done():
	}
}
