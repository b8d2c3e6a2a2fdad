package h2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// listen serves h on loopback.
func listen(t testing.TB, h wire.Handler, o ServerOptions) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(h, o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// plain is a client of the standard library with prior knowledge.
func plain(t testing.TB) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// settled waits until no more goroutines run than before.
func settled(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// Thousands of requests, small and large both ways, are cancelled at any time by either side.
// Complete messages are correct, others look truncated, and no goroutine is left.
func TestStress(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() { settled(t, before) })
	h := func(s wire.Stream) {
		_ = s.SetReadDeadline(time.Now().Add(time.Minute))
		_ = s.SetWriteDeadline(time.Now().Add(time.Minute))
		if rand.IntN(20) == 0 {
			s.CloseAfter()
			_ = s.Respond(&message.Response{Status: 403, ContentLength: 0}, false)
			_ = s.Finish(nil)
			return
		}
		if s.Respond(&message.Response{Status: 200, ContentLength: -1}, true) != nil {
			return
		}
		buf := make([]byte, 1+rand.IntN(40_000))
		for {
			n, err := s.Body().Read(buf)
			if _, werr := s.Write(buf[:n]); werr != nil || rand.IntN(300) == 0 {
				return
			}
			if rand.IntN(3) == 0 && s.Flush() != nil {
				return
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
		}
		_ = s.Finish(message.Fields{{Name: "x-end", Value: "yes"}})
	}
	o := ServerOptions{Resets: 1 << 20, Streams: 1000}
	s, addr := listen(t, h, o)
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	var whole, refused, cut atomic.Int64
	var all sync.WaitGroup
	each := 5
	if testing.Short() {
		each = 1
	}
	for range 4 {
		client := plain(t)
		for range 150 {
			all.Go(func() {
				for range each {
					ctx, cancel := context.WithCancel(context.Background())
					if rand.IntN(3) == 0 {
						time.AfterFunc(time.Duration(rand.IntN(5000))*time.Microsecond, cancel)
					}
					want := data[:rand.IntN(1+rand.IntN(len(data)))]
					var body io.Reader = bytes.NewReader(want)
					if rand.IntN(2) == 0 {
						body = io.MultiReader(body) // of unknown length
					}
					req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/", body)
					res, err := client.Do(req)
					if err != nil {
						cut.Add(1)
						cancel()
						continue
					}
					got, err := io.ReadAll(res.Body)
					res.Body.Close()
					switch {
					case err != nil:
						cut.Add(1)
					case res.StatusCode == 403:
						refused.Add(1)
					case !bytes.Equal(got, want) || res.Trailer.Get("x-end") != "yes":
						t.Errorf("%d bytes came back of %d, trailers %v", len(got), len(want), res.Trailer)
					default:
						whole.Add(1)
					}
					cancel()
				}
			})
		}
	}
	all.Wait()
	t.Logf("%d whole, %d refused, %d cut", whole.Load(), refused.Load(), cut.Load())
	if whole.Load() == 0 || refused.Load() == 0 || cut.Load() == 0 {
		t.Error("not everything happened")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("Shutdown: %v", err)
	}
}
