package proxy_test

import (
	"io"
	"net/http"
	"testing"
	"time"
)

func TestDrainDelayServesRequestsWhileNotReady(t *testing.T) {
	t.Parallel()
	h := build(t, plan{more: unwatched + "drain_delay: 2s\n"})
	ready := func() int {
		res, err := http.Get("http://" + h.addrs.Health.String() + "/readyz")
		if err != nil {
			return 0
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	if got := ready(); got != 200 {
		t.Fatalf("readyz: %d", got)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	h.until("it says that it is not ready", func() bool { return ready() == 503 })
	select {
	case err := <-stopped:
		t.Fatalf("it ended within the delay: %v", err)
	default:
	}
	if status := get(t, h.client(false), h.token()); status != 200 {
		t.Errorf("a new connection within the delay: %d", status)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A second signal cuts the grace period short.
func TestKillAbortsRequestsInFlight(t *testing.T) {
	h := build(t, plan{more: unwatched + "drain: 1h\ndrain_delay: 1h\n", handler: ticking})
	kept := h.stream(h.client(true), "/", h.token())
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	h.gateway.Kill()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
	if _, err := io.Copy(io.Discard, kept); err == nil {
		t.Error("the stream ended cleanly; want it cut")
	}
	if record := h.recordOf("issuer/corp:alice"); record["reason"] != "shutdown" {
		t.Errorf("record %v", record)
	}
}

func TestStreamsAreCutAtTheEndOfTheGracePeriod(t *testing.T) {
	h := build(t, plan{more: unwatched + "drain: 50ms\n", handler: ticking})
	kept := h.stream(h.client(false), "/", h.token())
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, kept); err == nil {
		t.Error("the stream ended cleanly; want it cut")
	}
	if record := h.recordOf("issuer/corp:alice"); record["reason"] != "shutdown" {
		t.Errorf("record %v", record)
	}
}
