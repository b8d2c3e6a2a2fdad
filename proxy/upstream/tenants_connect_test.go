package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/setting"
)

// hasty returns a call of a route whose limit for a whole exchange passes before any connect can end.
func hasty() *Request {
	r := call("x")
	r.Timeouts.Total = time.Nanosecond
	return r
}

// Routes that share an upstream limit whole exchanges as they like. A limit that is too short for a connect
// says nothing about the server, over either version of HTTP.
func TestShortLimitOfOneRouteEjectsNoEndpoint(t *testing.T) {
	bothVersions(t, func(t *testing.T, c Config, _ *atomic.Int64) {
		c.Rest = append(c.Rest, endpointURL(t, strings.Replace(c.Rest[0].String(), "127.0.0.1", "localhost", 1)))
		u := configured(t, c, Options{})
		for range 10 {
			r := get()
			r.Timeouts = Timeouts{Connect: 5 * time.Second, Total: time.Nanosecond}
			if _, err := answered(u, r); kindOf(err) != Timeout {
				t.Errorf("the hasty call: %v; want a timeout", err)
			}
		}
		for _, s := range statusOf(u) {
			if s.Ejected || s.Failures > 0 || s.Fault != nil {
				t.Errorf("%+v", s)
			}
		}
		mustAnswer(t, u)
	})
}

// Many callers wait for one connect. That the one who began it gives up, or runs out of time, is nothing to
// the others.
func TestCallersWaitForAConnectThatOneBeganAndLeft(t *testing.T) {
	for name, leave := range map[string]func(*Upstream) error{
		"cancel": func(u *Upstream) error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_, err := u.Send(ctx, call("x"))
			return err
		},
		"limit": func(u *Upstream) error {
			r := call("x")
			r.Timeouts.Total = time.Millisecond
			_, err := answered(u, r)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := sharedServer(t, 100, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") })
			open := make(chan struct{})
			var dials atomic.Int64
			u := grpcUpstream(t, Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials.Add(1)
				select {
				case <-open:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}}, url)
			left := make(chan error, 1)
			go func() {
				err := leave(u)
				for dials.Load() == 0 { // its time was up before the busy machine began to connect
					err = leave(u)
				}
				left <- err
			}()
			for dials.Load() == 0 {
				time.Sleep(time.Microsecond)
			}
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					if body, err := answered(u, call("x")); err != nil || body != "ok" {
						t.Errorf("a victim: %q, %v", body, err)
					}
				})
			}
			if err := <-left; err == nil {
				t.Error("the one who leaves was answered")
			}
			for u.grpc[0].inFlight.Load() < 8 {
				time.Sleep(time.Millisecond)
			}
			close(open)
			all.Wait()
			if s := statusOf(u)[0]; s.Failures > 0 || s.Fault != nil {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A connect for which nobody waits any more ends.
func TestAbandonedConnectEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		u := grpcUpstream(t, Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}}, "h2c://a")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r := call("x")
		r.Timeouts.Connect = 0 // no bound of its own
		if _, err := u.Send(ctx, r); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-ended
		synctest.Wait()
		if s := statusOf(u)[0]; s.Failures > 0 || s.Fault != nil {
			t.Errorf("%+v", s)
		}
	})
}

// Two servers serve one upstream; a route with hasty calls must not make both unavailable to others.
func TestHastyCallsTakeNoServerFromOthers(t *testing.T) {
	var list setting.List[setting.URL]
	for range 2 {
		url, _ := sharedServer(t, 1, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok ") })
		list = append(list, endpointURL(t, url))
	}
	u := configured(t, Config{GRPC: list}, Options{})
	victims(t, u, func() {
		for range 200 {
			_, _ = answered(u, hasty())
		}
	})
}
