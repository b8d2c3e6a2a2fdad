package h2

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

func TestAnswers(t *testing.T) {
	small := func(s wire.Stream) {
		_ = s.Respond(&message.Response{Status: 200, ContentLength: 2}, false)
		_, _ = s.Write([]byte("ok"))
		_ = s.Finish(nil)
	}
	for _, x := range []struct {
		name   string
		handle wire.Handler
		ask    func(*peer)
		want   string
	}{
		{"small", small, func(p *peer) { p.ask(1, true) }, "1: 200, 1: 2 bytes end"},
		{"without content", func(s wire.Stream) {
			_ = s.Respond(&message.Response{Status: 204, ContentLength: -1}, false)
			_ = s.Finish(nil)
		}, func(p *peer) { p.ask(1, true) }, "1: 204 end"},
		{"to HEAD", small, func(p *peer) { p.ask(1, true, ":method: HEAD") }, "1: 200 end"},
		{"with what was sent", ok, func(p *peer) {
			p.ask(1, false, ":method: POST", "content-length: 5")
			p.data(1, false, "hel")
			p.data(1, true, "lo")
		}, "1: 200, 1: 5 bytes end"},
		{"with trailers", ok, func(p *peer) {
			p.ask(1, false, ":method: POST")
			p.data(1, false, "hello")
			p.headers(1, true, "x-sum: 7", "authorization: no", "content-length: 7")
		}, "1: 200, 1: 5 bytes, 1: x-sum=7 end"},
		{"with hints before", func(s wire.Stream) {
			_ = s.Inform(&message.Response{Status: 103, Fields: message.Fields{{Name: "link", Value: "</a>"}}})
			small(s)
		}, func(p *peer) { p.ask(1, true) }, "1: 103, 1: 200, 1: 2 bytes end"},
		{"to a client that waits", ok, func(p *peer) {
			p.ask(1, false, ":method: POST", "expect: 100-continue")
			synctest.Wait()
			p.data(1, true, "hello")
		}, "1: 100, 1: 200, 1: 5 bytes end"},
		{"to a client that waits in vain", small, func(p *peer) {
			p.ask(1, false, ":method: POST", "expect: 100-continue")
			synctest.Wait()
			p.data(1, true, "hello")
		}, "1: 200, 1: 2 bytes end"},
		{"before the request ends", func(s wire.Stream) { s.CloseAfter(); small(s) }, func(p *peer) {
			p.ask(1, false, ":method: POST")
			p.data(1, false, "hello")
			pass(wire.MaxSilence + time.Second)
		}, "1: 200, 1: 2 bytes end, 1: NO_ERROR"},
		{"that refuse, with the end on its way", func(s wire.Stream) { s.CloseAfter(); small(s) }, func(p *peer) {
			p.ask(1, false, ":method: POST")
			synctest.Wait()
			p.data(1, true, "hello") // curl 7.88 would report an earlier reset as an error
			pass(5 * time.Second)
		}, "1: 200, 1: 2 bytes end"},
		{"before the request ends, and the rest follows", small, func(p *peer) {
			p.ask(1, false, ":method: POST")
			synctest.Wait()
			p.data(1, false, "hello")
			p.data(1, true, "hello")
			pass(5 * time.Second)
		}, "1: 200, 1: 2 bytes end"},
		{"before the request ends, and no rest follows", small, func(p *peer) {
			p.ask(1, false, ":method: POST")
			pass(wire.MaxSilence + time.Second)
		}, "1: 200, 1: 2 bytes end, 1: NO_ERROR"},
		{"that are not whole", func(s wire.Stream) {
			_ = s.Respond(&message.Response{Status: 200, ContentLength: 5}, false)
			_, _ = s.Write([]byte("he"))
			_ = s.Flush()
			if err := s.Finish(nil); err != wire.ErrTooLittle {
				panic(err)
			}
		}, func(p *peer) { p.ask(1, true) }, "1: 200, 1: 2 bytes, 1: INTERNAL_ERROR"},
		{"that never came", func(wire.Stream) {}, func(p *peer) { p.ask(1, true) }, "1: INTERNAL_ERROR"},
		{"of a handler that panics", func(s wire.Stream) { small(s); panic("no") }, func(p *peer) { p.ask(1, true) }, "1: INTERNAL_ERROR"},
		{"with fields that may not be", func(s wire.Stream) {
			for _, f := range []message.Field{{Name: "connection", Value: "close"}, {Name: "X-Big", Value: "a"}, {Name: "x", Value: "a\r\nb: c"}, {Name: "x", Value: " a"}, {Name: ":status", Value: "200"}, {Name: "", Value: ""}} {
				if s.Inform(&message.Response{Status: 103, Fields: message.Fields{f}}) == nil {
					panic(f)
				}
			}
			if s.Respond(&message.Response{Status: 200, Fields: message.Fields{{Name: "x", Value: "\x00"}}}, false) == nil {
				panic("taken")
			}
		}, func(p *peer) { p.ask(1, true) }, "1: INTERNAL_ERROR"},
		{"each on its stream", ok, func(p *peer) {
			p.ask(3, false, ":method: POST")
			p.ask(5, true)
			synctest.Wait()
			p.data(3, true, "three")
		}, "5: 200, 5: 2 bytes end, 3: 200, 3: 5 bytes end"},
	} {
		t.Run(x.name, func(t *testing.T) {
			bubble(t, x.handle, testOptions, func(t *testing.T, p *peer, _ *Server) {
				x.ask(p.greet())
				p.want(x.want)
			})
		})
	}
}

