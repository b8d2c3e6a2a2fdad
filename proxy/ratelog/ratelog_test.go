package ratelog_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/ratelog"
)

func TestLinesOfOneKindHideNoOtherKind(t *testing.T) {
	var out bytes.Buffer
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := ratelog.New(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return at })
	for range 1000 {
		l.Warn("flood", "flooded")
	}
	l.Warn("other", "seen all the same")
	if got := strings.Count(out.String(), "flooded"); got != ratelog.PerMinute {
		t.Errorf("%d lines of the flood, want %d", got, ratelog.PerMinute)
	}
	if !strings.Contains(out.String(), "seen all the same") {
		t.Error("the flood hid a line of another kind")
	}
	out.Reset()
	at = at.Add(time.Minute)
	l.Warn("flood", "flooded")
	l.Warn("flood", "flooded")
	if got, want := strings.Count(out.String(), "suppressed="), 1; got != want || !strings.Contains(out.String(), "suppressed=980") {
		t.Errorf("after a minute: got %s, want one line with suppressed=980", out.String())
	}
}

func TestLinesOfManyCallersAreCountedOnce(t *testing.T) {
	var out bytes.Buffer
	l := ratelog.New(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return time.Time{}.Add(time.Hour) })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { l.Warn("flood", "flooded") })
	}
	wg.Wait()
	if got := strings.Count(out.String(), "flooded"); got != ratelog.PerMinute {
		t.Errorf("%d lines, want %d", got, ratelog.PerMinute)
	}
	ratelog.New(nil, nil).Warn("kind", "goes nowhere")
}
