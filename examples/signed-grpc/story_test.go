// Package signedgrpc holds the story of signed gRPC calls: grpcio and grpc-go before the gateway, and a
// server of grpcio behind it.
package signedgrpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // as in programs that compress other calls
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sallyport/auth/httpsig"
	"sallyport/examples/signed-grpc/signing"
	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

const service = "/tensorflow.serving.PredictionService/"

// house is everything that runs in the story.
type house struct {
	python, keys string
	server       string // host:port
	gateway      *story.Gateway
}

// start starts the server as the README says, and the gateway with the gateway.yaml of this folder.
func start(t *testing.T) *house {
	t.Helper()
	h := &house{
		python: filepath.Join(story.Installed(t, "grpc", "grpc/requirements.txt"), "bin", "python"),
		keys:   t.TempDir(),
		server: story.FreeAddress(t),
	}
	for _, name := range []string{"python", "go"} {
		secret := make([]byte, 64)
		_, _ = rand.Read(secret)
		h.write(t, name, base64.StdEncoding.EncodeToString(secret))
	}
	h.write(t, "nonces", "")
	cmd := exec.Command(h.python, "serve.py", h.server)
	cmd.Dir = "../grpc"
	story.Start(t, "serve.py", cmd).Prints(t, "serves")
	h.gateway = story.StartGateway(t,
		"keys/", h.keys+"/",
		"state: sallyport-nonces", "state: "+filepath.Join(h.keys, "nonces"),
		"h2c://127.0.0.1:8500", "h2c://"+h.server)
	return h
}

func (h *house) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.keys, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// authority is what clients call the gateway.
func (h *house) authority() string {
	_, port, _ := net.SplitHostPort(h.gateway.Address)
	return "localhost:" + port
}

func TestSignedGRPC(t *testing.T) {
	h := start(t)
	t.Run("grpcio", h.grpcio)
	t.Run("grpc-go", h.grpcGo)
	t.Run("attacks", h.attacks)
	t.Run("memory", h.memory)
}

// callPython runs client.py.
func (h *house) callPython(t *testing.T, target, ca string, more ...string) string {
	t.Helper()
	handover, err := filepath.Abs("../../cmd/sallyport/handover")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(h.python, append([]string{"client.py", target, ca, "python-2026-11", filepath.Join(h.keys, "python")}, more...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+handover, "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("client.py: %v", err)
	}
	return string(out)
}

func (h *house) grpcio(t *testing.T) {
	got := h.callPython(t, h.authority(), h.gateway.CA)
	want := `predict: True key:python
future: True
32 MiB: True
count: OK 0 1 2 3 4
chat: OK re: one re: two
compressed: DigestMismatch digest_mismatch
fail: NOT_FOUND no such model: m ü
no such method: UNIMPLEMENTED
other service: Refused unimplemented
no signature: UNAUTHENTICATED no signature for this service was found
aio: True b'0 1 2' b're: one' True NOT_FOUND
`
	if got != want {
		t.Errorf("client.py printed\n%s\nwant\n%s", got, want)
	}
}

// raw is messages as bytes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "proto" }

// dial opens a connection whose calls are signed.
func (h *house) dial(t *testing.T, target, ca string) *grpc.ClientConn {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.keys, "go"))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	key, err := httpsig.HMACKey("go-2026-11", secret)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c, err := grpc.NewClient(target, append(signing.DialOptions(&httpsig.Calls{Key: key, Authority: h.authority()}, true),
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "")), grpc.WithAuthority(h.authority()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(64<<20)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// predictRequest is a PredictRequest for the model m.
func predictRequest(text string) []byte {
	b := binary.AppendUvarint([]byte("\x0a\x03\x0a\x01m\x1a"), uint64(len(text)))
	return append(b, text...)
}

// invoke makes a call with one message each way.
func invoke(c *grpc.ClientConn, method string, in []byte, opts ...grpc.CallOption) (out []byte, err error) {
	err = c.Invoke(context.Background(), method, &in, &out, opts...)
	return out, err
}

// receive returns all answers of a stream.
func receive(s grpc.ClientStream) (all []string, err error) {
	for {
		var out []byte
		if err := s.RecvMsg(&out); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, string(out))
	}
}

