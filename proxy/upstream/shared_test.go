package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// sharedServer serves HTTP/2 without TLS with this many streams per connection. It counts its
// connections.
func sharedServer(t testing.TB, streams int, h http.HandlerFunc) (url string, conns *atomic.Int64) {
	conns = &atomic.Int64{}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return "h2c://" + serveHTTP(t, &http.Server{
		Handler: h, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams},
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				conns.Add(1)
			}
		},
	}), conns
}

// serveHTTP runs a server, with TLS if it has certificates, until the end of the test.
func serveHTTP(t testing.TB, server *http.Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.ErrorLog = quiet()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if server.TLSConfig != nil {
			_ = server.ServeTLS(l, "", "")
		} else {
			_ = server.Serve(l)
		}
	}()
	t.Cleanup(func() { server.Close(); <-served })
	return l.Addr().String()
}

// call returns a small gRPC call.
func call(text string) *Request {
	return &Request{
		Method: "POST", Target: "/a.B/C", Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}},
		Body: plainBody{strings.NewReader(text)}, Length: int64(len(text)),
		Timeouts: Timeouts{Connect: time.Minute, Head: time.Minute, Idle: time.Minute},
	}
}

// answered sends a request and returns the content of its answer.
func answered(u *Upstream, r *Request) (string, error) {
	x, err := u.Send(context.Background(), r)
	if err != nil {
		return "", err
	}
	defer x.Close()
	body, err := io.ReadAll(x.Body)
	return string(body), err
}

func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func grpcUpstream(t testing.TB, o Options, urls ...string) *Upstream {
	var c Config
	for _, at := range urls {
		c.GRPC = append(c.GRPC, endpointURL(t, at))
	}
	return configured(t, c, o)
}

func TestRequestsGoToTheEndpointsOfTheirKind(t *testing.T) {
	who := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name, " ", r.Proto, " ", r.Host) }
	}
	rest, _ := sharedServer(t, 10, who("rest"))
	grpc, _ := sharedServer(t, 10, who("grpc"))
	both := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, rest)}, GRPC: setting.List[setting.URL]{endpointURL(t, grpc)}}, Options{})
	get := &Request{Method: "GET", Target: "/"}
	if got, err := answered(both, call("x")); got != "grpc HTTP/2.0 "+strings.TrimPrefix(grpc, "h2c://") {
		t.Error(got, err)
	}
	if got, err := answered(both, get); got != "rest HTTP/2.0 "+strings.TrimPrefix(rest, "h2c://") {
		t.Error(got, err)
	}
	if _, err := answered(newUpstream(t, rest), call("x")); kindOf(err) != Unserved {
		t.Error(err)
	}
	if _, err := answered(grpcUpstream(t, Options{}, grpc), get); kindOf(err) != Unserved {
		t.Error(err)
	}
	if s := statusOf(both); len(s) != 2 || s[0].URL != rest || s[1].URL != grpc || s[1].Dials != 1 || s[1].Idle != 1 || s[1].InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestHTTP2OverTLSNeedsALPN(t *testing.T) {
	cert, ca := testCertificate(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, r.TLS != nil) })
	serve := func(http2 bool) string {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetHTTP2(http2)
		return serveHTTP(t, &http.Server{Handler: handler, Protocols: protocols, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}})
	}
	u := configured(t, Config{GRPC: setting.List[setting.URL]{endpointURL(t, "h2://"+serve(true))}, CA: setting.Path(ca)}, Options{})
	if got, err := answered(u, call("x")); got != "HTTP/2.0true" {
		t.Error(got, err)
	}
	u = configured(t, Config{GRPC: setting.List[setting.URL]{endpointURL(t, "h2://"+serve(false))}, CA: setting.Path(ca)}, Options{})
	if _, err := answered(u, call("x")); kindOf(err) != Refused {
		t.Errorf("a server of HTTP/1.1: %v", err)
	}
	none := rawServer(t, func(c net.Conn) { _ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() })
	u = configured(t, Config{GRPC: setting.List[setting.URL]{endpointURL(t, "h2://"+none)}, CA: setting.Path(ca)}, Options{})
	if _, err := answered(u, call("x")); kindOf(err) != Refused || !errors.Is(err, errNoHTTP2) {
		t.Errorf("a server without ALPN: %v", err)
	}
}

