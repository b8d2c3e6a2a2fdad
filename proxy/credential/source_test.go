package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/ratelog"
)

// endpoint is a token endpoint on the clock of a synctest bubble.
type endpoint struct {
	mu    sync.Mutex // guards the fields below
	calls []time.Duration
	began time.Time
	fault error
	hold  chan struct{} // a fetch waits for it; nil: it does not
	life  time.Duration
}

func (e *endpoint) fetch(ctx context.Context) (string, time.Duration, error) {
	e.mu.Lock()
	e.calls = append(e.calls, time.Since(e.began))
	n, fault, hold, life := len(e.calls), e.fault, e.hold, e.life
	e.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return "", 0, ctx.Err()
		}
	}
	return fmt.Sprintf("Bearer t%d", n), life, fault
}

func (e *endpoint) set(fault error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = fault
}

func (e *endpoint) times() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Sprint(e.calls)
}

// startSource runs a source in a bubble.
func startSource(t *testing.T, e *endpoint) (*source, *strings.Builder) {
	log := &strings.Builder{}
	e.began = time.Now()
	s := &source{fetch: e.fetch, now: time.Now, name: "tf", lines: ratelog.New(slog.New(slog.NewTextHandler(log, nil)), nil), pending: make(chan struct{}), refused: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return s, log
}

func TestTokenIsRenewedBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: time.Hour}
		s, _ := startSource(t, e)
		for _, want := range []string{"Bearer t1", "Bearer t2", "Bearer t3"} {
			synctest.Wait()
			if got := s.value(); got != want {
				t.Errorf("got %q; want %q", got, want)
			}
			time.Sleep(48 * time.Minute)
		}
		synctest.Wait()
		if got := e.times(); got != "[0s 48m0s 1h36m0s 2h24m0s]" {
			t.Errorf("fetched at %s", got)
		}
	})
}

// While the token is valid, no request waits and none is refused, whatever the endpoint does. Later
// requests are refused at once, with the reason. The endpoint is asked less and less often.
func TestDeadEndpointHurtsWhenTheTokenHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: 10 * time.Minute}
		s, log := startSource(t, e)
		synctest.Wait()
		e.set(errors.New("gone"))
		time.Sleep(9*time.Minute + 54*time.Second)
		began := time.Now()
		if err := s.ready(t.Context()); err != nil || s.value() != "Bearer t1" {
			t.Errorf("before the end: %q, %v", s.value(), err)
		}
		time.Sleep(2 * time.Second)
		if err := s.ready(t.Context()); err == nil || err.Error() != "fetching a token: gone" || s.value() != "" {
			t.Errorf("after the end: %q, %v", s.value(), err)
		}
		if waited := time.Since(began); waited != 2*time.Second {
			t.Errorf("waited until %v", waited)
		}
		if got := e.times(); got != "[0s 8m0s 8m1s 8m3s 8m7s 8m15s 8m31s 9m3s]" {
			t.Errorf("fetched at %s", got)
		}
		e.set(nil)
		time.Sleep(time.Minute)
		if err := s.ready(t.Context()); err != nil || s.value() == "" {
			t.Errorf("once it is back: %v", err)
		}
		synctest.Wait()
		if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "error=\"fetching a token: gone\"") || !strings.Contains(text, "failures=7") {
			t.Errorf("log:\n%s", text)
		}
	})
}

// Requests before the first token wait for one fetch, and each may leave.
func TestFirstRequestsWaitForOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: time.Hour, hold: make(chan struct{})}
		s, _ := startSource(t, e)
		results := make(chan error, 50)
		for range 50 {
			go func() { results <- s.ready(t.Context()) }()
		}
		gone, leave := context.WithCancelCause(t.Context())
		left := make(chan error)
		go func() { left <- s.ready(gone) }()
		synctest.Wait()
		leave(errors.New("left"))
		if err := <-left; err == nil || err.Error() != "left" {
			t.Errorf("one that left: %v", err)
		}
		close(e.hold)
		for range 50 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if got := e.times(); got != "[0s]" {
			t.Errorf("fetched at %s", got)
		}
	})
}

// A server that refuses every token causes a fetch in half a minute, and no more.
func TestRefusedTokenIsFetchedAgainSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{life: time.Hour}
		s, _ := startSource(t, e)
		for range 200 {
			s.refuse()
			time.Sleep(500 * time.Millisecond)
		}
		if got := e.times(); got != "[0s 30s 1m0s 1m30s]" {
			t.Errorf("fetched at %s", got)
		}
	})
}
