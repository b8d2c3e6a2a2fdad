package h2

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/wire"
)

// Frames that RFC 9113 calls connection errors end the connection with the code that it names. The
// handler gets no request.
func TestBrokenFrames(t *testing.T) {
	raw := func(kind http2.FrameType, flags http2.Flags, id uint32, payload ...byte) func(p *peer) {
		return func(p *peer) { _ = p.fr.WriteRawFrame(kind, flags, id, payload) }
	}
	setting := func(id http2.SettingID, v uint32) func(p *peer) {
		return func(p *peer) { _ = p.fr.WriteSettings(http2.Setting{ID: id, Val: v}) }
	}
	for _, tt := range []struct {
		name string
		send func(p *peer)
		want http2.ErrCode
	}{
		{"DATA on an idle stream", func(p *peer) { p.data(1, true, "x") }, http2.ErrCodeProtocol},
		{"reset of an idle stream", func(p *peer) { _ = p.fr.WriteRSTStream(1, http2.ErrCodeCancel) }, http2.ErrCodeProtocol},
		{"window of an idle stream", func(p *peer) { _ = p.fr.WriteWindowUpdate(1, 1) }, http2.ErrCodeProtocol},
		{"window of the connection", func(p *peer) { _ = p.fr.WriteWindowUpdate(0, 1<<31-1) }, http2.ErrCodeFlowControl},
		{"even stream", func(p *peer) { p.ask(2, true) }, http2.ErrCodeProtocol},
		{"DATA on stream 0", raw(http2.FrameData, 0, 0, 'x'), http2.ErrCodeProtocol},
		{"HEADERS on stream 0", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, 0x82), http2.ErrCodeProtocol},
		{"PRIORITY on stream 0", raw(http2.FramePriority, 0, 0, 0, 0, 0, 3, 1), http2.ErrCodeProtocol},
		{"RST_STREAM on stream 0", raw(http2.FrameRSTStream, 0, 0, 0, 0, 0, 8), http2.ErrCodeProtocol},
		{"CONTINUATION on stream 0", raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 0), http2.ErrCodeProtocol},
		{"CONTINUATION of nothing", raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, 0x82), http2.ErrCodeProtocol},
		{"SETTINGS on a stream", raw(http2.FrameSettings, 0, 1), http2.ErrCodeProtocol},
		{"PING on a stream", raw(http2.FramePing, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8), http2.ErrCodeProtocol},
		{"GOAWAY on a stream", raw(http2.FrameGoAway, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), http2.ErrCodeProtocol},
		{"PUSH_PROMISE", raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, 0, 0, 0, 2, 0x82), http2.ErrCodeProtocol},
		{"acknowledgement with settings", raw(http2.FrameSettings, http2.FlagSettingsAck, 0, 0, 4, 0, 0, 0, 1), http2.ErrCodeFrameSize},
		{"SETTINGS of an odd size", raw(http2.FrameSettings, 0, 0, 0, 4, 0), http2.ErrCodeFrameSize},
		{"PING of an odd size", raw(http2.FramePing, 0, 0, 1), http2.ErrCodeFrameSize},
		{"WINDOW_UPDATE of an odd size", raw(http2.FrameWindowUpdate, 0, 0, 1), http2.ErrCodeFrameSize},
		{"GOAWAY of an odd size", raw(http2.FrameGoAway, 0, 0, 1), http2.ErrCodeFrameSize},
		{"RST_STREAM of an odd size", raw(http2.FrameRSTStream, 0, 1, 1), http2.ErrCodeFrameSize},
		{"padding without its length", raw(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1), http2.ErrCodeFrameSize},
		{"more padding than payload", raw(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, 9, 0x82), http2.ErrCodeProtocol},
		{"priority without its fields", raw(http2.FrameHeaders, http2.FlagHeadersPriority|http2.FlagHeadersEndHeaders, 1, 0, 0), http2.ErrCodeFrameSize},
		{"push is neither 0 nor 1", setting(http2.SettingEnablePush, 2), http2.ErrCodeProtocol},
		{"initial window too large", setting(http2.SettingInitialWindowSize, 1<<31), http2.ErrCodeFlowControl},
		{"frame size too small", setting(http2.SettingMaxFrameSize, 1<<14-1), http2.ErrCodeProtocol},
		{"frame size too large", setting(http2.SettingMaxFrameSize, 1<<24), http2.ErrCodeProtocol},
		{"frame too large", func(p *peer) { _ = p.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<14+1)) }, http2.ErrCodeFrameSize},
		{"frame within a block", func(p *peer) {
			_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			_ = p.fr.WritePing(false, [8]byte{})
		}, http2.ErrCodeProtocol},
		{"HEADERS that depend on themselves", raw(http2.FrameHeaders, http2.FlagHeadersPriority|http2.FlagHeadersEndHeaders, 1, 0, 0, 0, 1, 0, 0x82), http2.ErrCodeProtocol},
		{"header block cut off", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0x40), http2.ErrCodeCompression},
		{"bad compression", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), http2.ErrCodeCompression},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked atomic.Int32
			count := func(s wire.Stream) {
				asked.Add(1)
				ok(s)
			}
			bubble(t, count, testOptions, func(t *testing.T, p *peer, s *Server) {
				p.greet()
				tt.send(p)
				p.ask(5, true) // not read any more
				pass(2 * time.Second)
				p.want("away 0 " + tt.want.String() + ", closed")
				if n := asked.Load(); n != 0 {
					t.Errorf("%d requests reached the handler", n)
				}
			})
		})
	}
}

