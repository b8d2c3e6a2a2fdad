package h2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Requests that take too long end; idle but valid connections do not.
func TestSlowClients(t *testing.T) {
	for name, x := range map[string]struct {
		send func(*peer)
		wait time.Duration
		want string
	}{
		"silence before the preface": {func(p *peer) { go p.read() }, 11 * time.Second, "closed"},
		"half a preface": {func(p *peer) {
			go p.read()
			_, _ = io.WriteString(p.c, http2.ClientPreface[:20])
		}, 11 * time.Second, "closed"},
		"no settings": {func(p *peer) {
			go p.read()
			_, _ = io.WriteString(p.c, http2.ClientPreface)
		}, 11 * time.Second, "closed"},
		"another protocol": {func(p *peer) {
			go p.read()
			_, _ = io.WriteString(p.c, "GE")
		}, 0, "closed"},
		"half a frame's head": {func(p *peer) {
			p.greet()
			_, _ = p.c.Write([]byte{0, 0})
		}, 11 * time.Second, "closed"},
		"half of HEADERS": {func(p *peer) {
			p.greet()
			_, _ = p.c.Write(append(appendFrameHead(nil, 100, frameHeaders, flagEndHeaders, 1), 0x82))
		}, 11 * time.Second, "closed"},
		"half a block": {func(p *peer) {
			p.greet()
			_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			for range 9 {
				pass(time.Second)
				_ = p.fr.WriteContinuation(1, false, []byte{0x84})
			}
		}, 2 * time.Second, "closed"},
		"no request, and PING": {func(p *peer) {
			p.greet()
			for range 5 {
				pass(10 * time.Second)
				_ = p.fr.WritePing(false, [8]byte{})
			}
		}, 12 * time.Second, strings.Repeat("ping true, ", 5) + "away 0 NO_ERROR, closed"},
		"no second request": {func(p *peer) {
			p.greet().ask(1, true)
			pass(59 * time.Second)
			p.ask(3, true)
			pass(59 * time.Second)
		}, 3 * time.Second, "1: 200, 1: 2 bytes end, 3: 200, 3: 2 bytes end, away 3 NO_ERROR, closed"},
		"no end where none is announced": {func(p *peer) { p.greet().ask(1, false, ":method: POST", "content-length: 0") }, 11 * time.Second, "1: CANCEL"},
		"a slow body": {func(p *peer) {
			p.greet().ask(1, false, ":method: POST")
			for range 5 {
				_, _ = p.c.Write(append(appendFrameHead(nil, 2, frameData, 0, 1), 'x'))
				pass(30 * time.Second)
				_, _ = p.c.Write([]byte("y"))
			}
			p.data(1, true, "")
		}, 0, "1: 200, 1: 10 bytes end"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ok, testOptions, func(t *testing.T, p *peer, _ *Server) {
				x.send(p)
				pass(x.wait + 2*time.Second) // time for sweeps and the last frames
				p.want(x.want)
			})
		})
	}
}

// The server does not wait for a client that reads nothing, and buffers little for it.
func TestClientThatDoesNotRead(t *testing.T) {
	for name, send := range map[string]func(p *peer) error{
		"pings":    func(p *peer) error { return p.fr.WritePing(false, [8]byte{}) },
		"settings": func(p *peer) error { return p.fr.WriteSettings() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ok, testOptions, func(t *testing.T, p *peer, s *Server) {
				_, _ = io.WriteString(p.c, http2.ClientPreface)
				_ = p.fr.WriteSettings()
				n := 0
				for n < 1e6 && send(p) == nil { // the server goes on reading, so that no side blocks the other
					n++
				}
				if n > 2*s.options.Load().Frames {
					t.Errorf("%d frames were taken", n)
				}
			})
		})
	}
	t.Run("answers", func(t *testing.T) {
		bubble(t, ok, testOptions, func(t *testing.T, p *peer, s *Server) {
			_, _ = io.WriteString(p.c, http2.ClientPreface)
			_ = p.fr.WriteSettings()
			p.ask(1, true)
			pass(40 * time.Second)
			if _, err := p.c.Write([]byte{0}); err == nil {
				t.Error("the connection is still there")
			}
		})
	})
}

