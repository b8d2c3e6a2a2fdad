package h2

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// refuse answers before the request's content has arrived.
func refuse(s wire.Stream) {
	s.CloseAfter()
	_ = s.Respond(&message.Response{Status: 401, ContentLength: 2}, false)
	_, _ = s.Write([]byte("no"))
	_ = s.Finish(nil)
}

// sendThenRead sends all size bytes, as the windows allow, before it looks at the answer, as
// java.net.http and httpx do. It returns all frames received except windows, in order.
func (p *peer) sendThenRead(size int) (got []string) {
	p.t.Helper()
	p.ask(1, false, ":method: POST", fmt.Sprintf("content-length: %d", size))
	stream, conn := 0, startWindow
	piece := make([]byte, maxFrame)
	take := func() bool {
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.t.Fatalf("with %d bytes left to send, after %v: %v", size, got, err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if w, ok := f.Value(http2.SettingInitialWindowSize); ok {
				stream += int(w)
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				conn += int(f.Increment)
			} else {
				stream += int(f.Increment)
			}
		case *http2.MetaHeadersFrame:
			got = append(got, f.PseudoValue("status"))
		case *http2.DataFrame:
			got = append(got, string(f.Data()))
			return f.StreamEnded()
		case *http2.RSTStreamFrame:
			got = append(got, f.ErrCode.String())
		}
		return false
	}
	ended := false
	for size > 0 {
		n := min(size, stream, conn, len(piece))
		if n <= 0 {
			ended = take() || ended
			continue
		}
		if err := p.fr.WriteData(1, n == size, piece[:n]); err != nil {
			p.t.Fatal(err)
		}
		stream, conn, size = stream-n, conn-n, size-n
	}
	for !ended {
		ended = take()
	}
	return got
}

// The windows of an answered request are still enlarged. So a client can send the rest of a body of
// any length, and then read the answer.
func TestEarlyAnswerReachesAClientThatSendsAllFirst(t *testing.T) {
	for name, h := range map[string]wire.Handler{
		"answered at once": refuse,
		"answered after some content": func(s wire.Stream) {
			_, _ = io.ReadFull(s.Body(), make([]byte, 100<<10))
			refuse(s)
		},
		"answered with content unread": func(s wire.Stream) {
			time.Sleep(time.Second)
			refuse(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, h, testOptions, func(t *testing.T, p *peer, s *Server) {
				if _, err := io.WriteString(p.c, http2.ClientPreface); err != nil {
					t.Fatal(err)
				}
				if err := p.fr.WriteSettings(); err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprint(p.sendThenRead(32 << 20)); got != "[401 no]" {
					t.Errorf("got %s", got)
				}
				synctest.Wait()
				go func() { _, _ = io.Copy(io.Discard, p.c) }()
			})
		})
	}
}

// A client that never stops sending is reset in the end. Its other requests are answered meanwhile.
func TestRestOfAnAnsweredStreamIsBounded(t *testing.T) {
	for _, x := range []struct {
		name  string
		every time.Duration // how often the client sends a byte; 0: never
		crowd int           // streams that linger already
		drain bool          // the server drains after 10 s
		after time.Duration // when the reset comes, and not before
	}{
		{"a byte each second", time.Second, 0, false, 30 * time.Second},
		{"silence", 0, 0, false, wire.MaxSilence},
		{"among very many", time.Second, 1024, false, wire.Brief},
		{"while the server drains", time.Second, 0, true, 11 * time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			bubble(t, refuse, testOptions, func(t *testing.T, p *peer, s *Server) {
				for range x.crowd {
					s.BeginLinger(time.Now(), time.Minute)
				}
				p.greet()
				p.ask(1, false, ":method: POST")
				p.want("1: 401, 1: 2 bytes end")
				begun := time.Now()
				for id := uint32(3); ; id += 2 {
					if x.drain && time.Since(begun) == 10*time.Second {
						go func() { _ = s.Shutdown(context.Background()) }()
					}
					if x.every > 0 {
						p.data(1, false, "x")
					}
					others := ""
					if !x.drain {
						p.ask(id, true)
						others = fmt.Sprintf("%d: 401, %d: 2 bytes end", id, id)
					}
					pass(time.Second)
					got := p.got()
					if strings.Contains(got, "1: NO_ERROR") {
						break
					}
					if !x.drain && got != others || time.Since(begun) > time.Minute {
						t.Fatalf("after %v: got %q, want %q", time.Since(begun), got, others)
					}
				}
				if took := time.Since(begun); took < x.after || took > x.after+3*time.Second {
					t.Errorf("reset after %v, want %v", took, x.after)
				}
				for range x.crowd {
					s.EndLinger()
				}
			})
		})
	}
}
