package upstream

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

func TestUsableIdleTimeIsLearned(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		learn     func(*keptOpen)
		announced time.Duration
		want      time.Duration
	}{
		"nothing is known":                   {func(*keptOpen) {}, 0, s},
		"seen open":                          {func(k *keptOpen) { k.seen(10 * s) }, 0, 5 * s},
		"seen open for all the time":         {func(k *keptOpen) { k.ended(80 * s) }, 0, 60 * s},
		"closed":                             {func(k *keptOpen) { k.ended(4 * s) }, 0, 3 * s},
		"closed, and another seen open":      {func(k *keptOpen) { k.ended(4 * s); k.seen(50 * s) }, 0, 3 * s},
		"closed earlier":                     {func(k *keptOpen) { k.ended(8 * s); k.ended(4 * s) }, 0, 3 * s},
		"closed later":                       {func(k *keptOpen) { k.ended(4 * s); k.ended(12 * s) }, 0, 3750 * time.Millisecond},
		"closed at once":                     {func(k *keptOpen) { k.ended(0) }, 0, leastUse},
		"announced":                          {func(*keptOpen) {}, 5 * s, 4 * s},
		"announced, a second":                {func(*keptOpen) {}, s, s / 2},
		"announced, very long":               {func(*keptOpen) {}, time.Hour, 60 * s},
		"announced, closed when due":         {func(k *keptOpen) { k.ended(4900 * time.Millisecond) }, 5 * s, 4 * s},
		"announced, closed before":           {func(k *keptOpen) { k.ended(2 * s) }, 5 * s, 1500 * time.Millisecond},
		"announced, seen open for less time": {func(k *keptOpen) { k.seen(s) }, 5 * s, 4 * s},
	} {
		var k keptOpen
		c.learn(&k)
		if got := k.usable(60*s, c.announced); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
}

// A server that restarts closes connections of any age. The wrong limit measured from that is soon
// corrected.
func TestLimitMeasuredAtARestartIsCorrected(t *testing.T) {
	var k keptOpen
	k.ended(80 * time.Second)
	k.ended(10 * time.Millisecond)
	n := 0
	for k.usable(time.Minute, 0) < 30*time.Second {
		k.ended(80 * time.Second)
		if n++; n > 10 {
			t.Fatalf("after %d connections: %s", n, k.usable(time.Minute, 0))
		}
	}
}

// fadingServer closes connections that were idle for keep. The test advances its time. As on a real
// line, the client sees the close a moment late, and a request sent in that moment fails.
type fadingServer struct {
	keep, late time.Duration
	fields     string

	mu    sync.Mutex
	at    time.Duration // since the start
	conns []*fadingConn
	lost  int
}

type fadingConn struct {
	net.Conn
	since time.Duration // idle since; negative while a request is served
}

func (s *fadingServer) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Unix(1e9, 0).Add(s.at)
}

// advance passes time and closes what is due.
func (s *fadingServer) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at += d
	s.conns = slices.DeleteFunc(s.conns, func(c *fadingConn) bool {
		due := c.since >= 0 && s.at-c.since >= s.keep+s.late
		if due {
			c.Close()
		}
		return due
	})
}

func (s *fadingServer) serve(c net.Conn) {
	f := &fadingConn{Conn: c, since: -1}
	s.mu.Lock()
	s.conns = append(s.conns, f)
	s.mu.Unlock()
	in := bufio.NewReader(c)
	for first := true; ; first = false {
		if _, err := readRequestHead(in); err != nil {
			return
		}
		if _, err := in.Discard(1); err != nil { // the content
			return
		}
		s.mu.Lock()
		lost := !first && s.at-f.since >= s.keep
		if lost {
			s.lost++
		}
		f.since = s.at
		s.mu.Unlock()
		if lost {
			return
		}
		io.WriteString(c, ok200+s.fields+"Content-Length: 1\r\n\r\nx")
	}
}