// Unproductive frames are limited; requests and answers raise the limit.
func TestFloods(t *testing.T) {
	zero := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0}
	for name, send := range map[string]func(p *peer){
		"PING":                      func(p *peer) { _ = p.fr.WritePing(false, [8]byte{}) },
		"PING that answers":         func(p *peer) { _ = p.fr.WritePing(true, [8]byte{}) },
		"SETTINGS":                  func(p *peer) { _ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7}) },
		"acknowledgements":          func(p *peer) { _ = p.fr.WriteSettingsAck() },
		"PRIORITY":                  func(p *peer) { _ = p.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"WINDOW_UPDATE":             func(p *peer) { _ = p.fr.WriteWindowUpdate(0, 1) },
		"WINDOW_UPDATE of a stream": func(p *peer) { _ = p.fr.WriteWindowUpdate(1, 1) },
		"empty DATA":                func(p *peer) { p.data(1, false, "") },
		"padding":                   func(p *peer) { _ = p.fr.WriteDataPadded(1, false, nil, zero) },
		"unknown frames":            func(p *peer) { _ = p.fr.WriteRawFrame(0xfa, 0, 1, zero) },
		"resets of nothing":         func(p *peer) { _ = p.fr.WriteRSTStream(3, http2.ErrCodeCancel) },
		"HEADERS on a reset stream": func(p *peer) { p.headers(5, true, "x: y") },
		"DATA on a reset stream":    func(p *peer) { p.data(5, false, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			wait := func(s wire.Stream) { <-s.Life().Done() }
			bubble(t, wait, testOptions, func(t *testing.T, p *peer, s *Server) {
				p.greet()
				p.ask(1, false, ":method: POST")
				p.ask(3, true)
				_ = p.fr.WriteRSTStream(3, http2.ErrCodeCancel)
				p.ask(5, true)
				_ = p.fr.WriteWindowUpdate(5, 0) // the server resets it
				for range s.options.Load().Frames / 2 {
					send(p)
				}
				pass(5 * time.Second)
				if got := p.got(); strings.Contains(got, "away") {
					t.Fatalf("half of them end it: %.100s", got)
				}
				for range s.options.Load().Frames {
					send(p)
				}
				pass(2 * time.Second)
				if got := p.got(); !strings.HasSuffix(got, "away 5 ENHANCE_YOUR_CALM, closed") {
					t.Errorf("got %.200s", got)
				}
			})
		})
	}
}

func TestFloodOfContinuations(t *testing.T) {
	for name, fragment := range map[string][]byte{"empty": nil, "of one byte": {0x82}, "large": bytes.Repeat([]byte{0x82}, 16<<10)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ok, testOptions, func(t *testing.T, p *peer, s *Server) {
				p.greet()
				_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
				for range maxFragments + 1 {
					_ = p.fr.WriteContinuation(1, false, fragment)
				}
				pass(2 * time.Second)
				p.want("away 0 ENHANCE_YOUR_CALM, closed")
			})
		})
	}
}

// The number of streams limits concurrent work, whatever the client resets. A client that keeps
// resetting is disconnected.
func TestResets(t *testing.T) {
	for name, reset := range map[string]func(p *peer, id uint32){
		"by the client":            func(p *peer, id uint32) { _ = p.fr.WriteRSTStream(id, http2.ErrCodeCancel) },
		"by a window of nothing":   func(p *peer, id uint32) { _ = p.fr.WriteWindowUpdate(id, 0) },
		"by a window too large":    func(p *peer, id uint32) { _ = p.fr.WriteWindowUpdate(id, 1<<31-1) },
		"by a priority of its own": func(p *peer, id uint32) { _ = p.fr.WritePriority(id, http2.PriorityParam{StreamDep: id}) },
		"by an odd priority":       func(p *peer, id uint32) { _ = p.fr.WriteRawFrame(http2.FramePriority, 0, id, []byte{0}) },
		"by DATA after END_STREAM": func(p *peer, id uint32) { p.data(id, false, "x") },
		"by HEADERS behind it":     func(p *peer, id uint32) { p.headers(id, true, "x: y") },
	} {
		t.Run(name, func(t *testing.T) {
			var now, most, all atomic.Int64
			stubborn := func(s wire.Stream) { // ignores that its client has left
				all.Add(1)
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Second)
				now.Add(-1)
			}
			o := testOptions
			o.Streams = 10
			bubble(t, stubborn, o, func(t *testing.T, p *peer, s *Server) {
				p.greet()
				id := uint32(1)
				for ; id < 2000; id += 2 {
					p.ask(id, true)
					reset(p, id)
				}
				pass(3 * time.Second)
				if most.Load() > 10 || all.Load() > 10 {
					t.Errorf("%d at once, %d in all", most.Load(), all.Load())
				}
				if got := p.got(); !strings.HasSuffix(got, "ENHANCE_YOUR_CALM, closed") {
					t.Errorf("got %.300s", got)
				}
			})
		})
	}
	t.Run("now and then", func(t *testing.T) {
		bubble(t, func(s wire.Stream) { <-s.Life().Done() }, testOptions, func(t *testing.T, p *peer, s *Server) {
			p.greet()
			for id := uint32(1); id < 4000; id += 2 {
				p.ask(id, true)
				_ = p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
				pass(60 * time.Millisecond) // 17 a second; 20 come back
			}
			p.want("")
		})
	})
}

