package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
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
