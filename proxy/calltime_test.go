package proxy_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/message"
)

// deadlineStream is a request that keeps its first read and write deadline, each as the time left when
// it was set.
type deadlineStream struct {
	benchStream
	read, write time.Duration
}

// Body is content that has not arrived, as far as the gateway can tell.
func (s *deadlineStream) Body() message.Body { return struct{ message.Body }{&s.body} }

func (s *deadlineStream) SetReadDeadline(t time.Time) error  { return keepDeadline(&s.read, t) }
func (s *deadlineStream) SetWriteDeadline(t time.Time) error { return keepDeadline(&s.write, t) }

func keepDeadline(d *time.Duration, t time.Time) error {
	if *d == 0 && !t.IsZero() {
		*d = time.Until(t)
	}
	return nil
}

// A gRPC call may be silent until its own deadline, or for an hour if it has none. The usual limits
// hold for other requests on the same route, for writes, and for routes with timeouts of their own.
func TestCallsMayBeSilentForLong(t *testing.T) {
	// Without a credential, no expiry ends the call earlier.
	const open = "\n  - {host: models.test, upstream: tf, callers: anonymous, rules: [{allow: \"*\"}]}\n"
	timed := strings.Replace(open, "callers:", "timeouts: {idle: 20s}, callers:", 1)
	for name, c := range map[string]struct {
		route       string
		call        bool
		deadline    string
		read, write time.Duration
	}{
		"a call":                         {open, true, "", time.Hour, time.Minute},
		"a call with a deadline":         {open, true, "10M", 10*time.Minute + 5*time.Second, time.Minute},
		"a request":                      {open, false, "10M", time.Minute, time.Minute},
		"a call, the route has times":    {timed, true, "10M", 20 * time.Second, 20 * time.Second},
		"a request, the route has times": {timed, false, "", 20 * time.Second, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newGRPCServer(t)
			h := build(t, plan{routes: c.route, more: "upstreams: {tf: {rest: \"h2c://" + s.addr + "\", grpc: \"h2c://" + s.addr + "\"}}\n"})
			var x deadlineStream
			x.request("")
			x.head.Fields.Del("authorization")
			x.head.Target, x.head.Version = echo, message.HTTP2
			if c.call {
				x.body.Reader = *bytes.NewReader(framedText("hello"))
				x.head.ContentLength, x.head.Trailers = -1, true
				x.head.Fields.Del("content-length")
				x.head.Fields.Set("content-type", "application/grpc")
				x.head.Fields.Set("te", "trailers")
			}
			if c.deadline != "" {
				x.head.Fields.Set("grpc-timeout", c.deadline)
			}
			h.gateway.Serve(&x)
			if s.calls.Load() != 1 {
				t.Fatalf("status %d, %d calls", x.status, s.calls.Load())
			}
			near := func(got, want time.Duration) bool { return want-5*time.Second < got && got < want+5*time.Second }
			if !near(x.read, c.read) || !near(x.write, c.write) {
				t.Errorf("deadlines of %s for reads, %s for writes; want %s, %s", x.read, x.write, c.read, c.write)
			}
		})
	}
}

// Silent calls count as requests in flight, so a flood of them is refused. Calls that their clients
// cancel no longer count.
func TestFloodOfSilentCallsIsBounded(t *testing.T) {
	const most = 4
	h, s := buildGRPC(t, strings.Replace(grpcRoute, "callers:", "limits: {in_flight: 4}\n    callers:", 1))
	hang := func() (close func(), status string) {
		pr, pw := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		res, err := h.call(ctx, "/a.B/Hang", pr)
		if err != nil {
			t.Fatal(err)
		}
		return func() { cancel(); pw.Close(); res.Body.Close() }, res.Header.Get("grpc-status")
	}
	var open []func()
	for range most {
		leave, status := hang()
		if status != "" {
			t.Fatalf("status %s", status)
		}
		open = append(open, leave)
	}
	for range 3 * most {
		leave, status := hang()
		if leave(); status != "8" && status != "14" {
			t.Errorf("a call above the limit has status %q", status)
		}
	}
	if n := s.calls.Load(); n != most {
		t.Errorf("%d calls reached the server", n)
	}
	for _, leave := range open {
		leave()
		s.cancelled(t)
	}
	eventually(t, "a call is admitted again", func() bool {
		leave, status := hang()
		defer leave()
		return status == ""
	})
}
