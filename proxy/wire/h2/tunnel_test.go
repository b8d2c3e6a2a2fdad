package h2

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

var extended = []string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /p"}

// upgrading hands the tunnel to f.
func upgrading(f func(net.Conn)) wire.Handler {
	return func(s wire.Stream) {
		if s.Head().Upgrade != "websocket" || s.Head().Method != "GET" {
			ok(s)
			return
		}
		c, err := s.Upgrade(&message.Response{Status: 101, Fields: message.Fields{{Name: "sec-websocket-accept", Value: "x"}}})
		if err != nil {
			panic(err)
		}
		f(c)
	}
}

func TestTunnel(t *testing.T) {
	t.Run("carries both ways", func(t *testing.T) {
		echo := upgrading(func(c net.Conn) {
			_, _ = io.Copy(c, c)
			c.Close()
		})
		bubble(t, echo, testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.greet().headers(1, false, extended...)
			p.data(1, false, "one")
			p.want("1: 200, 1: 3 bytes")
			p.data(1, false, strings.Repeat("x", 10_000))
			synctest.Wait()
			p.data(1, true, "")
			synctest.Wait()
			if got := p.got(); !strings.HasSuffix(got, " end") || len(p.body[1]) != 10_003 {
				t.Errorf("got %s, %d bytes", got, len(p.body[1]))
			}
		})
	})
	t.Run("outlives its handler", func(t *testing.T) {
		h := upgrading(func(c net.Conn) {
			go func() {
				time.Sleep(3 * time.Minute) // a tunnel is not idle
				_, _ = io.WriteString(c, "late")
				c.Close()
			}()
		})
		bubble(t, h, testOptions, func(t *testing.T, p *peer, s *Server) {
			p.alive = true
			p.greet().headers(1, false, extended...)
			pass(5 * time.Minute)
			p.want("1: 200, 1: 4 bytes, 1: 0 bytes end, 1: NO_ERROR, away 1 NO_ERROR, closed")
		})
	})
	t.Run("has deadlines", func(t *testing.T) {
		var errs []error
		h := upgrading(func(c net.Conn) {
			defer c.Close()
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 1))
			errs = append(errs, err)
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, err = c.Write(make([]byte, 100_000))
			errs = append(errs, err)
		})
		bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}).headers(1, false, extended...)
			pass(5 * time.Second)
			if len(errs) != 2 || !errors.Is(errs[0], os.ErrDeadlineExceeded) || !errors.Is(errs[1], os.ErrDeadlineExceeded) {
				t.Errorf("errors %v", errs)
			}
			p.want("1: 200, 1: 5 bytes, 1: CANCEL")
		})
	})
	t.Run("ends with a reset", func(t *testing.T) {
		done := make(chan error, 1)
		h := upgrading(func(c net.Conn) {
			_, err := c.Read(make([]byte, 1))
			done <- err
			c.Close()
		})
		synctest.Test(t, func(t *testing.T) {
			done = make(chan error, 1)
			client, conn := net.Pipe()
			s := NewServer(h, testOptions)
			s.ServeConn(conn)
			p := newPeer(t, client).greet()
			p.headers(1, false, extended...)
			synctest.Wait()
			_ = p.fr.WriteRSTStream(1, http2.ErrCodeCancel)
			if err := <-done; err == nil || err == io.EOF {
				t.Errorf("read: %v", err)
			}
			client.Close()
			time.Sleep(time.Minute)
		})
	})
	t.Run("is opened by no other answer", func(t *testing.T) {
		h := func(s wire.Stream) {
			if err := s.Respond(&message.Response{Status: 200, ContentLength: 0}, false); err != wire.ErrStatus {
				panic(err)
			}
			ok403(s)
		}
		bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
			p.greet().headers(1, false, extended...)
			pass(wire.MaxSilence + time.Second)
			p.want("1: 403 end, 1: NO_ERROR")
		})
	})
}

func ok403(s wire.Stream) {
	s.CloseAfter()
	_ = s.Respond(&message.Response{Status: 403, ContentLength: 0}, false)
	_ = s.Finish(nil)
}