// Output that is ready is written at once: head, content and end of a small answer.
func TestSmallAnswerIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, conn := counted(t)
		s := NewServer(ok, testOptions)
		s.ServeConn(conn)
		p.greet()
		synctest.Wait()
		before := conn.writes.Load()
		p.ask(1, true)
		p.want("1: 200, 1: 2 bytes end")
		if n := conn.writes.Load() - before; n != 1 {
			t.Errorf("%d writes", n)
		}
		s.Close()
		pass(time.Minute)
	})
}

func TestAnswersKeepToTheWindows(t *testing.T) {
	big := func(s wire.Stream) {
		_ = s.Respond(&message.Response{Status: 200, ContentLength: 100_000}, false)
		_, _ = s.Write(make([]byte, 100_000))
		_ = s.Finish(nil)
	}
	bubble(t, big, testOptions, func(t *testing.T, p *peer, _ *Server) {
		p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		p.ask(1, true)
		p.want("1: 200, 1: 10 bytes")
		_ = p.fr.WriteWindowUpdate(1, 5)
		p.want("1: 5 bytes")
		_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}) // 15 of 10 are used: the window is -5
		p.want("")
		_ = p.fr.WriteWindowUpdate(1, 5)
		p.want("")
		_ = p.fr.WriteWindowUpdate(1, 99_985)
		p.want("1: 16369 bytes, 1: 16384 bytes, 1: 16384 bytes, 1: 16383 bytes") // the connection's window
		_ = p.fr.WriteWindowUpdate(0, 30_000)
		_ = p.fr.WriteWindowUpdate(0, 30_000)
		synctest.Wait()
		if got := p.got(); !strings.HasSuffix(got, " end") || len(p.body[1]) != 100_000 {
			t.Errorf("got %s, %d bytes in all", got, len(p.body[1]))
		}
	})
}

// A client that grants no window blocks only its own stream, until the deadline.
func TestStalledAnswer(t *testing.T) {
	stalls := func(s wire.Stream) {
		if s.Head().Target == "/small" {
			ok(s)
			return
		}
		_ = s.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_ = s.Respond(&message.Response{Status: 200, ContentLength: -1}, false)
		_, err := s.Write(make([]byte, 100_000))
		_ = s.SetWriteDeadline(time.Time{})
		_, again := s.Write(make([]byte, 10))
		if err != os.ErrDeadlineExceeded || again != err || s.Flush() == nil || s.Finish(nil) != err {
			panic(fmt.Sprint("want a timeout, and no more: ", err, again))
		}
	}
	bubble(t, stalls, testOptions, func(t *testing.T, p *peer, _ *Server) {
		p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.ask(1, true)
		pass(4 * time.Second)
		p.want("1: 200")
		p.ask(3, true, ":path: /small", ":method: HEAD")
		p.want("3: 200 end")
		pass(2 * time.Second)
		p.want("1: INTERNAL_ERROR")
	})
}