// posts sends rounds of concurrent POSTs, with a pause before each, and runs the pool's sweeps when
// their timers would. It returns how many POSTs failed.
func (s *fadingServer) posts(t *testing.T, u *Upstream, rounds, wide int, pause func() time.Duration) (failed int) {
	t.Helper()
	pool := u.rest[0].conns.(*exclusive)
	const step = 20 * time.Millisecond
	next := s.at
	for range rounds {
		for left := pause(); left > 0; left -= step {
			s.advance(step)
			if s.at >= next {
				pool.reap()
				pool.mu.Lock()
				if next = s.at + 250*time.Millisecond; len(pool.unused) > 0 {
					next = s.at + nextLook(pool.now().Sub(pool.unused[0].idleSince), pool.idleTime)
				}
				pool.mu.Unlock()
			}
		}
		open := make([]*Response, 0, wide)
		for range wide {
			x, err := u.Send(t.Context(), post("x"))
			var fault *Error
			switch {
			case errors.As(err, &fault) && fault.Kind == Reset:
				failed++
			case err != nil:
				t.Fatal(err)
			default:
				open = append(open, x)
			}
		}
		for _, x := range open {
			_, _ = io.Copy(io.Discard, x.Body)
			x.Close()
		}
	}
	return failed
}

func TestPostsDoNotMeetTheServersClose(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		keep   time.Duration
		fields string
	}{
		"gunicorn's 2 s":        {2 * s, ""},
		"uvicorn's 5 s":         {5 * s, ""},
		"Jetty's 30 s":          {30 * s, ""},
		"announced, Node's 5 s": {5 * s, "Keep-Alive: timeout=5\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			fading := &fadingServer{keep: c.keep, late: 100 * time.Millisecond, fields: c.fields}
			u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, rawServer(t, fading.serve))}}, Options{Now: fading.now})
			random := rand.New(rand.NewPCG(1, 2))
			around := func() time.Duration { return c.keep/2 + time.Duration(random.Int64N(int64(c.keep))) }
			if failed := fading.posts(t, u, 90, 10, around); failed != 0 || fading.lost != 0 {
				t.Errorf("%d of 900 failed", failed)
			}
			soon := func() time.Duration { return c.keep / 4 }
			before := statusOf(u)[0].Dials
			if failed := fading.posts(t, u, 20, 10, soon); failed != 0 {
				t.Errorf("%d of 200 failed", failed)
			}
			if n := statusOf(u)[0].Dials - before; n > 40 {
				t.Errorf("%d connections for 200 requests that come early", n)
			}
		})
	}
}

// A burst may leave more idle connections than the pool keeps. The watched one must stay.
func TestBurstsDoNotEndTheWatch(t *testing.T) {
	fading := &fadingServer{keep: 5 * time.Second, late: 100 * time.Millisecond}
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, rawServer(t, fading.serve))}, MaxIdle: 2}, Options{Now: fading.now})
	fading.posts(t, u, 30, 6, func() time.Duration { return 1500 * time.Millisecond })
	p := u.rest[0].conns.(*exclusive)
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.kept; !got.known || got.limit < 4*time.Second || got.limit > fading.keep+fading.late {
		t.Errorf("learned %+v; want about 5 s", got)
	}
}

// If the server's time becomes shorter, the pool follows at once. If it becomes longer, the pool
// follows after a few closed connections.
func TestChangedKeepAliveIsFollowed(t *testing.T) {
	fading := &fadingServer{keep: 30 * time.Second, late: 100 * time.Millisecond}
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, rawServer(t, fading.serve))}}, Options{Now: fading.now})
	every := func(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
	usable := func() time.Duration {
		p := u.rest[0].conns.(*exclusive)
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.kept.usable(p.idleTime, 0)
	}
	fading.posts(t, u, 3, 2, every(40*time.Second))
	if got := usable(); got < 15*time.Second || got > 23*time.Second {
		t.Errorf("30 s: %s", got)
	}
	fading.keep = 4 * time.Second
	fading.posts(t, u, 2, 2, every(10*time.Second))
	if got := usable(); got > 3*time.Second {
		t.Errorf("4 s: %s", got)
	}
	fading.keep = 30 * time.Second
	fading.posts(t, u, 20, 2, every(40*time.Second))
	if got := usable(); got < 15*time.Second {
		t.Errorf("30 s again: %s", got)
	}
}
