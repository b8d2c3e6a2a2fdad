package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// fakeNet dials servers by name; unknown names are refused.
type fakeNet struct {
	mu    sync.Mutex
	to    map[string]string // from "name:80" to an address; absent: refused
	dials []string
}

func (f *fakeNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	f.mu.Lock()
	f.dials = append(f.dials, addr)
	to, ok := f.to[addr]
	f.mu.Unlock()
	if !ok {
		return nil, errors.New("connection refused")
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

func (f *fakeNet) set(addr, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.to[addr] = to; to == "" {
		delete(f.to, addr)
	}
}

func (f *fakeNet) count(addr string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, d := range f.dials {
		if d == addr {
			n++
		}
	}
	return n
}

func threeServers(t *testing.T, now func() time.Time) (*Upstream, *fakeNet) {
	f := &fakeNet{to: map[string]string{}}
	var c Config
	for _, name := range []string{"a", "b", "c"} {
		f.to[name+":80"] = answerServer(t, ok200+"Content-Length: 1\r\n\r\n"+name)
		c.Rest = append(c.Rest, endpointURL(t, name))
	}
	return configured(t, c, Options{Dial: f.dial, Now: now}), f
}

func TestRequestsGoToTheLeastBusy(t *testing.T) {
	u, _ := threeServers(t, nil)
	var open []*Response
	var got []string
	for range 6 {
		x, err := u.Send(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, x)
		b, _ := io.ReadAll(x.Body)
		got = append(got, string(b))
	}
	slices.Sort(got)
	if s := strings.Join(got, ""); s != "aabbcc" {
		t.Errorf("six requests at a time went to %s", s)
	}
	open[4].Close()
	x, err := u.Send(t.Context(), get())
	if err != nil || x.Endpoint != open[4].Endpoint {
		t.Errorf("the next went to %s, want %s, the least busy", x.Endpoint, open[4].Endpoint)
	}
	x.Close()
	for _, x := range open {
		x.Close()
	}
}

func TestDeadEndpointsAreEjected(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1_000_000)
	u, f := threeServers(t, func() time.Time { return time.Unix(clock.Load(), 0) })
	f.set("b:80", "")
	for range 9 {
		if _, body, err := outcome(u, post("x")); err != nil || body == "b" {
			t.Fatalf("got %q, %v", body, err)
		}
	}
	if n := f.count("b:80"); n != 1 {
		t.Errorf("the dead endpoint was tried %d times, want once", n)
	}
	if s := statusOf(u)[1]; !s.Ejected || s.Failures != 1 {
		t.Errorf("status is %+v, want ejected", s)
	}
	for i, wait := range []int64{1, 2, 4, 8, 16, 30, 30} {
		before := f.count("b:80")
		clock.Add(wait)
		for range 6 {
			outcome(u, get())
		}
		if n := f.count("b:80") - before; n != 1 {
			t.Errorf("period %d: the dead endpoint was tried %d times, want once", i, n)
		}
	}
	f.set("b:80", f.to["a:80"])
	clock.Add(30)
	for range 6 {
		outcome(u, get())
	}
	if s := statusOf(u)[1]; s.Ejected || s.Idle == 0 {
		t.Errorf("status is %+v, want it back in service", s)
	}
}

// Neither the end of an ejection nor being the only endpoint makes it healthy. Each change is logged
// once.
func TestEndpointThatRefusesIsFaultyUntilAConnectSucceeds(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1_000_000)
	var log bytes.Buffer
	f := &fakeNet{to: map[string]string{}}
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, "a")}}, Options{Dial: f.dial, Now: func() time.Time { return time.Unix(clock.Load(), 0) }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if s := statusOf(u)[0]; s.Fault != nil {
		t.Errorf("before the first connect: %v", s.Fault)
	}
	for range 3 {
		if _, _, err := outcome(u, post("x")); err == nil {
			t.Fatal("a dead endpoint answered")
		}
		clock.Add(60)
		if s := statusOf(u)[0]; s.Fault == nil || s.Ejected {
			t.Errorf("status is %+v, want a fault and no ejection", s)
		}
	}
	f.set("a:80", answerServer(t, ok200+"Content-Length: 1\r\n\r\na"))
	for range 3 {
		if _, body, err := outcome(u, post("x")); err != nil || body != "a" {
			t.Fatalf("got %q, %v", body, err)
		}
	}
	if s := statusOf(u)[0]; s.Fault != nil {
		t.Errorf("after a connect: %v", s.Fault)
	}
	got := log.String()
	if strings.Count(got, "\n") != 2 || !strings.Contains(got, "connecting to an endpoint failed") || !strings.Contains(got, "an endpoint accepts connections again") || !strings.Contains(got, "failures=3") {
		t.Errorf("logged:\n%s", got)
	}
}

