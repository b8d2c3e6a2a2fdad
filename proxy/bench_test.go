package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/cmd/sallyport/demo"
	"sallyport/proxy"
	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// benchStream is a request that is there already and an answer that goes nowhere:
// what the pipeline costs without an engine.
type benchStream struct {
	wire.Stream // what the benchmark does not need
	head        message.Head
	conn        wire.Conn
	body        benchBody
	status      int
}

type benchBody struct{ bytes.Reader }

func (*benchBody) Trailers() message.Fields { return nil }

func (s *benchStream) Head() *message.Head                       { return &s.head }
func (s *benchStream) Conn() *wire.Conn                          { return &s.conn }
func (s *benchStream) Context() context.Context                  { return context.Background() }
func (s *benchStream) Body() message.Body                        { return &s.body }
func (s *benchStream) SetReadDeadline(time.Time) error           { return nil }
func (s *benchStream) SetWriteDeadline(time.Time) error          { return nil }
func (s *benchStream) Respond(m *message.Response, _ bool) error { s.status = m.Status; return nil }
func (s *benchStream) Write(p []byte) (int, error)               { return len(p), nil }
func (s *benchStream) Flush() error                              { return nil }
func (s *benchStream) Finish(message.Fields) error               { return nil }
func (s *benchStream) CloseAfter()                               {}

// benchGateway is a gateway with one route for bearer tokens, before a server
// that answers every request with the same few bytes and allocates nothing.
func benchGateway(tb testing.TB) (g *proxy.Gateway, token string) {
	tb.Helper()
	model, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	go answerAll(model)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	iss, err := demo.NewIssuer(demo.IssuerConfig{URL: "http://" + l.Addr().String(), Audience: "models"})
	if err != nil {
		tb.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: iss}}
	s.Start()
	file := filepath.Join(tb.TempDir(), "gateway.yaml")
	text := fmt.Sprintf(`
listen: {https: "127.0.0.1:0", http: off, health: off}
tls: {local: {}}
audit: {file: /dev/null}
issuers: {corp: {url: "http://%s", audience: models}}
routes: [{host: models.test, upstream: "http://%s", callers: issuer/corp, rules: [{allow: "*", who: {scope: models.predict}}]}]
`, l.Addr(), model.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(file)
	if err != nil {
		tb.Fatal(err)
	}
	if g, err = proxy.New(cfg, proxy.Options{}); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	<-g.Ready()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		s.Close()
		model.Close()
	})
	if token, err = iss.Sign(iss.Claims("alice", "models.predict")); err != nil {
		tb.Fatal(err)
	}
	return g, token
}

// answerAll answers requests of one write each.
func answerAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 8<<10)
			answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n{\"predictions\": [2.5]}")
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				if _, err := c.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

var benchContent = []byte(`{"instances": [1.0]}`)

// request makes s the usual request, as an engine would.
func (s *benchStream) request(token string) {
	*s = benchStream{}
	s.conn = wire.NewConn(netip.MustParseAddrPort("127.0.0.1:40000"))
	s.body.Reset(benchContent)
	s.head = message.Head{
		Version: message.HTTP11, Method: "POST", Scheme: "https", Authority: "models.test", Target: "/v1/models/half_plus_two:predict",
		ContentLength: int64(len(benchContent)),
		Fields: append(make(message.Fields, 0, 16),
			message.Field{Name: "accept", Value: "*/*"},
			message.Field{Name: "authorization", Value: token},
			message.Field{Name: "content-length", Value: "20"},
			message.Field{Name: "content-type", Value: "application/json"},
			message.Field{Name: "user-agent", Value: "bench"}),
	}
}

// BenchmarkExchange is the whole way of a small request with a token from the
// cache, upstream on loopback, without TLS and the client's side of the wire.
func BenchmarkExchange(b *testing.B) {
	g, token := benchGateway(b)
	token = "Bearer " + token
	b.ReportAllocs()
	var s benchStream
	for b.Loop() {
		s.request(token)
		g.Serve(&s)
		if s.status != 200 {
			b.Fatalf("status %d", s.status)
		}
	}
}

// BenchmarkRefusal is the way of a request without a token.
func BenchmarkRefusal(b *testing.B) {
	g, _ := benchGateway(b)
	b.ReportAllocs()
	var s benchStream
	for b.Loop() {
		s.request("Bearer x")
		g.Serve(&s)
		if s.status != 401 {
			b.Fatalf("status %d", s.status)
		}
	}
}
