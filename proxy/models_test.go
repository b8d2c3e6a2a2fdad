package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
)

// actingServer is a double of a gRPC model server: it acts on each message as soon as it is whole, as
// C-core does, and answers with an empty one.
type actingServer struct {
	addr  string
	calls atomic.Int64
	mu    sync.Mutex
	acts  []string // the path and the size of each whole message
}

func newActingServer(t *testing.T) *actingServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &actingServer{addr: l.Addr().String()}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: s, Protocols: protocols}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return s
}

func (s *actingServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	h := w.Header()
	h.Set("content-type", "application/grpc")
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	for {
		var head [5]byte
		if _, err := io.ReadFull(r.Body, head[:]); err != nil {
			break
		}
		size := int(head[1])<<24 | int(head[2])<<16 | int(head[3])<<8 | int(head[4])
		if n, err := io.CopyN(io.Discard, r.Body, int64(size)); err != nil || n != int64(size) {
			break
		}
		s.mu.Lock()
		s.acts = append(s.acts, fmt.Sprint(r.URL.Path, " ", size))
		s.mu.Unlock()
		_, _ = w.Write(make([]byte, 5))
		_ = rc.Flush()
	}
	h.Set(http.TrailerPrefix+"grpc-status", "0")
}

// acted returns what the server has done since the last call.
func (s *actingServer) acted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.acts
	s.acts = nil
	return all
}

// modelSpec is TensorFlow Serving's ModelSpec.
func modelSpec(name string, version int) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, name)
	if version > 0 {
		v := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(version))
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), v)
	}
	return b
}

// predictRequest is a PredictRequest with an input of some size before or behind the ModelSpec.
func predictRequest(specs [][]byte, before, behind int) []byte {
	var b []byte
	tensor := func(size int) {
		if size > 0 {
			b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), make([]byte, size))
		}
	}
	tensor(before)
	for _, spec := range specs {
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), spec)
	}
	tensor(behind)
	return b
}

const modelRoute = `
  - host: models.test
    upstream: tf
    callers: issuer/corp
    limits: {body: 128MiB}
    rules:
      - {deny: "*", models: secret}
      - {allow: [inference, metadata], models: "open-*", who: {scope: models.predict}}
      - {allow: status, models: "*"}
`

func buildModels(t *testing.T) (*house, *actingServer) {
	t.Helper()
	s := newActingServer(t)
	return build(t, plan{
		routes: modelRoute,
		more: `upstreams:
  tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}
`}), s
}

const predictMethod = "/tensorflow.serving.PredictionService/Predict"

// A call reaches the server only if the model that its message names is allowed, wherever in the
// message the name stands and however the message arrives.
func TestModelOfCallIsDecided(t *testing.T) {
	t.Parallel()
	open, secret := modelSpec("open-a", 3), modelSpec("secret", 0)
	one := func(specs ...[]byte) []byte { return framedText(string(predictRequest(specs, 0, 10))) }
	for _, c := range []struct {
		name, method string
		body         []byte
		status       string
		reason       string
		whole        int    // messages that the server may get
		named        string // the model in the record; "" for any
	}{
		{"allowed", predictMethod, one(open), "0", "", 1, ""},
		{"denied", predictMethod, one(secret), "7", "forbidden", 0, "secret"},
		{"allowed, large", predictMethod, framedText(string(predictRequest([][]byte{open}, 0, 3<<20))), "0", "", 1, ""},
		{"allowed, behind the tensors", predictMethod, framedText(string(predictRequest([][]byte{open}, 3<<20, 0))), "0", "", 1, ""},
		{"denied, large", predictMethod, framedText(string(predictRequest([][]byte{secret}, 0, 3<<20))), "7", "forbidden", 0, "secret"},
		{"denied, behind the tensors", predictMethod, framedText(string(predictRequest([][]byte{secret}, 3<<20, 0))), "7", "forbidden", 0, "secret"},
		{"named twice", predictMethod, one(open, secret), "3", "bad_model", 0, ""},
		{"named twice, far apart", predictMethod, framedText(string(append(predictRequest([][]byte{open}, 0, 3<<20), predictRequest([][]byte{secret}, 0, 0)...))), "3", "bad_model", 0, ""},
		{"not named", predictMethod, one(), "3", "bad_model", 0, ""},
		{"a second message", predictMethod, append(one(open), one(secret)...), "3", "bad_model", 1, ""},
		{"cut", predictMethod, one(open)[:20], "3", "bad_model", 0, ""},
		{"compressed without saying how", predictMethod, append([]byte{1}, one(open)[1:]...), "3", "bad_model", 0, ""},
		{"status of any", "/tensorflow.serving.ModelService/GetModelStatus", one(modelSpec("other", 0)), "0", "", 1, ""},
		{"status of the denied", "/tensorflow.serving.ModelService/GetModelStatus", one(secret), "7", "forbidden", 0, "secret"},
		{"management", "/tensorflow.serving.ModelService/HandleReloadConfigRequest", framedText(""), "7", "forbidden", 0, ""},
		{"profiler", "/tensorflow.ProfilerService/Profile", framedText(""), "7", "forbidden", 0, ""},
		{"unknown method", "/tensorflow.serving.PredictionService/Steal", one(open), "12", "unknown_call", 0, ""},
		{"unknown service", "/x.Y/Predict", one(open), "12", "unknown_call", 0, ""},
		{"another letter case", strings.ToLower(predictMethod), one(open), "12", "unknown_call", 0, ""},
	} {
		for way, body := range map[string]io.Reader{
			"at once": bytes.NewReader(c.body), "in pieces": iotest.OneByteReader(bytes.NewReader(c.body)),
		} {
			if way == "in pieces" && len(c.body) > 1<<10 {
				continue
			}
			t.Run(c.name+" "+way, func(t *testing.T) {
				t.Parallel()
				h, s := buildModels(t)
				res, err := h.call(context.Background(), c.method, body)
				if err != nil {
					t.Fatal(err)
				}
				if _, status := finish(t, res); status != c.status {
					t.Errorf("status %s %q; want %s", status, res.Header.Get("grpc-message"), c.status)
				}
				r := h.ended()
				if got, _ := r["reason"].(string); got != c.reason {
					t.Errorf("reason %q; want %q: %v", got, c.reason, r)
				}
				if acts := s.acted(); len(acts) > c.whole {
					t.Errorf("the server acted on %q", acts)
				}
				if (c.reason == "" || c.named != "") && (r["model"] == nil || c.named != "" && r["model"] != c.named) {
					t.Errorf("the record has the model %v; want %s: %v", r["model"], c.named, r)
				}
			})
		}
	}
}

