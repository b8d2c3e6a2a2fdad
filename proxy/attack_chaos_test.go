package proxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// chaoticServer serves HTTP/1.1, and does something else with each connection: it breaks off, stalls, answers
// early or never, or sends what it should not.
func chaoticServer(t *testing.T) (url string) {
	return rawUpstream(t, func(c net.Conn) {
		const head = "HTTP/1.1 200 OK\r\n"
		switch rand.IntN(10) {
		case 0: // nothing
		case 1:
			_, _ = io.WriteString(c, head[:rand.IntN(len(head))])
		case 2:
			_, _ = io.WriteString(c, head+"Content-Length: 100000\r\n\r\n"+strings.Repeat("x", rand.IntN(90_000)))
		case 3:
			_, _ = io.WriteString(c, head+"Transfer-Encoding: chunked\r\n\r\nfff\r\nx")
		case 4:
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		case 5:
			_ = c.(*net.TCPConn).SetLinger(0)
		case 6:
			time.Sleep(rand.N(50 * time.Millisecond))
		case 7:
			forever(head+"\r\n", "much")(c)
		case 8:
			_, _ = io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", rand.IntN(12))+head+"Content-Length: 2\r\n\r\nok")
			_, _ = io.Copy(io.Discard, c)
		case 9:
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nxx")
		}
	})
}

// chaoticShared is chaoticServer over HTTP/2: it ends a connection, or a stream, at some frame.
func chaoticShared(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				chaoticFrames(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return "h2c://" + l.Addr().String()
}

func chaoticFrames(c net.Conn) {
	_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(rand.IntN(70_000))}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(rand.IntN(50))})
	for range 1 + rand.IntN(200) {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		id := f.Header().StreamID
		var block bytes.Buffer
		_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		answer := func(end bool) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
		}
		if f.Header().Type == http2.FrameSettings {
			_ = fr.WriteSettingsAck()
			continue
		}
		if id == 0 {
			continue
		}
		switch rand.IntN(16) {
		case 0:
			return
		case 1:
			_ = fr.WriteGoAway(id, http2.ErrCode(rand.IntN(14)), nil)
		case 2:
			_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
		case 3:
			_ = fr.WriteRSTStream(id, http2.ErrCode(rand.IntN(14)))
		case 4:
			answer(true)
		case 5:
			answer(false)
			_ = fr.WriteData(id, rand.IntN(2) == 0, make([]byte, rand.IntN(16_000)))
		case 6:
			answer(false)
			for range 20 {
				_ = fr.WriteData(id, false, make([]byte, 16_000))
			}
		case 7:
			_ = fr.WriteWindowUpdate(id, uint32(1+rand.IntN(1<<20)))
			_ = fr.WriteWindowUpdate(0, uint32(1+rand.IntN(1<<20)))
		case 8:
			_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(rand.IntN(70_000))})
		case 9:
			for range rand.IntN(1500) {
				_ = fr.WritePing(false, [8]byte{1})
			}
		case 10:
			time.Sleep(rand.N(20 * time.Millisecond))
		case 11:
			answer(false)
			answer(true) // trailers with a status
		case 12:
			answer(true)
			_ = fr.WriteRSTStream(id, http2.ErrCodeNo)
		case 13:
			_ = fr.WriteRawFrame(http2.FrameType(rand.IntN(12)), http2.Flags(rand.IntN(256)), id, make([]byte, rand.IntN(40)))
		}
	}
}

