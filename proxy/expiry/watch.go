package expiry

import (
	"context"
	"log/slog"
	"time"
)

const (
	// longest is the longest time between two looks. Reloads and renewals change the ends.
	longest = time.Minute
	// shortest is the shortest time between two looks, so that many ends in a row cost little.
	shortest = time.Second
	// maxLines limits the warnings of one look.
	maxLines = 100
)

// Options configure a [Watch].
type Options struct {
	// List returns all ends, as [Sort] does. It is called from [Watch.Run].
	List func() []End
	Log  *slog.Logger     // discarded if nil
	Now  func() time.Time // time.Now if nil
}

// Watch logs warnings of ends: one for each thing when a third, a tenth and nothing of its lifetime
// is left.
type Watch struct {
	o      Options
	wake   chan struct{}  // holds one token: the ends changed
	warned map[thing]Left // what was warned of, for the things of the last look
}

// thing identifies a key or certificate. A renewed one counts as another thing.
type thing struct {
	kind, name string
	end        int64
}

// NewWatch returns a watch. It starts no goroutine: see [Watch.Run].
func NewWatch(o Options) *Watch {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Watch{o: o, wake: make(chan struct{}, 1)}
}

// Wake makes the watch look at once, because the ends changed. It is safe for concurrent use.
func (w *Watch) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run looks at the ends at once, when one comes near, after [Watch.Wake] and every minute, until
// ctx ends. It returns nil. Call it once.
func (w *Watch) Run(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-w.wake:
		}
		t.Reset(w.look())
	}
}

// look warns of what is new, and returns when to look again.
func (w *Watch) look() (wait time.Duration) {
	now := w.o.Now()
	warned := map[thing]Left{}
	lines := 0
	wait = longest
	for _, e := range w.o.List() {
		if next := e.next(now); !next.IsZero() {
			wait = max(shortest, min(wait, next.Sub(now)))
		}
		left := e.Left(now)
		if left == Enough || left == Third && e.Renewing {
			continue
		}
		id := thing{e.Kind, e.Name, e.NotAfter.UnixNano()}
		before := w.warned[id]
		if warned[id] = left; rank(before) >= rank(left) {
			warned[id] = before
			continue
		}
		if lines++; lines <= maxLines {
			w.warn(&e, left, now)
		}
	}
	if more := lines - maxLines; more > 0 {
		w.o.Log.Warn("more keys and certificates end soon", "more", more, "cure", "sallyport status lists all")
	}
	w.warned = warned
	return wait
}

// rank orders the values of Left.
func rank(l Left) int {
	switch l {
	case Third:
		return 1
	case Tenth:
		return 2
	case None:
		return 3
	}
	return 0
}

func (w *Watch) warn(e *End, left Left, now time.Time) {
	text := "a key, certificate or list ends soon: less than a " + string(left) + " of its lifetime is left"
	if left == None {
		text = "a key, certificate or list has ended"
	}
	w.o.Log.Warn(text, "kind", e.Kind, "name", e.Name, "not_after", e.NotAfter.UTC(), "left", e.NotAfter.Sub(now).Truncate(time.Second).String(), "cure", e.Cure)
}
