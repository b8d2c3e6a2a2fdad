package limit

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// LinesPerMinute is how many lines of one kind [Lines] logs in a minute.
const LinesPerMinute = 20

// Lines logs what callers can cause, limited by kind, so that a flood fills no disk and hides no
// line of another kind. It is safe for concurrent use.
type Lines struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex // guards kinds
	kinds map[string]*linesOfKind
}

type linesOfKind struct {
	since      time.Time // start of the current minute
	logged     int       // in the current minute
	suppressed uint64    // since the last line that was logged
}

// NewLines returns Lines that log to log; they discard all if log is nil. The clock is time.Now if
// now is nil.
func NewLines(log *slog.Logger, now func() time.Time) *Lines {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return &Lines{log: log, now: now, kinds: map[string]*linesOfKind{}}
}

// Log logs a line of a kind, unless [LinesPerMinute] of that kind were logged in this minute. A
// kind is a constant of the program and never comes from a caller, because each is remembered. The
// first line after suppressed ones tells their number as "suppressed".
func (l *Lines) Log(level slog.Level, kind, msg string, args ...any) {
	suppressed, due := l.due(kind)
	if !due {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	l.log.Log(context.Background(), level, msg, args...)
}

// Warn is Log with [slog.LevelWarn].
func (l *Lines) Warn(kind, msg string, args ...any) { l.Log(slog.LevelWarn, kind, msg, args...) }

func (l *Lines) due(kind string) (suppressed uint64, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		k = new(linesOfKind)
		l.kinds[kind] = k
	}
	if now := l.now(); now.Sub(k.since) >= time.Minute {
		k.since, k.logged = now, 0
	}
	if k.logged == LinesPerMinute {
		k.suppressed++
		return 0, false
	}
	k.logged++
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}
