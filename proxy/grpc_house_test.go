package proxy_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// grpcServer serves calls without TLS. The method selects the behaviour: Echo returns each message
// at once; the others are described below.
type grpcServer struct {
	addr    string
	calls   atomic.Int64
	timeout atomic.Value  // the last grpc-timeout
	gone    chan struct{} // one value for each cancelled call of Hang
}

func newGRPCServer(t *testing.T) *grpcServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &grpcServer{addr: l.Addr().String(), gone: make(chan struct{}, 16)}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: s, Protocols: protocols}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return s
}

func (s *grpcServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	s.timeout.Store(r.Header.Get("grpc-timeout"))
	h := w.Header()
	h.Set("content-type", "application/grpc")
	rc := http.NewResponseController(w)
	switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
	case "Echo", "ModelStreamInfer":
		_ = rc.Flush()
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				break
			}
		}
		h.Set(http.TrailerPrefix+"grpc-status", "0")
		h.Set(http.TrailerPrefix+"x-seen", r.Header.Get("te")+" "+r.Header.Get("x-sallyport-principal"))
	case "Fail":
		h.Set("grpc-status", "5")
		h.Set("grpc-message", "no such%20model")
	case "Abort":
		_, _ = w.Write(framedText("half"))
		_ = rc.Flush()
		panic(http.ErrAbortHandler)
	case "Tick":
		for range 20 {
			_, _ = w.Write(framedText("tick"))
			_ = rc.Flush()
			time.Sleep(150 * time.Millisecond) // all in all for longer than the idle time of two seconds
		}
		h.Set(http.TrailerPrefix+"grpc-status", "0")
	case "Hang":
		_ = rc.Flush()
		<-r.Context().Done()
		s.gone <- struct{}{}
	}
}

// framedText frames text as gRPC does.
func framedText(text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

const grpcRoute = `
  - host: models.test
    upstream: tf
    callers: issuer/corp
    rules: [{allow: "*", models: "*", who: {scope: models.predict}}]
`

// buildGRPC is a house in front of a gRPC server.
func buildGRPC(t *testing.T, routes string) (*house, *grpcServer) {
	t.Helper()
	s := newGRPCServer(t)
	return build(t, plan{
		routes: routes,
		more: `upstreams:
  tf: {grpc: "h2c://` + s.addr + `"}
  dead: {grpc: "h2c://127.0.0.1:1"}
`}), s
}

// call begins a call with a valid token, unless more overrides it.
func (h *house) call(ctx context.Context, method string, body io.Reader, more ...string) (*http.Response, error) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", "https://models.test"+method, body)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer " + h.token()}, "Content-Type": {"application/grpc+proto"}, "Te": {"trailers"}}
	for i := 0; i < len(more); i += 2 {
		if req.Header.Set(more[i], more[i+1]); more[i+1] == "" {
			req.Header.Del(more[i])
		}
	}
	return h.client(true).Do(req)
}

// finish reads the whole answer and returns its content and status.
func finish(t *testing.T, res *http.Response) (body, status string) {
	t.Helper()
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		return string(all), err.Error()
	}
	if s := res.Header.Get("grpc-status"); s != "" {
		return string(all), s
	}
	return string(all), res.Trailer.Get("grpc-status")
}

func (s *grpcServer) cancelled(t *testing.T) {
	t.Helper()
	select {
	case <-s.gone:
	case <-time.After(time.Minute):
		t.Error("the server has not learned that the call is over")
	}
}