func TestMoreStreamsThanAllowed(t *testing.T) {
	release := make(chan struct{})
	h := func(s wire.Stream) { <-release; ok(s) }
	o := testOptions
	o.Streams = 2
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		client, conn := net.Pipe()
		s := NewServer(h, o)
		s.ServeConn(conn)
		p := newPeer(t, client).greet()
		p.ask(1, true)
		p.ask(3, true)
		p.ask(5, true, "x-indexed: by the encoder")
		p.want("5: REFUSED_STREAM")
		_ = p.fr.WriteRSTStream(1, http2.ErrCodeCancel)
		p.ask(7, true)
		p.want("7: REFUSED_STREAM") // the handler of the first is still running
		close(release)
		p.want("3: 200, 3: 2 bytes end")
		p.ask(9, true, "x-indexed: by the encoder")
		p.want("9: 200, 9: 2 bytes end")
		client.Close()
		time.Sleep(time.Minute)
	})
}

func TestLargeHeads(t *testing.T) {
	var faults []string
	h := func(s wire.Stream) { faults = append(faults, fmt.Sprint(s.Head().Fault)); ok(s) }
	for name, x := range map[string]struct {
		lines []string
		want  string
		fault error
	}{
		"many fields":    {manyLines(200), "1: 400, 1: 2 bytes end", message.ErrTooManyLines},
		"many bytes":     {[]string{"a: " + strings.Repeat("{", 40_000)}, "1: 400, 1: 2 bytes end", message.ErrHeadTooLarge},
		"an endless one": {slices.Repeat([]string{"a: " + strings.Repeat("{", 40_000)}, 30), "away 0 ENHANCE_YOUR_CALM, closed", nil},
		"a large field":  {[]string{"a: " + strings.Repeat("a", 40_000)}, "1: 400, 1: 2 bytes end", message.ErrHeadTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			faults = nil
			bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
				p.greet()
				b := p.block(append([]string{":method: GET", ":scheme: http", ":authority: a", ":path: /p"}, x.lines...)...)
				_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:min(len(b), 16<<10)], EndStream: true, EndHeaders: len(b) <= 16<<10})
				for b = b[min(len(b), 16<<10):]; len(b) > 0; b = b[min(len(b), 16<<10):] {
					_ = p.fr.WriteContinuation(1, len(b) <= 16<<10, b[:min(len(b), 16<<10)])
				}
				pass(2 * time.Second)
				p.want(x.want)
				if x.fault != nil && (len(faults) != 1 || !strings.HasPrefix(faults[0], x.fault.Error())) {
					t.Errorf("faults %v; want %v", faults, x.fault)
				}
			})
		})
	}
}

func manyLines(n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("x-%d: y", i)
	}
	return lines
}

