package h1

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/wire"
)

func TestShutdownAndClose(t *testing.T) {
	entered := make(chan struct{}, 1)
	slow := func(s wire.Stream) {
		entered <- struct{}{}
		select {
		case <-time.After(5 * time.Second):
		case <-s.Life().Done():
		}
		ok(s)
	}
	t.Run("waits for the answer", func(t *testing.T) {
		piped(t, slow, func(t *testing.T, c net.Conn, s *Server) {
			send(t, c, get+"\r\n")
			<-entered
			done := make(chan error, 1)
			go func() { done <- s.Shutdown(context.Background()) }()
			if got := rest(c); !strings.HasSuffix(got, "/p") || !strings.Contains(got, "Connection: close") {
				t.Errorf("answered %q", got)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("gives up with its context", func(t *testing.T) {
		piped(t, slow, func(t *testing.T, c net.Conn, s *Server) {
			send(t, c, get+"\r\n")
			<-entered
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
				t.Errorf("Shutdown: %v", err)
			}
			start := time.Now()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if got := rest(c); got != "" || time.Since(start) > time.Second {
				t.Errorf("answered %q after %v, want a cut at once", got, time.Since(start))
			}
		})
	})
	t.Run("ends idle connections", func(t *testing.T) {
		piped(t, ok, func(t *testing.T, c net.Conn, s *Server) {
			send(t, c, get+"\r\n")
			in := bufio.NewReader(c)
			response(t, in)
			start := time.Now()
			if err := s.Shutdown(context.Background()); err != nil || time.Since(start) > 0 {
				t.Errorf("Shutdown: %v after %v", err, time.Since(start))
			}
			if left, err := io.ReadAll(in); len(left) > 0 || err != nil {
				t.Errorf("left %q, %v", left, err)
			}
		})
	})
	t.Run("refuses what comes later", func(t *testing.T) {
		piped(t, ok, func(t *testing.T, _ net.Conn, s *Server) {
			_ = s.Close()
			client, conn := net.Pipe()
			s.ServeConn(conn)
			if got := rest(client); got != "" {
				t.Errorf("answered %q", got)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Serve(l); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	})
}

// Under load, every answered request has a complete answer, however the server ends, and no
// goroutine is left.
func TestEndUnderLoad(t *testing.T) {
	for _, force := range []bool{false, true} {
		t.Run(fmt.Sprint("force ", force), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := NewServer(ok, testOptions)
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			var clients sync.WaitGroup
			var answered atomic.Int64
			warm := make(chan struct{})
			for range 20 {
				clients.Go(func() {
					for {
						c, err := net.Dial("tcp", l.Addr().String())
						if err != nil {
							return
						}
						for in := bufio.NewReader(c); ; {
							if _, err := io.WriteString(c, post+"Content-Length: 5\r\n\r\nhello"); err != nil {
								break
							}
							head, err := in.ReadString('o') // the body's last byte; no field before has an "o" behind "hell"
							for err == nil && !strings.HasSuffix(head, "hello") {
								var more string
								more, err = in.ReadString('o')
								head += more
							}
							if err != nil {
								if head != "" && !force {
									t.Errorf("half an answer: %q, %v", head, err)
								}
								break
							}
							if answered.Add(1) == 2000 {
								close(warm)
							}
						}
						c.Close()
					}
				})
			}
			<-warm
			end := func() error { return s.Shutdown(t.Context()) }
			if force {
				end = s.Close
			}
			if err := end(); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			clients.Wait()
			if err := s.Conns.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
