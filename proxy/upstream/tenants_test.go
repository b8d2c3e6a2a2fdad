package upstream

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// guarded is a server of HTTP/2 that ends a connection, and every request on it, where
// a real one would.
type guarded struct {
	settings []http2.Setting
	// ends says whether a request ends its connection, by GOAWAY with why: by its fields,
	// or by more of them behind its content.
	ends func(fields []hpack.HeaderField, trailers bool) bool
	why  http2.ErrCode

	ended atomic.Int64 // connections
	heads atomic.Int64 // that came
	conns atomic.Int64
}

// serve answers each request once it is whole, with its trailers' names as the content.
// A request for /quiet has no answer.
func (g *guarded) serve(t testing.TB) (url string) {
	return "h2c://" + rawServer(t, func(c net.Conn) {
		g.conns.Add(1)
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		fr := http2.NewFramer(c, c)
		fr.ReadMetaHeaders = hpack.NewDecoder(0, nil)
		_ = fr.WriteSettings(g.settings...)
		quiet, names := map[uint32]bool{}, map[uint32]string{}
		for last := uint32(0); ; {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			id := f.Header().StreamID
			if f, ok := f.(*http2.MetaHeadersFrame); ok {
				g.heads.Add(1)
				trailers := id <= last
				last = max(last, id)
				if g.ends != nil && g.ends(f.Fields, trailers) {
					g.ended.Add(1)
					_ = fr.WriteGoAway(id, g.why, nil)
					return
				}
				if quiet[id] = quiet[id] || f.PseudoValue("path") == "/quiet"; trailers {
					for _, x := range f.Fields {
						names[id] += x.Name
					}
				}
			}
			if f.Header().Flags.Has(http2.FlagDataEndStream) && f.Header().Type <= http2.FrameHeaders && !quiet[id] {
				answerText(fr, id, "ok "+names[id])
			}
		}
	})
}

func answerText(fr *http2.Framer, id uint32, text string) {
	var b bytes.Buffer
	_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true})
	_ = fr.WriteData(id, true, []byte(text))
}

// victims has many calls under way while attack runs, and fails the test for each that
// is lost. It returns how many there were.
func victims(t *testing.T, u *Upstream, attack func()) (calls int64) {
	t.Helper()
	var n atomic.Int64
	var all sync.WaitGroup
	over := make(chan struct{})
	for range 8 {
		all.Go(func() {
			for {
				if body, err := answered(u, call("x")); err != nil || body != "ok " {
					t.Errorf("a victim lost its call: %q, %v", body, err)
					return
				}
				n.Add(1)
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	attack()
	close(over)
	all.Wait()
	return n.Load()
}

// withTrailers is a request of unknown length with a trailer.
func withTrailers(contentType string) *Request {
	r := call("")
	r.Fields = message.Fields{{Name: "content-type", Value: contentType}}
	r.Body = trailed{strings.NewReader("x"), message.Fields{{Name: "x-sum", Value: "1"}}}
	r.Length = -1
	r.Trailers = func(f message.Fields) message.Fields { return f }
	return r
}

// A server such as grpc-go ends the connection at the second HEADERS of a stream: no
// caller can have the gateway send one.
func TestTrailersOfOneCallerEndNoConnectionOfOthers(t *testing.T) {
	for name, kind := range map[string]string{"gRPC": "application/grpc", "others": "text/plain"} {
		t.Run(name, func(t *testing.T) {
			g := &guarded{ends: func(_ []hpack.HeaderField, trailers bool) bool { return trailers }, why: http2.ErrCodeProtocol}
			list := setting.List[setting.URL]{endpointURL(t, g.serve(t))}
			u := configured(t, Config{Rest: list, GRPC: list}, Options{})
			victims(t, u, func() {
				for range 40 {
					if body, err := answered(u, withTrailers(kind)); err != nil || body != "ok " {
						t.Errorf("the request without its trailers: %q, %v", body, err)
					}
				}
			})
			if n := g.ended.Load(); n > 0 {
				t.Errorf("%d connections ended", n)
			}
		})
	}
}

// Trailers go out over HTTP/2 where the configuration says so, but for those of gRPC.
func TestTrailersGoWhereTheUpstreamTakesThem(t *testing.T) {
	g := &guarded{}
	list := setting.List[setting.URL]{endpointURL(t, g.serve(t))}
	u := configured(t, Config{Rest: list, GRPC: list, RequestTrailers: true}, Options{})
	for kind, want := range map[string]string{"text/plain": "ok x-sum", "application/grpc": "ok ", "application/grpc+proto": "ok "} {
		if body, err := answered(u, withTrailers(kind)); err != nil || body != want {
			t.Errorf("%s: %q, %v; want %q", kind, body, err, want)
		}
	}
}

