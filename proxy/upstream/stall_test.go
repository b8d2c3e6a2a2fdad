package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/wire/socket/sockettest"
)

// updating returns an upstream whose server sends content and KeyUpdates without end, and reads nothing
// after the request. It uses a Unix socket, because TCP loses window updates to a host whose receive
// buffer is full.
func updating(t *testing.T, content []byte) *Upstream {
	t.Helper()
	cert, ca := testCertificate(t)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { sockettest.ServeUpdates(t, c, cert, content) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	c := Config{CA: ca, Rest: setting.List[setting.URL]{endpointURL(t, "https://127.0.0.1:1")}}
	return configured(t, c, Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}})
}

// The server makes crypto/tls write within Read, and reads nothing. The exchange must still end within
// its time limits.
func TestKeyUpdateFloodDoesNotBlockExchanges(t *testing.T) {
	bounds := Timeouts{Connect: 5 * time.Second, Head: 300 * time.Millisecond, Idle: 300 * time.Millisecond, Total: 2 * time.Second}
	for name, c := range map[string]struct{ content, upgrade string }{
		"before the head's end": {ok200 + "x: y", ""},
		"within the content":    {ok200 + "Content-Length: 1000000000\r\n\r\nx", ""},
		"within a tunnel":       {"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nx", "websocket"},
	} {
		t.Run(name, func(t *testing.T) {
			u := updating(t, []byte(c.content))
			r := get()
			r.Timeouts, r.Upgrade = bounds, c.upgrade
			ended := make(chan error, 1)
			go func() {
				x, err := u.Send(context.Background(), r)
				if err != nil {
					ended <- err
					return
				}
				defer x.Close()
				if tunnel := x.Upgraded(); tunnel != nil {
					_ = tunnel.SetDeadline(time.Now().Add(300 * time.Millisecond)) // as the exchange does
					_, err = io.Copy(io.Discard, tunnel)
				} else {
					_, err = io.Copy(io.Discard, x.Body)
				}
				ended <- err
			}()
			select {
			case err := <-ended:
				if err == nil || errors.Is(err, context.Canceled) {
					t.Errorf("the exchange ended with %v", err)
				}
			case <-time.After(time.Minute):
				t.Error("the exchange goes on")
			}
		})
	}
}
