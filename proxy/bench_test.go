package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
	"sallyport/proxy"
	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// benchStream is a request in memory whose answer is discarded. It measures the pipeline without an
// engine.
type benchStream struct {
	wire.Stream // methods that the benchmark does not need
	head        message.Head
	conn        wire.Conn
	body        benchBody
	status      int
	call        string // the status of a gRPC call; "" if it has none
	life        wire.Life
}

// benchBody is content that has arrived, as far as a window of HTTP/2 holds it.
type benchBody struct{ bytes.Reader }

func (b *benchBody) Arrived() (n int, whole bool) {
	n = min(b.Len(), 64<<10)
	return n, n == b.Len()
}

// Read returns io.EOF with the last bytes, as engines do.
func (b *benchBody) Read(p []byte) (n int, err error) {
	if n, err = b.Reader.Read(p); err == nil && b.Len() == 0 {
		err = io.EOF
	}
	return n, err
}

func (*benchBody) Trailers() message.Fields { return nil }

func (s *benchStream) Head() *message.Head              { return &s.head }
func (s *benchStream) Conn() *wire.Conn                 { return &s.conn }
func (s *benchStream) Life() *wire.Life                 { return &s.life }
func (s *benchStream) Body() message.Body               { return &s.body }
func (s *benchStream) SetReadDeadline(time.Time) error  { return nil }
func (s *benchStream) SetWriteDeadline(time.Time) error { return nil }
func (s *benchStream) Write(p []byte) (int, error)      { return len(p), nil }
func (s *benchStream) Flush() error                     { return nil }
func (s *benchStream) CloseAfter()                      {}
func (s *benchStream) KeepEnd()                         {}

func (s *benchStream) Respond(m *message.Response, _ bool) error {
	s.status, s.call = m.Status, m.Fields.Get("grpc-status")
	return nil
}

func (s *benchStream) Finish(trailers message.Fields) error {
	if s.call == "" {
		s.call = trailers.Get("grpc-status")
	}
	return nil
}

const benchRoute = `{host: models.test, upstream: "http://%s", callers: issuer/corp, rules: [{allow: "*", who: {scope: models.predict}}]}`

// benchGateway is a gateway with one route; %s in it is a server that answers every request with
// the same bytes and allocates nothing.
func benchGateway(tb testing.TB, route, answer string) (g *proxy.Gateway, token string) {
	tb.Helper()
	return benchGatewayTo(tb, route, func(l net.Listener) { answerAll(l, answer) })
}

// benchGatewayTo is benchGateway with a server of its own. The upstream tf is that server too, as
// TensorFlow Serving over gRPC.
func benchGatewayTo(tb testing.TB, route string, serve func(net.Listener)) (g *proxy.Gateway, token string) {
	tb.Helper()
	model, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	go serve(model)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	iss, err := authtest.NewIssuer(authtest.IssuerConfig{URL: "http://" + l.Addr().String(), Audience: "models"})
	if err != nil {
		tb.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: iss}}
	s.Start()
	dir := tb.TempDir()
	for name, text := range keyFiles() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	file := filepath.Join(dir, "gateway.yaml")
	text := fmt.Sprintf(`
listen: {https: "127.0.0.1:0", http: off, health: off}
tls: {local: {}}
audit: {file: /dev/null}
issuers: {corp: {url: "http://%s", audience: models}}
integrity: {nonces: 10000000, nonces_per_key: 10000000}
api_keys: {bench: {hash: "%s"}}
upstreams: {tf: {serves: tensorflow, grpc: "h2c://%s"}}
%s
routes: [%s]
`, l.Addr(), apikey.HashText(benchAPIKey), model.Addr(), testKeys, strings.ReplaceAll(route, "%s", model.Addr().String()))
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

// benchAPIKey is a key of every benchmark gateway.
var benchAPIKey = apikey.New()

// usualAnswer is the content of the benchmark server's answers.
const usualAnswer = `{"predictions": [2.5]}`

// answerAll answers requests that arrive in one write each.
func answerAll(l net.Listener, content string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 8<<10)
			answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(content), content)
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

// request sets s to the usual request, as an engine would.
func (s *benchStream) request(token string) {
	s.requestOf(benchContent, message.Field{Name: "authorization", Value: token})
}

// requestOf sets s to a request with this content and more fields.
func (s *benchStream) requestOf(content []byte, more ...message.Field) {
	*s = benchStream{}
	s.conn = wire.NewConn(netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:443"))
	s.body.Reset(content)
	s.head = message.Head{
		Version: message.HTTP11, Method: "POST", Scheme: "https", Authority: "models.test", Target: "/v1/models/half_plus_two:predict",
		ContentLength: int64(len(content)),
		Fields: append(make(message.Fields, 0, 16),
			message.Field{Name: "accept", Value: "*/*"},
			message.Field{Name: "content-length", Value: strconv.Itoa(len(content))},
			message.Field{Name: "content-type", Value: "application/json"},
			message.Field{Name: "user-agent", Value: "bench"}),
	}
	s.head.Fields = append(s.head.Fields, more...)
}

// BenchmarkExchange measures a small request with a cached token and a loopback upstream, without
// TLS and the client's side of the wire.
func BenchmarkExchange(b *testing.B) {
	g, token := benchGateway(b, benchRoute, usualAnswer)
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

// BenchmarkRefusal measures a request without a token.
func BenchmarkRefusal(b *testing.B) {
	g, _ := benchGateway(b, benchRoute, usualAnswer)
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

// BenchmarkSigned is BenchmarkExchange with 1 KiB in each direction, with a token and with a
// signature whose answer is signed too. Each request needs a new signature; the client's cost of
// making it is reported separately.
func BenchmarkSigned(b *testing.B) {
	content := bytes.Repeat([]byte("a"), 1<<10)
	signer, err := httpsig.NewSigner(httpsig.RequestProfile(), nil)
	if err != nil {
		b.Fatal(err)
	}
	key, digest := keyOf("acme-1"), httpsig.ContentDigest(content)
	sign := func(s *benchStream) {
		s.requestOf(content, message.Field{Name: "content-digest", Value: digest})
		m := httpsig.Message{Method: "POST", Scheme: "https", Authority: "models.test", Path: s.head.Target, Fields: &s.head.Fields}
		signed, err := signer.Sign(key, &m, "")
		if err != nil {
			b.Fatal(err)
		}
		s.head.Fields.Add("signature-input", signed.Input)
		s.head.Fields.Add("signature", signed.Signature)
	}
	run := func(name, route string, prepare func(s *benchStream, token string)) {
		b.Run(name, func(b *testing.B) {
			g, token := benchGateway(b, route, string(content))
			token = "Bearer " + token
			b.ReportAllocs()
			var s benchStream
			for b.Loop() {
				prepare(&s, token)
				g.Serve(&s)
				if s.status != 200 {
					b.Fatalf("status %d", s.status)
				}
			}
		})
	}
	const signedRoute = `{host: models.test, upstream: "http://%s", callers: key/acme, rules: [{allow: "*"}]`
	run("token", benchRoute, func(s *benchStream, token string) {
		s.requestOf(content, message.Field{Name: "authorization", Value: token})
	})
	run("request", signedRoute+", integrity: {response: off}}", func(s *benchStream, _ string) { sign(s) })
	run("request and answer", signedRoute+"}", func(s *benchStream, _ string) { sign(s) })
	b.Run("the client's part", func(b *testing.B) {
		b.ReportAllocs()
		var s benchStream
		for b.Loop() {
			sign(&s)
		}
	})
}