func TestAllEndpointsRefused(t *testing.T) {
	u, f := threeServers(t, nil)
	for _, name := range []string{"a:80", "b:80", "c:80"} {
		f.set(name, "")
	}
	var fault *Error
	if _, _, err := outcome(u, get()); !errors.As(err, &fault) || fault.Kind != Refused {
		t.Errorf("error is %v, want refused: all were tried", err)
	}
	if _, _, err := outcome(u, get()); !errors.As(err, &fault) || fault.Kind != NoneHealthy {
		t.Errorf("error is %v, want none healthy", err)
	}
	if len(f.dials) != 3 {
		t.Errorf("dials are %v, want one each", f.dials)
	}
}

func TestSingleEndpointIsAlwaysTried(t *testing.T) {
	f := &fakeNet{to: map[string]string{}}
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, "a")}}, Options{Dial: f.dial})
	var fault *Error
	for range 3 {
		if _, _, err := outcome(u, get()); !errors.As(err, &fault) || fault.Kind != Refused {
			t.Errorf("error is %v, want refused", err)
		}
	}
	if len(f.dials) != 3 || statusOf(u)[0].Ejected {
		t.Errorf("%d dials, ejected %v, want 3 and never", len(f.dials), statusOf(u)[0].Ejected)
	}
}

func TestConnectTimesOut(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	for name, timeouts := range map[string]Timeouts{"connect": {Connect: 20 * time.Millisecond}, "total": {Total: 20 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, "a")}}, Options{Dial: hang})
			r := get()
			r.Timeouts = timeouts
			_, _, err := outcome(u, r)
			if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Timeout {
				t.Errorf("error is %v, want a timeout", err)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, "a"), endpointURL(t, "b")}}, Options{Dial: hang})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := u.Send(ctx, get()); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want context.Canceled", err)
		}
		for _, s := range statusOf(u) {
			if s.Ejected || s.InFlight != 0 {
				t.Errorf("status is %+v, want no blame", s)
			}
		}
	})
}

func TestHandshakeTimesOut(t *testing.T) {
	addr := rawServer(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	u := newUpstream(t, "https://"+addr)
	r := get()
	r.Timeouts = Timeouts{Connect: 50 * time.Millisecond}
	_, _, err := outcome(u, r)
	if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Timeout {
		t.Errorf("error is %v, want a timeout", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, answerServer(t, smallAnswer))}, MaxConnections: 2}, Options{})
	r := get()
	var open []*Response
	for range 2 {
		x, err := u.Send(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, x)
	}
	r.Timeouts.Connect = 20 * time.Millisecond
	_, err := u.Send(t.Context(), r)
	if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != NoneHealthy {
		t.Errorf("error is %v, want none healthy", err)
	}
	time.AfterFunc(10*time.Millisecond, open[0].Close)
	r.Timeouts.Connect = time.Minute
	x, err := u.Send(t.Context(), r)
	if err != nil {
		t.Fatalf("the request that waited got %v", err)
	}
	x.Close()
	open[1].Close()
	if _, _, err := outcome(u, r); err != nil {
		t.Error(err)
	}
}
