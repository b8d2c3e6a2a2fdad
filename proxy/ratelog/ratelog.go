// Package ratelog limits log lines that callers can cause.
package ratelog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// PerMinute is how many lines of one kind [Log] logs in a minute.
const PerMinute = 20

// Log logs what callers can cause, limited by kind, so that a flood fills no disk and hides no
// line of another kind. It is safe for concurrent use.
type Log struct {
	out *slog.Logger
	now func() time.Time

	mu    sync.Mutex // guards kinds
	kinds map[string]*minute
}

type minute struct {
	since      time.Time
	logged     int    // in the current minute
	suppressed uint64 // since the last line that was logged
}

// New returns a Log that writes to out and discards all if out is nil. The clock is time.Now if now
// is nil.
func New(out *slog.Logger, now func() time.Time) *Log {
	if out == nil {
		out = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return &Log{out: out, now: now, kinds: map[string]*minute{}}
}

// Log logs a line of a kind, unless [PerMinute] of that kind were logged in this minute. A
// kind is a constant of the program and never comes from a caller, because each is remembered. The
// first line after suppressed ones gives their number as "suppressed".
func (l *Log) Log(level slog.Level, kind, msg string, args ...any) {
	suppressed, due := l.due(kind)
	if !due {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	l.out.Log(context.Background(), level, msg, args...)
}

// Warn is Log with [slog.LevelWarn].
func (l *Log) Warn(kind, msg string, args ...any) { l.Log(slog.LevelWarn, kind, msg, args...) }

func (l *Log) due(kind string) (suppressed uint64, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		k = new(minute)
		l.kinds[kind] = k
	}
	if now := l.now(); now.Sub(k.since) >= time.Minute {
		k.since, k.logged = now, 0
	}
	if k.logged == PerMinute {
		k.suppressed++
		return 0, false
	}
	k.logged++
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}
