package h2

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// peer is a scripted client that records the frames it receives.
type peer struct {
	t   testing.TB
	c   net.Conn
	fr  *http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer

	alive bool // answers the PING that asks for it; set before greet

	mu   sync.Mutex // guards the fields below
	log  []string   // received frames in order, without SETTINGS and connection windows
	body map[uint32]string
	quit chan struct{} // closed at the end of reading
}

func newPeer(t testing.TB, c net.Conn) *peer {
	p := &peer{t: t, c: c, fr: http2.NewFramer(c, c), body: map[uint32]string{}, quit: make(chan struct{})}
	p.enc = hpack.NewEncoder(&p.buf)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(0, nil)
	p.fr.AllowIllegalWrites = true
	return p
}

// greet sends the preface and SETTINGS, and starts to read.
func (p *peer) greet(settings ...http2.Setting) *peer {
	p.t.Helper()
	go p.read()
	if _, err := io.WriteString(p.c, http2.ClientPreface); err != nil {
		p.t.Fatal(err)
	}
	if err := p.fr.WriteSettings(settings...); err != nil {
		p.t.Fatal(err)
	}
	return p
}

func (p *peer) read() {
	defer close(p.quit)
	for {
		f, err := p.fr.ReadFrame()
		p.mu.Lock()
		if err != nil {
			if err != io.EOF && !strings.Contains(err.Error(), "closed") && !strings.Contains(err.Error(), "reset") && err != io.ErrUnexpectedEOF {
				p.log = append(p.log, err.Error())
			}
			p.log = append(p.log, "closed")
			p.mu.Unlock()
			return
		}
		end := ""
		if f.Header().Flags.Has(http2.FlagDataEndStream) {
			end = " end"
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			what := f.PseudoValue("status")
			if what == "" {
				for _, x := range f.Fields {
					what += x.Name + "=" + x.Value
				}
			}
			p.log = append(p.log, fmt.Sprintf("%d: %s%s", id, what, end))
		case *http2.DataFrame:
			p.body[id] += string(f.Data())
			p.log = append(p.log, fmt.Sprintf("%d: %d bytes%s", id, len(f.Data()), end))
		case *http2.RSTStreamFrame:
			p.log = append(p.log, fmt.Sprintf("%d: %s", id, f.ErrCode))
		case *http2.GoAwayFrame:
			p.log = append(p.log, fmt.Sprintf("away %d %s", f.LastStreamID, f.ErrCode))
		case *http2.WindowUpdateFrame:
			if id != 0 {
				p.log = append(p.log, fmt.Sprintf("%d: window %d", id, f.Increment))
			}
		case *http2.PingFrame:
			if p.alive && string(f.Data[:]) == alivePing {
				_, _ = p.c.Write(appendPing(nil, flagAck, f.Data[:])) // the test may use the framer meanwhile
				break
			}
			p.log = append(p.log, fmt.Sprintf("ping %v", f.IsAck()))
		}
		p.mu.Unlock()
	}
}

// got returns the frames since its last call, separated by commas.
func (p *peer) got() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := strings.Join(p.log, ", ")
	p.log = nil
	return all
}

// want compares the frames received so far, in a synctest bubble.
func (p *peer) want(want string) {
	p.t.Helper()
	synctest.Wait()
	if got := p.got(); got != want {
		p.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// block encodes "name: value" lines without checks.
func (p *peer) block(lines ...string) []byte {
	p.buf.Reset()
	for _, l := range lines {
		i := strings.Index(l[1:], ":") + 1
		_ = p.enc.WriteField(hpack.HeaderField{Name: l[:i], Value: strings.TrimPrefix(l[i+1:], " ")})
	}
	return bytes.Clone(p.buf.Bytes())
}

// ask opens a stream; more lines replace the usual ones of their name.
func (p *peer) ask(id uint32, end bool, more ...string) {
	lines := []string{":method: GET", ":scheme: http", ":authority: a", ":path: /p"}
	for _, l := range more {
		i := slices.IndexFunc(lines, func(u string) bool { return l[0] == ':' && strings.HasPrefix(u, l[:strings.Index(l[1:], ":")+2]) })
		if i >= 0 {
			lines[i] = l
		} else {
			lines = append(lines, l)
		}
	}
	p.headers(id, end, lines...)
}

func (p *peer) headers(id uint32, end bool, lines ...string) {
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(lines...), EndStream: end, EndHeaders: true})
}

func (p *peer) data(id uint32, end bool, text string) { _ = p.fr.WriteData(id, end, []byte(text)) }

var testOptions = ServerOptions{ServerOptions: wire.ServerOptions{HeadTime: 10 * time.Second, IdleTime: time.Minute}}

// ok answers with the request's body, or with its target if there is none, and repeats its
// trailers.
func ok(s wire.Stream) {
	text, err := io.ReadAll(s.Body())
	status := 200
	if err != nil || s.Head().Fault != nil {
		s.CloseAfter()
		status = 400
	}
	if len(text) == 0 {
		text = []byte(s.Head().Target)
	}
	length := int64(len(text))
	if s.Body().Trailers() != nil {
		length = -1
	}
	_ = s.Respond(&message.Response{Status: status, ContentLength: length}, length < 0)
	_, _ = s.Write(text)
	_ = s.Finish(s.Body().Trailers())
}

// bubble runs f in a synctest bubble with a client of a server. All goroutines of the server must
// end soon after the client has closed.
func bubble(t *testing.T, h wire.Handler, o ServerOptions, f func(t *testing.T, p *peer, s *Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		s := NewServer(h, o)
		s.ServeConn(conn)
		p := newPeer(t, client)
		f(t, p, s)
		client.Close()
		time.Sleep(2 * time.Minute)
	})
}

// pass advances the time, and waits for all that happens in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
