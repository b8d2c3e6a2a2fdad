// Package grpc holds the story of a gRPC model server behind sallyport.
package grpc

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

const service = "/tensorflow.serving.PredictionService/"

// house is everything that runs in the story.
type house struct {
	python   string
	server   *story.Process
	provider *story.Provider
	gateway  *story.Gateway
}

// start starts the server as the README says, and the gateway with the gateway.yaml of
// this folder.
func start(t *testing.T) *house {
	t.Helper()
	h := &house{python: filepath.Join(story.Installed(t, "grpc", "grpc/requirements.txt"), "bin", "python")}
	at := story.FreeAddress(t)
	h.server = story.Start(t, "serve.py", exec.Command(h.python, "serve.py", at))
	h.server.Prints(t, "serves")
	h.provider = story.StartProvider(t)
	h.gateway = h.before(t, at)
	return h
}

// before starts a gateway before the server at an address.
func (h *house) before(t *testing.T, at string) *story.Gateway {
	t.Helper()
	return story.StartGateway(t,
		"h2c://127.0.0.1:8500", "h2c://"+at,
		"https://localhost:9000", h.provider.URL,
		"../openid-provider/provider.crt", h.provider.CA)
}

func TestGRPC(t *testing.T) {
	h := start(t)
	token := h.provider.Token(t, "models.predict", "")
	t.Run("grpcio", func(t *testing.T) { h.grpcio(t, token) })
	t.Run("grpc-go", func(t *testing.T) { calls(t, h.dial(t, h.gateway, token)) })
	t.Run("grpc-go to grpc-go", func(t *testing.T) { calls(t, h.dial(t, h.before(t, serveGo(t)), token)) })
	t.Run("a client that vanishes", func(t *testing.T) { h.vanishes(t, token) })
	t.Run("refused", func(t *testing.T) { h.refused(t, h.provider.Token(t, "models.read", "")) })
	t.Run("refused within a stream", func(t *testing.T) { h.refusedLate(t, token) })
	t.Run("grpcurl", func(t *testing.T) { h.grpcurl(t) })
	t.Run("memory", func(t *testing.T) { h.memory(t, token) })
	t.Run("silence", func(t *testing.T) { h.silence(t, token) })
	t.Run("server away", func(t *testing.T) { h.away(t, token) })
}

// grpcio runs client.py: the C core on both sides of the gateway.
func (h *house) grpcio(t *testing.T, token string) {
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	cmd := exec.Command(h.python, "client.py", "localhost:"+port, h.gateway.CA)
	cmd.Env = append(os.Environ(), "TOKEN="+token)
	out, err := cmd.CombinedOutput()
	want := `predict: hello issuer/lab:batch authorization none
time left: True
16 MiB: True
count: 0 1 2 3 4
total: 4950
chat: re: message 1, re: message 2, re: message 3
hang: hanging
cancelled: CANCELLED
deadline: DEADLINE_EXCEEDED
fail: NOT_FOUND no such model: m ü
no such method: UNIMPLEMENTED
other service: UNIMPLEMENTED No route has this host and path.
no token: UNAUTHENTICATED a credential is required
reason: no_credential sallyport, its own request id: True
`
	if err != nil || string(out) != want {
		t.Errorf("client.py: %v\n%s\nwant\n%s", err, out, want)
	}
	h.server.Prints(t, "gave up cancelled")
	h.server.Prints(t, "gave up deadline")
}

// raw is messages as bytes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "proto" }

// bearer is a token as grpc-go sends it.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return true }

