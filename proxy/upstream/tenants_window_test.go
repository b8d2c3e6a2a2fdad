package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// A server grants each stream as much content as the whole connection, and its handler for one caller reads
// nothing. That caller's uploads use up the connection's window; others must have their content delivered,
// and what has no content goes on where no further connection may be opened.
func TestUploadsThatNobodyReadsHoldNoUploadOfOthers(t *testing.T) {
	for most, content := range map[int]int{0: 200_000, 1: 0} {
		t.Run(fmt.Sprint("max_connections ", most), func(t *testing.T) {
			release := make(chan struct{})
			var held atomic.Int64
			url, conns := sharedServer(t, 100, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/held" {
					held.Add(1)
					<-release
					return
				}
				n, err := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, n, err)
			})
			u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, url)}, MaxConnections: most}, Options{})
			ctx, cancel := context.WithCancel(context.Background())
			var all sync.WaitGroup
			defer all.Wait()
			defer close(release)
			defer cancel()
			for range 8 {
				all.Go(func() {
					r := post(strings.Repeat("x", 4<<20))
					r.Target = "/held"
					if x, err := u.Send(ctx, r); err == nil {
						x.Close()
					}
				})
			}
			for held.Load() < 8 || !dry(u) {
				time.Sleep(time.Millisecond)
			}
			for range 20 {
				r := post(strings.Repeat("x", content))
				r.Timeouts = Timeouts{Connect: time.Minute, Head: time.Minute, Idle: time.Minute}
				if body, err := answered(u, r); body != fmt.Sprint(content, nil) {
					t.Fatalf("a victim: %q, %v; %d connections", body, err, conns.Load())
				}
			}
			if n := conns.Load(); n > 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// dry reports whether nobody reads the uploads of any connection of the pool.
func dry(u *Upstream) bool {
	p := u.rest[0].conns.(*shared)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if !c.Dry() {
			return false
		}
	}
	return true
}