func TestShutdownAndClose(t *testing.T) {
	slow := func(s wire.Stream) {
		select {
		case <-time.After(5 * time.Second):
		case <-s.Life().Done():
		}
		ok(s)
	}
	t.Run("waits for the answer", func(t *testing.T) {
		bubble(t, slow, testOptions, func(t *testing.T, p *peer, s *Server) {
			p.greet().ask(1, true)
			synctest.Wait()
			done := make(chan error, 1)
			go func() { done <- s.Shutdown(context.Background()) }()
			p.want("away 2147483647 NO_ERROR, ping false")
			pass(100 * time.Millisecond)
			p.ask(3, true) // sent before the client saw the GOAWAY
			_ = p.fr.WritePing(true, [8]byte([]byte(drainPing)))
			p.want("away 3 NO_ERROR")
			p.ask(5, false, ":method: POST") // sent after the client saw the GOAWAY
			p.data(5, true, "hello")
			pass(7 * time.Second)
			p.want("1: 200, 1: 2 bytes end, 3: 200, 3: 2 bytes end, closed")
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("does not go back on what it said", func(t *testing.T) {
		bubble(t, slow, testOptions, func(t *testing.T, p *peer, s *Server) {
			p.greet().ask(1, true)
			synctest.Wait()
			go func() { _ = s.Shutdown(context.Background()) }()
			synctest.Wait()
			_ = p.fr.WritePing(true, [8]byte([]byte(drainPing)))
			p.want("away 2147483647 NO_ERROR, ping false, away 1 NO_ERROR")
			p.ask(3, true)
			_ = p.fr.WriteRawFrame(http2.FrameSettings, 0, 0, []byte("odd"))
			pass(2 * time.Second)
			p.want("away 1 FRAME_SIZE_ERROR, closed")
		})
	})
	t.Run("ends a connection that floods it with streams after GOAWAY", func(t *testing.T) {
		bubble(t, slow, testOptions, func(t *testing.T, p *peer, s *Server) {
			p.greet().ask(1, true)
			synctest.Wait()
			go func() { _ = s.Shutdown(context.Background()) }()
			synctest.Wait()
			_ = p.fr.WritePing(true, [8]byte([]byte(drainPing)))
			p.want("away 2147483647 NO_ERROR, ping false, away 1 NO_ERROR")
			for id := range uint32(s.options.Load().Frames) {
				p.ask(3+2*id, true)
			}
			pass(2 * time.Second)
			p.want("away 1 ENHANCE_YOUR_CALM, closed")
		})
	})
	t.Run("of a client that does not answer", func(t *testing.T) {
		bubble(t, slow, testOptions, func(t *testing.T, p *peer, s *Server) {
			p.greet()
			synctest.Wait()
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			p.want("away 2147483647 NO_ERROR, ping false, away 0 NO_ERROR, closed")
		})
	})
	t.Run("before the greeting", func(t *testing.T) {
		bubble(t, slow, testOptions, func(t *testing.T, p *peer, s *Server) {
			go p.read()
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("gives up with its context", func(t *testing.T) {
		bubble(t, slow, testOptions, func(t *testing.T, p *peer, s *Server) {
			p.greet().ask(1, true)
			synctest.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
				t.Errorf("Shutdown: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if got := p.got(); !strings.HasSuffix(got, ", closed") || strings.Contains(got, "200") {
				t.Errorf("got %s; want a cut at once", got)
			}
		})
	})
	t.Run("takes nothing more", func(t *testing.T) {
		bubble(t, slow, testOptions, func(t *testing.T, p *peer, s *Server) {
			_ = s.Close()
			client, conn := net.Pipe()
			s.ServeConn(conn)
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read: %v", err)
			}
			go p.read()
		})
	})
}

// TestWindowUpdatesForContentInFlight: a client with a large window may take all of an answer before
// it opens the windows again, for every 4 KiB. Updates beyond those are a flood.
func TestWindowUpdatesForContentInFlight(t *testing.T) {
	const size = 16 << 20
	big := func(s wire.Stream) {
		_ = s.Respond(&message.Response{Status: 200, ContentLength: size}, false)
		_, _ = s.Write(make([]byte, size))
		_ = s.Finish(nil)
	}
	bubble(t, big, testOptions, func(t *testing.T, p *peer, s *Server) {
		p.greet(http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
		_ = p.fr.WriteWindowUpdate(0, size)
		p.ask(1, true)
		synctest.Wait()
		if got := p.got(); !strings.HasSuffix(got, " end") || len(p.body[1]) != size {
			t.Fatalf("%d bytes, ends %.40q", len(p.body[1]), got[max(0, len(got)-40):])
		}
		for range size / (4 << 10) {
			_ = p.fr.WriteWindowUpdate(0, 4<<10)
			_ = p.fr.WriteWindowUpdate(1, 4<<10)
		}
		synctest.Wait()
		if got := p.got(); got != "" {
			t.Fatalf("the updates for the answer end it: %s", got)
		}
		for range s.options.Load().Frames + 1000 {
			_ = p.fr.WriteWindowUpdate(0, 1)
		}
		pass(2 * time.Second)
		if got := p.got(); !strings.HasSuffix(got, "away 1 ENHANCE_YOUR_CALM, closed") {
			t.Errorf("got %.200s; want the end of a flood", got)
		}
	})
}

// A stream may begin while the connection dies, and then add output. Its waits must end. An endless
// wait would hold the connection's mutex. The watch of all connections would wait for that mutex, and
// in the end the whole server.
func TestWaitsForOutputEndWithTheConnection(t *testing.T) {
	for name, wait := range map[string]func(*stream) error{
		"for the window": func(s *stream) error {
			_, err := s.waitForWindow(1)
			return err
		},
		"for the output of others": func(s *stream) error {
			s.c.control().B = make([]byte, maxHeld)
			return s.waitForOthers()
		},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			defer theirs.Close()
			c := newServerConn(NewServer(func(wire.Stream) {}, ServerOptions{}), ours)
			ended := make(chan error, 1)
			go func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.die(io.ErrUnexpectedEOF)
				s := newStream(c, 1)
				c.streams[1] = s
				c.control() // output that nobody will write
				ended <- wait(s)
			}()
			select {
			case err := <-ended:
				if err != io.ErrUnexpectedEOF {
					t.Errorf("got %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("the wait does not end")
			}
		})
	}
}