func (h *house) dial(t *testing.T, g *story.Gateway, token string) *grpc.ClientConn {
	t.Helper()
	pem, err := os.ReadFile(g.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	_, port, _ := net.SplitHostPort(g.Address)
	c, err := grpc.NewClient("localhost:"+port,
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")),
		grpc.WithPerRPCCredentials(bearer(token)),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// calls makes calls of each kind.
func calls(t *testing.T, c *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

	t.Run("unary", func(t *testing.T) {
		var trailer metadata.MD
		for _, in := range [][]byte{[]byte("hello"), {}, bytes.Repeat([]byte("0123456789abcdef"), 1<<20)} {
			var out []byte
			if err := c.Invoke(ctx, service+"Predict", &in, &out, grpc.Trailer(&trailer)); err != nil || !bytes.Equal(out, in) {
				t.Fatalf("%d bytes of %d, %v", len(out), len(in), err)
			}
		}
		if got := trailer.Get("x-caller"); fmt.Sprint(got) != "[issuer/lab:batch]" {
			t.Errorf("the server was told %q", got)
		}
	})
	t.Run("server streams", func(t *testing.T) {
		s, err := c.NewStream(ctx, both, service+"Count")
		if err != nil {
			t.Fatal(err)
		}
		in := []byte("5")
		if err := errors.Join(s.SendMsg(&in), s.CloseSend()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			var out []byte
			if err := s.RecvMsg(&out); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(out))
		}
		if fmt.Sprint(got) != "[0 1 2 3 4]" {
			t.Error(got)
		}
	})
	t.Run("client streams", func(t *testing.T) {
		s, err := c.NewStream(ctx, both, service+"Total")
		if err != nil {
			t.Fatal(err)
		}
		for n := range 100 {
			in := make([]byte, n)
			if err := s.SendMsg(&in); err != nil {
				t.Fatal(err)
			}
		}
		var out []byte
		if err := errors.Join(s.CloseSend(), s.RecvMsg(&out)); err != nil || string(out) != "4950" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("both stream", func(t *testing.T) {
		s, err := c.NewStream(ctx, both, service+"Chat")
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			in, out := fmt.Appendf(nil, "message %d", n), []byte(nil)
			if err := errors.Join(s.SendMsg(&in), s.RecvMsg(&out)); err != nil || string(out) != "re: "+string(in) {
				t.Fatalf("%q, %v", out, err)
			}
		}
		var out []byte
		if err := errors.Join(s.CloseSend(), s.RecvMsg(&out)); err != io.EOF && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		s, err := c.NewStream(ctx, both, service+"Hang")
		if err != nil {
			t.Fatal(err)
		}
		in, out := []byte("go deadline"), []byte(nil)
		if err := errors.Join(s.SendMsg(&in), s.CloseSend(), s.RecvMsg(&out)); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(&out); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
	})
	t.Run("fails", func(t *testing.T) {
		in, out := []byte("m"), []byte(nil)
		err := c.Invoke(ctx, service+"Fail", &in, &out)
		if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "no such model: m ü" {
			t.Error(err)
		}
	})
}

// serveGo is the server of serve.py once more, by grpc-go.
func serveGo(t *testing.T) (at string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(s)
			return serveCall(strings.TrimPrefix(method, service), s)
		}))
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String()
}

// silence leaves calls silent for longer than the limit of other requests, with each kind of server.
func (h *house) silence(t *testing.T, token string) {
	var calls []grpc.ClientStream
	for _, g := range []*story.Gateway{h.gateway, h.before(t, serveGo(t))} {
		c, err := h.dial(t, g, token).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, service+"Chat")
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	chat := func(text string) {
		for i, c := range calls {
			in, out := []byte(nil), []byte(text)
			if err := c.SendMsg(&out); err != nil {
				t.Errorf("server %d: %v", i, err)
			} else if err := c.RecvMsg(&in); err != nil || string(in) != "re: "+text {
				t.Errorf("server %d: %q, %v", i, in, err)
			}
		}
	}
	chat("before")
	time.Sleep(70 * time.Second) // other requests may pause for 60 s, checked every second
	chat("after")
}

func serveCall(method string, s grpc.ServerStream) error {
	var in []byte
	switch method {
	case "Predict":
		if err := s.RecvMsg(&in); err != nil {
			return err
		}
		told, _ := metadata.FromIncomingContext(s.Context())
		s.SetTrailer(metadata.Pairs("x-caller", strings.Join(told.Get("x-sallyport-principal"), ",")))
		return s.SendMsg(&in)
	case "Count":
		for n := range 5 {
			out := fmt.Append(nil, n)
			if err := s.SendMsg(&out); err != nil {
				return err
			}
		}
		return nil
	case "Total":
		total := 0
		for s.RecvMsg(&in) == nil {
			total += len(in)
		}
		out := fmt.Append(nil, total)
		return s.SendMsg(&out)
	case "Chat":
		for s.RecvMsg(&in) == nil {
			out := append([]byte("re: "), in...)
			if err := s.SendMsg(&out); err != nil {
				return err
			}
		}
		return nil
	case "Hang":
		out := []byte("hanging")
		if err := s.SendMsg(&out); err != nil {
			return err
		}
		<-s.Context().Done()
		return s.Context().Err()
	}
	if err := s.RecvMsg(&in); err != nil {
		return err
	}
	return status.Error(codes.NotFound, "no such model: "+string(in)+" ü")
}

// vanishes kills a client during a call, and checks that the call ends at the server.
func (h *house) vanishes(t *testing.T, token string) {
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	client := story.Start(t, "client", exec.Command(h.python, "-c", `import grpc, os, sys
tls = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read())
channel = grpc.secure_channel(sys.argv[1], grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(sys.argv[3])))
for answer in channel.unary_stream("/tensorflow.serving.PredictionService/Hang")(b"vanished"):
    os.kill(os.getpid(), 9)
`, "localhost:"+port, h.gateway.CA, token))
	client.Wait(t, time.Minute)
	h.server.Prints(t, "gave up vanished")
}