// An HTTP/1.1 server is detected before it sees a request.
func TestHTTP1ServerIsDetectedBeforeTheRequest(t *testing.T) {
	var got bytes.Buffer
	addr := rawServer(t, func(c net.Conn) {
		buf := make([]byte, 1<<10)
		n, _ := c.Read(buf)
		got.Write(buf[:n])
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
	})
	_, err := answered(grpcUpstream(t, Options{}, "h2c://"+addr), call("secret"))
	if kindOf(err) != Refused || !strings.Contains(err.Error(), "SETTINGS") {
		t.Error(err)
	}
}

// Concurrent requests share a connection. A further connection is opened only when all
// streams are in use, up to the limit.
func TestSharedConnectionsOpenOnDemand(t *testing.T) {
	for _, c := range []struct{ streams, requests, most, want int }{
		{100, 50, 0, 1},
		{10, 50, 0, 5},
		{10, 20, 2, 2},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			var there sync.WaitGroup
			there.Add(c.requests)
			url, conns := sharedServer(t, c.streams, func(w http.ResponseWriter, r *http.Request) {
				there.Done()
				there.Wait() // all requests are in flight
			})
			u := configured(t, Config{GRPC: setting.List[setting.URL]{endpointURL(t, url)}, MaxConnections: c.most}, Options{})
			var all sync.WaitGroup
			for range c.requests {
				all.Go(func() {
					if _, err := answered(u, call("x")); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if got := conns.Load(); got != int64(c.want) {
				t.Errorf("%d connections for %d requests, %d a connection; want %d", got, c.requests, c.streams, c.want)
			}
		})
	}
}

func TestRequestsWaitWhenSharedConnectionsAreFull(t *testing.T) {
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	url, _ := sharedServer(t, 1, func(w http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; <-release })
	u := configured(t, Config{GRPC: setting.List[setting.URL]{endpointURL(t, url)}, MaxConnections: 1}, Options{})
	first := make(chan error, 1)
	go func() { _, err := answered(u, call("x")); first <- err }()
	<-arrived // it has the only stream
	short := call("x")
	short.Timeouts.Connect = 30 * time.Millisecond
	if _, err := answered(u, short); kindOf(err) != NoneHealthy {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := u.Send(ctx, call("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	next := make(chan error, 1)
	go func() { _, err := answered(u, call("x")); next <- err }()
	close(release) // the next request gets the stream
	if err := errors.Join(<-first, <-next); err != nil {
		t.Error(err)
	}
}

func TestSharedIdleConnectionIsClosed(t *testing.T) {
	closed := make(chan struct{})
	url := "h2c://" + rawServer(t, func(c net.Conn) {
		defer close(closed)
		serveFrames(c, func(fr *http2.Framer, id uint32) { answer204(fr, id) })
	})
	u := configured(t, Config{GRPC: setting.List[setting.URL]{endpointURL(t, url)}, IdleTime: setting.Duration(10 * time.Millisecond)}, Options{})
	if _, err := answered(u, call("x")); err != nil {
		t.Fatal(err)
	}
	<-closed
	if n := statusOf(u)[0].Idle; n != 0 {
		t.Errorf("%d idle connections", n)
	}
}

// A closed upstream completes its pending requests.
func TestClosedUpstreamCompletesPendingRequests(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	url, _ := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-release
		fmt.Fprint(w, "done")
	})
	u := grpcUpstream(t, Options{}, url)
	got := make(chan string, 1)
	go func() { body, err := answered(u, call("x")); got <- fmt.Sprint(body, err) }()
	<-begun
	u.Close()
	close(release)
	if s := <-got; s != "done<nil>" {
		t.Error(s)
	}
}

// A request sent just after Close succeeds, on a connection that is not kept.
func TestClosedUpstreamServesLateRequests(t *testing.T) {
	closed := make(chan struct{})
	u := grpcUpstream(t, Options{}, "h2c://"+rawServer(t, func(c net.Conn) {
		defer close(closed)
		serveFrames(c, func(fr *http2.Framer, id uint32) { answer204(fr, id) })
	}))
	u.Close()
	if _, err := answered(u, call("x")); err != nil {
		t.Error(err)
	}
	<-closed
}

func TestSharedEndpointIsEjected(t *testing.T) {
	good, _ := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "good") })
	f := &fakeNet{to: map[string]string{"good:80": strings.TrimPrefix(good, "h2c://")}}
	u := grpcUpstream(t, Options{Dial: f.dial}, "h2c://bad", "h2c://good")
	for range 6 {
		if got, err := answered(u, call("x")); got != "good" {
			t.Fatal(got, err)
		}
	}
	if n := f.count("bad:80"); n != 1 {
		t.Errorf("the bad endpoint was tried %d times", n)
	}
}