func TestUploadsGetWindow(t *testing.T) {
	count := func(s wire.Stream) {
		n, err := io.Copy(io.Discard, s.Body())
		text := fmt.Sprint(n, err)
		_ = s.Respond(&message.Response{Status: 200, ContentLength: int64(len(text))}, false)
		_, _ = s.Write([]byte(text))
		_ = s.Finish(nil)
	}
	o := testOptions
	o.StreamWindow, o.ConnWindow = 1<<20, 1<<20
	bubble(t, count, o, func(t *testing.T, p *peer, _ *Server) {
		p.greet()
		p.ask(1, false, ":method: POST")
		for range 32 {
			p.data(1, false, strings.Repeat("x", 16<<10))
			synctest.Wait()
		}
		granted := 0
		for _, line := range strings.Split(p.got(), ", ") {
			var n int
			if _, err := fmt.Sscanf(line, "1: window %d", &n); err != nil {
				t.Errorf("got %s", line)
			}
			granted += n
		}
		// The bytes read, less the half window held back, plus the allowed growth.
		if granted < 256<<10 || granted > 512<<10+768<<10 {
			t.Errorf("%d bytes were granted", granted)
		}
		p.data(1, true, "")
		p.want("1: 200, 1: 12 bytes end")
		if p.body[1] != "524288 <nil>" {
			t.Error(p.body[1])
		}
	})
}

// A client that exceeds its window is disconnected, and the window limits unread content.
func TestUploadsKeepToTheWindow(t *testing.T) {
	wait := func(s wire.Stream) { <-s.Life().Done() }
	bubble(t, wait, testOptions, func(t *testing.T, p *peer, _ *Server) {
		p.greet()
		p.ask(1, false, ":method: POST")
		for range 16 {
			p.data(1, false, strings.Repeat("x", 16<<10))
		}
		p.want("")
		p.data(1, false, "x")
		p.want("1: FLOW_CONTROL_ERROR")
		for id := uint32(3); id <= 5; id += 2 { // each has its own window, all share that of the connection
			p.ask(id, false, ":method: POST")
			for range 16 {
				p.data(id, false, strings.Repeat("x", 16<<10))
			}
		}
		p.ask(7, false, ":method: POST")
		for range 15 {
			p.data(7, false, strings.Repeat("x", 16<<10))
		}
		p.want("")
		p.data(7, false, strings.Repeat("x", 16<<10))
		pass(2 * time.Second)
		p.want("away 7 FLOW_CONTROL_ERROR, closed")
	})
}

func TestSlowBody(t *testing.T) {
	h := func(s wire.Stream) {
		var text string
		for _, d := range []time.Duration{5 * time.Second, -1} {
			_ = s.SetReadDeadline(time.Now().Add(d))
			_, err := io.ReadAll(s.Body())
			text += fmt.Sprint(err == os.ErrDeadlineExceeded, " ")
		}
		_ = s.SetReadDeadline(time.Time{})
		all, err := io.ReadAll(s.Body())
		text += fmt.Sprint(string(all), err)
		_ = s.Respond(&message.Response{Status: 200, ContentLength: int64(len(text))}, false)
		_, _ = s.Write([]byte(text))
		_ = s.Finish(nil)
	}
	bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
		p.greet()
		p.ask(1, false, ":method: POST")
		pass(6 * time.Second)
		p.data(1, true, "late")
		p.want("1: 200, 1: 19 bytes end")
		if p.body[1] != "true true late<nil>" {
			t.Error(p.body[1])
		}
	})
}

func TestContextEnds(t *testing.T) {
	for name, leave := range map[string]func(*peer){
		"with a reset":          func(p *peer) { _ = p.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
		"with the connection":   func(p *peer) { p.c.Close() },
		"with a spoilt stream":  func(p *peer) { _ = p.fr.WriteWindowUpdate(1, 0) },
		"with a broken framing": func(p *peer) { _ = p.fr.WriteRawFrame(http2.FrameSettings, 0, 0, []byte("odd")) },
	} {
		t.Run(name, func(t *testing.T) {
			var body, ctx error
			h := func(s wire.Stream) {
				_, body = s.Body().Read(make([]byte, 1))
				<-s.Life().Done()
				ctx = wire.Cause(s.Life())
			}
			bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
				p.greet()
				p.ask(1, false, ":method: POST")
				synctest.Wait()
				if body != nil || ctx != nil {
					t.Fatal("ended before the client left")
				}
				leave(p)
				synctest.Wait()
				if body == nil || body == io.EOF || ctx == nil {
					t.Errorf("body %v, context %v", body, ctx)
				}
			})
		})
	}
}

// java.net.http gives up a request when GOAWAY comes before its answer.
func TestConnectionDrainsAfterTheAnswer(t *testing.T) {
	bubble(t, func(s wire.Stream) {
		s.(wire.Drainer).DrainAfter()
		ok(s)
	}, testOptions, func(t *testing.T, p *peer, s *Server) {
		p.greet().ask(1, true)
		p.want("1: 200, 1: 2 bytes end, away 2147483647 NO_ERROR, ping false")
	})
}