// compressedCall sends a call whose messages are compressed in the encodings.
func (h *house) compressedCall(ctx context.Context, c *http.Client, body io.Reader, encodings ...string) (*http.Response, error) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", "https://models.test"+predictMethod, body)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer " + h.token()}, "Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Encoding": encodings}
	return c.Do(req)
}

// compressedText frames text as gRPC does, compressed with gzip.
func compressedText(text string) []byte { return append([]byte{1}, framedText(gzipped(text))[1:]...) }

// A compressed call is decided by what it holds, if the gateway reads its encoding. Else its caller learns
// which encodings it could use.
func TestModelOfCompressedCallIsDecided(t *testing.T) {
	open := compressedText(string(predictRequest([][]byte{modelSpec("open-a", 3)}, 0, 10<<10)))
	secret := compressedText(string(predictRequest([][]byte{modelSpec("secret", 0)}, 0, 10<<10)))
	for name, c := range map[string]struct {
		body      []byte
		encodings []string
		status    string
		reason    string
		accept    string
	}{
		"allowed":                      {open, []string{"gzip"}, "0", "", ""},
		"denied":                       {secret, []string{"gzip"}, "7", "forbidden", ""},
		"two encodings":                {open, []string{"gzip", "deflate"}, "3", "bad_model", ""},
		"an encoding twice":            {open, []string{"gzip", "gzip"}, "3", "bad_model", ""},
		"two encodings in a line":      {open, []string{"gzip,deflate"}, "12", "unread_encoding", "identity,gzip,deflate"},
		"an encoding that is not read": {open, []string{"snappy"}, "12", "unread_encoding", "identity,gzip,deflate"},
		"another than it says":         {open, []string{"deflate"}, "3", "bad_model", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, s := buildModels(t)
			res, err := h.compressedCall(t.Context(), h.client(true), bytes.NewReader(c.body), c.encodings...)
			if err != nil {
				t.Fatal(err)
			}
			_, status := finish(t, res)
			reason, _ := h.ended()["reason"].(string)
			if accept := res.Header.Get("grpc-accept-encoding"); status != c.status || reason != c.reason || accept != c.accept {
				t.Errorf("status %s, reason %q, accepted %q; want %s, %q, %q", status, reason, accept, c.status, c.reason, c.accept)
			}
			if acts := s.acted(); len(acts) > 0 && c.status != "0" {
				t.Errorf("the server acted on %q", acts)
			}
		})
	}
}

// inflating reports whether a compressed message is being read, by the stacks of its readers.
func inflating() bool {
	buf := make([]byte, 1<<20)
	return bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("model.(*inflater).run"))
}

// Clients that vanish within a compressed message leave nothing behind, and others are served meanwhile.
func TestAbandonedCompressedCallsLeaveNothing(t *testing.T) {
	h, s := buildModels(t)
	noise := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	message := compressedText(string(protowire.AppendBytes(protowire.AppendTag(predictRequest([][]byte{modelSpec("open-a", 3)}, 0, 0), 2, protowire.BytesType), noise)))
	attacker, victim := h.client(true), h.client(true)
	abandon := func(at int) {
		ctx, cancel := context.WithCancel(t.Context())
		body, more := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if res, err := h.compressedCall(ctx, attacker, body, "gzip"); err == nil {
				res.Body.Close()
			}
		}()
		_, _ = more.Write(message[:at])
		eventually(t, "the message is being read", inflating)
		cancel()
		<-done
		eventually(t, "nothing is left of it", func() bool { return !inflating() })
	}
	serve := func() {
		t.Helper()
		res, err := h.compressedCall(t.Context(), victim, bytes.NewReader(message), "gzip")
		if err != nil {
			t.Fatal(err)
		}
		if _, status := finish(t, res); status != "0" {
			t.Errorf("the victim gets status %s", status)
		}
	}
	serve()
	abandon(len(message) - 1)
	eventually(t, "both calls are over", func() bool { return len(h.audit.records(t)) == 2 })
	start := runtime.NumGoroutine()
	for i := range 100 {
		abandon(10 + i*len(message)/101)
		if i%20 == 0 {
			serve()
		}
	}
	settled(t, start)
	if acts := s.acted(); len(acts) != 6 {
		t.Errorf("the server acted on %d calls, want the victim's 6", len(acts))
	}
}