// Frames that RFC 9113 calls stream errors end only their stream.
func TestSpoiltStreams(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ended bool // the request of stream 1
		send  func(p *peer)
		want  string
	}{
		{"window too large", false, func(p *peer) { _ = p.fr.WriteWindowUpdate(1, 1<<31-1) }, "1: FLOW_CONTROL_ERROR"},
		{"DATA after END_STREAM", true, func(p *peer) { p.data(1, false, "x") }, "1: STREAM_CLOSED"},
		{"HEADERS after END_STREAM", true, func(p *peer) { p.ask(1, true) }, "1: STREAM_CLOSED"},
		{"PRIORITY of an odd size", false, func(p *peer) { _ = p.fr.WriteRawFrame(http2.FramePriority, 0, 1, []byte{0}) }, "1: FRAME_SIZE_ERROR"},
		{"PRIORITY on itself", false, func(p *peer) { _ = p.fr.WritePriority(1, http2.PriorityParam{StreamDep: 1}) }, "1: PROTOCOL_ERROR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wait := func(s wire.Stream) { <-s.Life().Done() }
			bubble(t, wait, testOptions, func(t *testing.T, p *peer, s *Server) {
				p.greet()
				p.ask(1, tt.ended, ":method: POST")
				p.ask(3, false, ":method: POST")
				pass(time.Second)
				p.want("")
				tt.send(p)
				pass(time.Second)
				p.want(tt.want)
			})
		})
	}
}

// A closed stream accepts no more frames (RFC 9113, section 5.1).
func TestClosedStream(t *testing.T) {
	for name, tt := range map[string]struct {
		send func(p *peer)
		want string
	}{
		"DATA":    {func(p *peer) { p.data(1, false, "x") }, "1: STREAM_CLOSED"},
		"HEADERS": {func(p *peer) { p.ask(1, true) }, "away 1 STREAM_CLOSED, closed"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ok, testOptions, func(t *testing.T, p *peer, s *Server) {
				p.greet()
				p.ask(1, true)
				pass(time.Second)
				p.got()
				tt.send(p)
				pass(2 * time.Second)
				p.want(tt.want)
			})
		})
	}
}

// SETTINGS that raise the window of an open stream above the maximum end the connection (RFC 9113,
// section 6.9.2). So does a first frame of another type (section 3.4).
func TestBrokenSettings(t *testing.T) {
	wait := func(s wire.Stream) { <-s.Life().Done() }
	bubble(t, wait, testOptions, func(t *testing.T, p *peer, s *Server) {
		p.greet()
		p.ask(1, false, ":method: POST")
		_ = p.fr.WriteWindowUpdate(1, 1)
		_ = p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		pass(2 * time.Second)
		p.want("away 1 FLOW_CONTROL_ERROR, closed")
	})
	bubble(t, ok, testOptions, func(t *testing.T, p *peer, s *Server) {
		go p.read()
		_, _ = io.WriteString(p.c, http2.ClientPreface)
		p.ask(1, true)
		pass(2 * time.Second)
		p.want("away 0 PROTOCOL_ERROR, closed")
	})
}