// refused sees what callers learn who may not call.
func (h *house) refused(t *testing.T, read string) {
	in, out := []byte("x"), []byte(nil)
	for _, c := range []struct {
		name, token, method string
		code                codes.Code
		text, reason        string
	}{
		{"scope", read, service + "Predict", codes.PermissionDenied, "The token lacks a required scope.", "insufficient_scope"},
		{"bad token", "x.y.z", service + "Predict", codes.Unauthenticated, "", "bad_credential"},
		{"other service", read, "/tensorflow.ProfilerService/Profile", codes.Unimplemented, "No route has this host and path.", "no_route"},
		{"odd path", read, service + "a/b", codes.InvalidArgument, "The gRPC call is malformed.", "bad_grpc_call"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header metadata.MD
			err := h.dial(t, h.gateway, c.token).Invoke(context.Background(), c.method, &in, &out, grpc.Header(&header), grpc.Trailer(&header))
			s := status.Convert(err)
			if s.Code() != c.code || c.text != "" && s.Message() != c.text {
				t.Errorf("%v; want %v %s", err, c.code, c.text)
			}
			if id := header.Get("x-request-id"); len(id) != 1 || detailsOf(s) != c.reason+" sallyport "+id[0] {
				t.Errorf("details %q, metadata %v; want reason %s", detailsOf(s), header, c.reason)
			}
		})
	}
}

// detailsOf returns the reason, its domain and the request id among the details of a status.
func detailsOf(s *status.Status) (said string) {
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			said += d.Reason + " " + d.Domain
		case *errdetails.RequestInfo:
			said += " " + d.RequestId
		}
	}
	return said
}

// refusedLate sends more than limits.body on a stream that the server is answering. The caller learns why the
// stream ended, and another stream on the same connection goes on.
func (h *house) refusedLate(t *testing.T, token string) {
	c := h.dial(t, h.gateway, token)
	chat := func() (grpc.ClientStream, func(in []byte) error) {
		s, err := c.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, service+"Chat")
		if err != nil {
			t.Fatal(err)
		}
		return s, func(in []byte) error {
			var out []byte
			if err := s.SendMsg(&in); err != nil && err != io.EOF { // io.EOF: RecvMsg has the status
				return err
			}
			return s.RecvMsg(&out)
		}
	}
	_, victim := chat()
	s, attacker := chat()
	var err error
	for n := 0; n < 5 && err == nil; n++ {
		if err := victim([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		err = attacker(make([]byte, 15<<20))
	}
	got := status.Convert(err)
	if got.Code() != codes.ResourceExhausted || got.Message() != "The request body is too large." {
		t.Errorf("the stream ended with %v", err)
	}
	header, err := s.Header()
	if id := header.Get("x-request-id"); err != nil || len(id) != 1 || detailsOf(got) != "body_too_large sallyport "+id[0] {
		t.Errorf("details %q, metadata %v, %v", detailsOf(got), header, err)
	}
	if err := victim([]byte("still here?")); err != nil {
		t.Errorf("the other stream: %v", err)
	}
}

// grpcurl shows the status of a refusal with its details, whose descriptors come with grpcio-status.
func (h *house) grpcurl(t *testing.T) {
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	program := filepath.Join(story.Installed(t, "grpcurl", "grpc/grpcurl.version"), "grpcurl")
	protos, err := filepath.Glob(filepath.Join(filepath.Dir(h.python), "..", "lib", "python3*", "site-packages"))
	if err != nil || len(protos) != 1 {
		t.Fatalf("%q, %v", protos, err)
	}
	out, err := exec.Command(program, "-cacert", h.gateway.CA, "-import-path", ".", "-import-path", protos[0],
		"-proto", "predict.proto", "-proto", "google/rpc/error_details.proto", "-H", "authorization: Bearer x.y.z", "-d", "{}",
		"localhost:"+port, "tensorflow.serving.PredictionService/Predict").CombinedOutput()
	for _, want := range []string{"Code: Unauthenticated", `"reason": "bad_credential"`, `"domain": "sallyport"`, `"requestId": "`} {
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("no %s: %v\n%s", want, err, out)
		}
	}
}

// memory sends 32 messages of 16 MiB, four at a time: the gateway holds none of them.
func (h *house) memory(t *testing.T, token string) {
	c := h.dial(t, h.gateway, token)
	in := make([]byte, 16<<20)
	before := h.gateway.Process.PeakMemory(t)
	var failed atomic.Value
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 8 {
				var out []byte
				if err := c.Invoke(context.Background(), service+"Predict", &in, &out); err != nil || len(out) != len(in) {
					failed.Store(fmt.Sprint(len(out), " bytes, ", err))
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
	if why := failed.Load(); why != nil {
		t.Error(why)
	}
	grown := h.gateway.Process.PeakMemory(t) - before
	t.Logf("the gateway's memory grew by %d KiB", grown>>10)
	if grown > 64<<20 {
		t.Errorf("the gateway's memory grew by %d MiB", grown>>20)
	}
}

func (h *house) away(t *testing.T, token string) {
	h.server.Stop(t)
	in, out := []byte("x"), []byte(nil)
	err := h.dial(t, h.gateway, token).Invoke(context.Background(), service+"Predict", &in, &out)
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "The model server cannot be reached." {
		t.Error(err)
	}
}
