// Package stdhttp adapts HTTP/1.1 and HTTP/2 requests of net/http's server to [wire.Stream].
//
// net/http parses heads leniently (it accepts bare LF and obs-fold, and drops Content-Length beside
// Transfer-Encoding), and a handler cannot detect that. Packages h1 and h2 implement the stricter
// contract and serve all traffic. Tests compare them with this package.
package stdhttp

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Options limit what a client may take. Zero values mean the defaults.
type Options struct {
	HeadBytes int           // largest request head; 32 KiB
	HeadTime  time.Duration // for a whole request head; 10 s
	IdleTime  time.Duration // between requests of a connection; 2 min
	Streams   int           // concurrent streams of an HTTP/2 connection; 100
	// Scheme is the scheme clients used to reach the proxy in front; it applies to connections
	// without TLS. "http" if empty.
	Scheme string
}

// Server serves HTTP on listeners. It is safe for concurrent use.
type Server struct{ http *http.Server }

// New returns a server that hands every request to h. Listeners for HTTP/2 must yield *tls.Conn on
// which ALPN chose "h2".
func New(h wire.Handler, o Options) *Server {
	scheme := def(o.Scheme, "http")
	s := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(h, scheme, w, r) }),
		MaxHeaderBytes:    def(o.HeadBytes, 32<<10),
		ReadHeaderTimeout: def(o.HeadTime, 10*time.Second),
		IdleTimeout:       def(o.IdleTime, 2*time.Minute),
		// Broken clients could fill the log: net/http logs each of their errors.
		ErrorLog: log.New(io.Discard, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          def(o.Streams, 100),
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
			WriteByteTimeout:              time.Minute,
			SendPingTimeout:               time.Minute,
			PingTimeout:                   15 * time.Second,
		},
		DisableGeneralOptionsHandler: true,
	}
	return &Server{s}
}

func def[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// Serve accepts connections until Shutdown or Close, and then returns nil. If the listener fails
// first, it returns the error.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// Shutdown closes the listeners and waits until all requests are answered or ctx ends. It does not
// wait for upgraded connections, which belong to their handler.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close closes the listeners and cuts every connection.
func (s *Server) Close() error { return s.http.Close() }

func serve(h wire.Handler, scheme string, w http.ResponseWriter, r *http.Request) {
	s := stream{w: w, r: r, rc: http.NewResponseController(w)}
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	s.conn = wire.NewConn(peer, wire.PeerOf(local))
	s.conn.TLS = r.TLS
	s.readHead(scheme)
	s.body = body{s: &s, src: r.Body}
	defer s.follow(s.head.Version != message.HTTP2 && (r.ContentLength < 0 || r.ContentLength > soon))()
	if s.head.ContentLength != 0 && s.head.Version == message.HTTP11 {
		// An upstream may answer before the upload ends. HTTP/2 always may.
		_ = s.rc.EnableFullDuplex()
	}
	if s.head.Version == message.HTTP2 && s.head.ContentLength == 0 && s.head.Fields.Has("content-length") && !s.ends() {
		s.head.ContentLength = -1 // contradicts the field, so Settle refuses the head
	}
	h(&s)
	if !s.finished && !s.upgraded {
		panic(http.ErrAbortHandler) // net/http's way to cut a connection or stream
	}
}
