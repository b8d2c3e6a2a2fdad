package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
)

// frameServer calls do for each request; n counts the requests of all connections.
func frameServer(t testing.TB, do func(n int, fr *http2.Framer, id uint32, c net.Conn)) string {
	var n atomic.Int64
	return "h2c://" + rawServer(t, func(c net.Conn) {
		serveFrames(c, func(fr *http2.Framer, id uint32) { do(int(n.Add(1)), fr, id, c) })
	})
}

// serveFrames calls each for every request of a connection.
func serveFrames(c net.Conn, each func(fr *http2.Framer, id uint32)) {
	_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings()
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if f.Header().Type == http2.FrameHeaders {
			each(fr, f.Header().StreamID)
		}
	}
}

func answer204(fr *http2.Framer, id uint32) {
	var b bytes.Buffer
	_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "204"})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: true})
}

func TestOnlyUnprocessedStreamsAreRepeated(t *testing.T) {
	for _, c := range []struct {
		name   string
		method string
		want   Kind // 0: answered
		times  int  // how often the request arrives
		do     func(n int, fr *http2.Framer, id uint32, c net.Conn)
	}{
		{"refused once", "POST", 0, 2, func(n int, fr *http2.Framer, id uint32, _ net.Conn) {
			if n == 1 {
				_ = fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				return
			}
			answer204(fr, id)
		}},
		{"refused always", "POST", Reset, maxAttempts, func(n int, fr *http2.Framer, id uint32, _ net.Conn) {
			_ = fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}},
		{"GOAWAY", "POST", 0, 2, func(n int, fr *http2.Framer, id uint32, c net.Conn) {
			if n == 1 {
				_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
				return
			}
			answer204(fr, id)
		}},
		{"reset", "GET", Reset, 1, func(n int, fr *http2.Framer, id uint32, _ net.Conn) {
			_ = fr.WriteRSTStream(id, http2.ErrCodeInternal)
		}},
		{"closed on a new connection", "GET", Reset, 1, func(n int, fr *http2.Framer, id uint32, c net.Conn) { c.Close() }},
		{"garbage", "GET", Garbage, 1, func(n int, fr *http2.Framer, id uint32, c net.Conn) { _ = fr.WriteData(id, true, nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var arrived atomic.Int64
			url := frameServer(t, func(n int, fr *http2.Framer, id uint32, conn net.Conn) {
				arrived.Add(1)
				c.do(n, fr, id, conn)
			})
			signed := 0
			r := call("x")
			r.Method = c.method
			r.Sign = func(scheme, host string) (message.Fields, error) {
				if signed++; scheme != "http" || "h2c://"+host != url {
					t.Errorf("signed for %s of %s", scheme, host)
				}
				return append(r.Fields[:len(r.Fields):len(r.Fields)], message.Field{Name: "signature", Value: fmt.Sprint(signed)}), nil
			}
			_, err := answered(grpcUpstream(t, Options{}, url), r)
			if kindOf(err) != c.want || c.want == 0 && err != nil {
				t.Error(err)
			}
			if got := arrived.Load(); got != int64(c.times) || signed != c.times {
				t.Errorf("arrived %d times, signed %d times; want %d", got, signed, c.times)
			}
		})
	}
}

// A request that one endpoint refused unprocessed goes to another.
func TestRefusedStreamGoesToAnotherEndpoint(t *testing.T) {
	busy := frameServer(t, func(n int, fr *http2.Framer, id uint32, _ net.Conn) {
		_ = fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
	})
	good, _ := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "good") })
	u := grpcUpstream(t, Options{}, busy, good)
	for range 4 {
		if got, err := answered(u, call("x")); got != "good" {
			t.Fatal(got, err)
		}
	}
}

// After a failure on a reused connection without an answer, only idempotent requests are
// repeated.
func TestOnlyIdempotentRequestsAreRepeatedOnAReusedSharedConnection(t *testing.T) {
	for method, want := range map[string]Kind{"GET": 0, "POST": Reset} {
		t.Run(method, func(t *testing.T) {
			url := frameServer(t, func(n int, fr *http2.Framer, id uint32, c net.Conn) {
				if n == 2 {
					c.Close()
					return
				}
				answer204(fr, id)
			})
			u := grpcUpstream(t, Options{}, url)
			if _, err := answered(u, call("x")); err != nil {
				t.Fatal(err)
			}
			r := call("x")
			r.Method = method
			if _, err := answered(u, r); kindOf(err) != want {
				t.Error(err)
			}
		})
	}
}