// All requests that wait for one connect share its failure.
func TestFailedConnectFailsAllWaitingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 50
		var dials atomic.Int64
		waiting := make(chan struct{})
		u := grpcUpstream(t, Options{Dial: func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			<-waiting
			return nil, errors.New("connection refused")
		}}, "h2c://a")
		var all sync.WaitGroup
		for range many {
			all.Go(func() {
				if _, err := answered(u, call("x")); kindOf(err) != Refused {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all of them wait for the same connect
		close(waiting)
		all.Wait()
		if n := dials.Load(); n != 1 {
			t.Errorf("%d dials for %d concurrent requests; want one", n, many)
		}
	})
}

func TestSharedConnectionsAreFullDuplex(t *testing.T) {
	url, _ := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
				return
			}
		}
	})
	u := grpcUpstream(t, Options{}, url)
	pr, pw := io.Pipe()
	r := call("")
	r.Body, r.Length = plainBody{pr}, -1
	r.Interrupt = func() { pr.CloseWithError(io.ErrClosedPipe) }
	x, err := u.Send(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	buf := make([]byte, 5)
	for _, text := range []string{"hello", "there"} {
		fmt.Fprint(pw, text)
		if _, err := io.ReadFull(x.Body, buf); err != nil || string(buf) != text {
			t.Fatalf("%q, %v", buf, err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(x.Body); err != nil || len(rest) > 0 || x.Body.Trailers().Get("grpc-status") != "0" {
		t.Errorf("%q, %v, %v", rest, err, x.Body.Trailers())
	}
}

// An endpoint in both lists has one set of connections, for both kinds of requests.
func TestEndpointInBothListsSharesConnections(t *testing.T) {
	url, conns := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) {})
	list := setting.List[setting.URL]{endpointURL(t, url)}
	u := configured(t, Config{Rest: list, GRPC: list}, Options{})
	for _, r := range []*Request{call("x"), {Method: "GET", Target: "/"}} {
		if _, err := answered(u, r); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(statusOf(u)); n != 1 || conns.Load() != 1 {
		t.Errorf("%d endpoints, %d connections", n, conns.Load())
	}
}

// TestOnlyConnectionIsReplacedOnceItHasEnded: max_connections counts no connection that is over. The next
// request must not wait for a place on one that nobody can free.
func TestOnlyConnectionIsReplacedOnceItHasEnded(t *testing.T) {
	url, conns := sharedServer(t, 10, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") })
	var last net.Conn
	u := configured(t, Config{GRPC: setting.List[setting.URL]{endpointURL(t, url)}, MaxConnections: 1}, Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		last = c
		return c, err
	}})
	for i := range 3 {
		if got, err := answered(u, call("x")); got != "ok" {
			t.Fatalf("request %d: %q, %v", i, got, err)
		}
		_ = last.Close()
		for u.grpc[0].conns.idle() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}