// chaoticClient opens a connection, does something, and breaks off.
func (h *house) chaoticClient(token string) {
	raw, err := net.Dial("tcp", h.addrs.HTTPS[0].String())
	if err != nil {
		return
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(1500 * time.Millisecond)) // three times what the routes wait
	if rand.IntN(2) == 0 {
		defer func() { _ = raw.(*net.TCPConn).SetLinger(0) }()
	}
	if rand.IntN(8) == 0 { // within the handshake
		_, _ = raw.Write(append([]byte{22, 3, 1, 2, 0, 1}, make([]byte, rand.IntN(300))...))
		return
	}
	path := []string{"/chaos", "/chaos2", "/"}[rand.IntN(3)]
	if rand.IntN(2) == 0 {
		c := h.speak(raw, "http/1.1")
		text := "POST " + path + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + token + "\r\n"
		switch rand.IntN(4) {
		case 0:
			text += "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", rand.IntN(100_001))
		case 1:
			text += "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n" + strings.Repeat("5\r\nhello\r\n", rand.IntN(5000)) + "0\r\n\r\n"
		case 2:
			text = strings.Replace(text, "POST", "GET", 1) + "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + strings.Repeat("x", rand.IntN(100))
		default:
			text = strings.Repeat(strings.Replace(text, "POST", "GET", 1)+"\r\n", 1+rand.IntN(5))
		}
		_, _ = io.WriteString(c, text[:rand.IntN(len(text)+1)])
		if rand.IntN(3) > 0 {
			_, _ = io.CopyN(io.Discard, c, rand.Int64N(2000))
		}
		return
	}
	c := h.speak(raw, "h2")
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	_, _ = io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	fr.AllowIllegalWrites = true
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: []uint32{0, 1, 65535, 1 << 20}[rand.IntN(4)]})
	reads := rand.IntN(3) > 0
	if reads {
		go func() { _, _ = io.Copy(io.Discard, c) }()
	}
	last := uint32(0)
	for range rand.IntN(150) {
		id := last
		if last == 0 || rand.IntN(3) == 0 {
			last += 1 + last%2
			id = last
			buf.Reset()
			method, grpc := "POST", rand.IntN(2) == 0
			lines := [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "models.test"}, {":path", []string{"/chaos", "/chaos2", "/", "/a.B/C"}[rand.IntN(4)]}, {"authorization", "Bearer " + token}}
			if grpc {
				lines = append(lines, [2]string{"content-type", "application/grpc"}, [2]string{"te", "trailers"}, [2]string{"grpc-timeout", fmt.Sprint(rand.IntN(1000)) + "m"})
			}
			if rand.IntN(8) == 0 {
				lines[0][1] = "CONNECT"
				lines = append([][2]string{{":protocol", "websocket"}}, append(lines, [2]string{"sec-websocket-version", "13"})...)
			}
			for _, l := range lines {
				_ = enc.WriteField(hpack.HeaderField{Name: l[0], Value: l[1]})
			}
			if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: buf.Bytes(), EndHeaders: rand.IntN(50) > 0, EndStream: rand.IntN(3) == 0}) != nil {
				return
			}
			continue
		}
		if rand.IntN(2) == 0 {
			id = 1 + 2*uint32(rand.IntN(int(last)/2+1))
		}
		var err error
		switch rand.IntN(10) {
		case 0:
			err = fr.WriteRSTStream(id, http2.ErrCodeCancel)
		case 1, 2, 3:
			err = fr.WriteData(id, rand.IntN(3) == 0, make([]byte, rand.IntN(8000)))
		case 4:
			err = fr.WriteWindowUpdate(id*uint32(rand.IntN(2)), uint32(1+rand.IntN(1<<16)))
		case 5:
			err = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(rand.IntN(1 << 17))})
		case 6:
			err = fr.WritePing(rand.IntN(2) == 0, [8]byte{1})
		case 7:
			time.Sleep(rand.N(5 * time.Millisecond))
		case 8:
			if rand.IntN(10) == 0 {
				err = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
			}
		case 9:
			if rand.IntN(5) == 0 {
				err = fr.WriteRawFrame(http2.FrameType(rand.IntN(12)), http2.Flags(rand.IntN(256)), id, make([]byte, rand.IntN(40)))
			}
		}
		if err != nil {
			return
		}
	}
}

// chaotic is a house with chaotic servers beside the one of honest calls. drain is its grace period.
func chaotic(t *testing.T, drain string) *house {
	shared := chaoticShared(t)
	return build(t, plan{
		handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/honest" {
				return
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, rand.Int64N(100_000)))
			_, _ = w.Write(make([]byte, rand.IntN(200_000)))
		},
		more: fmt.Sprintf("timeouts: {head: 20s, idle: 20s}\ndrain: %s\nreload: {watch: false}\nupstreams: {shared: {rest: %q, grpc: %q, max_idle: 10}}", drain, shared, shared),
		routes: strings.TrimRight(oneRoute, "\n") + fmt.Sprintf(`
    websocket: true
  - {host: models.test, path: /chaos, upstream: %q, websocket: true, timeouts: {head: 500ms, idle: 500ms}, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /chaos2, upstream: shared, timeouts: {head: 500ms, idle: 500ms}, callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /a.B, upstream: shared, timeouts: {head: 500ms, idle: 500ms}, callers: issuer/corp, rules: [{allow: "*"}]}
`, chaoticServer(t)),
	})
}

// TestAttackChaos: many clients break off wherever they are, before servers that do the same, while the
// configuration changes. Honest calls beside them are served, and nothing is left.
func TestAttackChaos(t *testing.T) {
	leavesNothing(t)
	h := chaotic(t, "20s") // a reload cuts no honest call on a busy machine
	token := h.token()
	h.meanwhile(func() {
		var clients sync.WaitGroup
		for range 24 {
			clients.Go(func() {
				for range 8 {
					h.chaoticClient(token)
				}
			})
		}
		for n := range 15 {
			h.chaoticClient(token)
			h.edit(fmt.Sprintf("max_idle: %d}", 10+n), fmt.Sprintf("max_idle: %d}", 11+n))
			if r := h.gateway.Reload(t.Context()); string(r.Result) != "changed" {
				t.Errorf("the reload was %s: %s", r.Result, r.Summary)
			}
		}
		clients.Wait()
	})
}

// TestAttackChaosDuringShutdown: the gateway ends in time, whatever its clients and servers are at.
func TestAttackChaosDuringShutdown(t *testing.T) {
	leavesNothing(t)
	h := chaotic(t, "1s")
	token := h.token()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var over atomic.Int64
	for range 12 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					h.chaoticClient(token)
					over.Add(1)
				}
			}
		})
	}
	eventually(t, "the chaos has begun", func() bool { return over.Load() > 30 })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = h.stop() // the cleanup reports its error
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the gateway does not end")
	}
	close(stop)
	clients.Wait()
}

// speak begins TLS on a connection.
func (h *house) speak(c net.Conn, alpn string) *tls.Conn {
	return tls.Client(c, &tls.Config{RootCAs: h.roots, ServerName: "models.test", NextProtos: []string{alpn}})
}