// count makes a call with a stream of answers.
func count(c *grpc.ClientConn) ([]string, error) {
	s, err := c.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, service+"Count")
	if err != nil {
		return nil, err
	}
	in := []byte("5")
	if err := errors.Join(s.SendMsg(&in), s.CloseSend()); err != nil {
		return nil, err
	}
	return receive(s)
}

func (h *house) grpcGo(t *testing.T) {
	c := h.dial(t, h.authority(), h.gateway.CA)
	for _, text := range []string{"hello", "", strings.Repeat("x", 32<<20)} {
		var trailer metadata.MD
		out, err := invoke(c, service+"Predict", predictRequest(text), grpc.Trailer(&trailer), grpc.UseCompressor("gzip"))
		if err != nil || !bytes.Equal(out, predictRequest(text)) || fmt.Sprint(trailer.Get("x-caller")) != "[key:go]" {
			t.Errorf("%d bytes: %d bytes, %v, %v", len(text), len(out), err, trailer)
		}
	}
	if all, err := count(c); err != nil || strings.Join(all, " ") != "0 1 2 3 4" {
		t.Errorf("count: %q, %v", all, err)
	}
	chat, err := c.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, service+"Chat")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		in, out := []byte(text), []byte(nil)
		if err := errors.Join(chat.SendMsg(&in), chat.RecvMsg(&out)); err != nil || string(out) != "re: "+text {
			t.Errorf("chat: %q, %v", out, err)
		}
	}
	if err := chat.CloseSend(); err != nil {
		t.Error(err)
	}
	if rest, err := receive(chat); err != nil || len(rest) != 0 {
		t.Errorf("chat: %q, %v", rest, err)
	}
	// The server compresses though the gateway tells it not to: what was signed cannot be seen.
	_, err = invoke(c, service+"Compressed", bytes.Repeat([]byte("a"), 50), grpc.UseCompressor("gzip"))
	var unsigned *httpsig.Error
	if !errors.As(err, &unsigned) || unsigned.Code != httpsig.DigestMismatch {
		t.Errorf("compressed: %v", err)
	}
	_, err = invoke(c, service+"Fail", []byte("m"))
	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "no such model: m ü" {
		t.Errorf("fail: %v", err)
	}
	_, err = invoke(c, "/tensorflow.ProfilerService/Profile", nil)
	if unsigned = nil; !errors.As(err, &unsigned) || unsigned.Code != httpsig.Missing || !strings.Contains(err.Error(), "Unimplemented") {
		t.Errorf("other service: %v", err)
	}
}

// memory sends messages of 32 MiB, four at a time: the gateway holds none of them.
func (h *house) memory(t *testing.T) {
	c := h.dial(t, h.authority(), h.gateway.CA)
	in := predictRequest(strings.Repeat("x", 32<<20))
	before := h.gateway.Process.PeakMemory(t)
	faults := make(chan error, 4)
	for range 4 {
		go func() {
			for range 3 {
				if out, err := invoke(c, service+"Predict", in); err != nil || !bytes.Equal(out, in) {
					faults <- fmt.Errorf("%d bytes: %w", len(out), err)
					return
				}
			}
			faults <- nil
		}()
	}
	for range 4 {
		if err := <-faults; err != nil {
			t.Error(err)
		}
	}
	grown := h.gateway.Process.PeakMemory(t) - before
	t.Logf("the gateway's memory grew by %d KiB", grown>>10)
	if grown > 48<<20 {
		t.Errorf("the gateway's memory grew by %d MiB", grown>>20)
	}
}
