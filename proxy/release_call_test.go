package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
)

// keepingServer is a double of a gRPC model server that keeps the content of the last call.
type keepingServer struct {
	addr    string
	mu      sync.Mutex // guards the fields below
	content []byte     // nil: no call has come to its end
	head    http.Header
	length  int64
	calls   int
}

func newKeepingServer(t *testing.T) *keepingServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &keepingServer{addr: l.Addr().String()}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: s, Protocols: protocols}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return s
}

func (s *keepingServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	s.mu.Lock()
	s.calls++
	if s.head, s.length = r.Header.Clone(), r.ContentLength; err == nil {
		s.content = content
	}
	s.mu.Unlock()
	w.Header().Set("content-type", "application/grpc")
	_, _ = w.Write(make([]byte, 5))
	w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
}

// kept returns the content of the last call, and forgets it.
func (s *keepingServer) kept() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	content := s.content
	s.content = nil
	return content
}

// buildReleaseCalls is a house whose routes have an upstream tf with REST and gRPC.
func buildReleaseCalls(t *testing.T, serves, routes, more string) (*house, *keepingServer) {
	t.Helper()
	s, rest := newKeepingServer(t), newModelServer(t, nil)
	h := build(t, plan{routes: routes, more: fmt.Sprintf("upstreams:\n  tf: {serves: %s, rest: '%s', grpc: 'h2c://%s'%s}\n", serves, rest.URL, s.addr, more)})
	h.model = rest
	return h, s
}

// labelledSpec is a ModelSpec with a label.
func labelledSpec(name, label string) []byte {
	return protowire.AppendString(protowire.AppendTag(modelSpec(name, 0), 4, protowire.BytesType), label)
}

const inferMethod = "/inference.GRPCInferenceService/ModelInfer"

// inferCall is a ModelInferRequest with an input of some size. Versions are written as they stand.
func inferCall(name string, size int, versions ...string) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	for _, v := range versions {
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), v)
	}
	return protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), make([]byte, size))
}

// The server gets the message with the version that was decided on, and otherwise as it came.
func TestRouteChoosesTheVersionOfCallsThatNameNone(t *testing.T) {
	frame := func(message []byte) []byte { return framedText(string(message)) }
	predict := func(spec []byte, before, behind int) []byte {
		return frame(predictRequest([][]byte{spec}, before, behind))
	}
	version := func(v string, message []byte) []byte { // behind the head of the frame
		return frame(slices.Concat(protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), v), message))
	}
	half, stable := modelSpec("half", 0), labelledSpec("half", "stable")
	for _, c := range []struct {
		name, serves, latest, method string
		body, sent                   []byte
		asked                        bool
	}{
		{"small", "tensorflow", "label:stable", predictMethod, predict(half, 0, 10), predict(stable, 0, 10), true},
		{"a number", "tensorflow", "300", predictMethod, predict(half, 0, 10), predict(modelSpec("half", 300), 0, 10), true},
		{"behind a tensor", "tensorflow", "label:stable", predictMethod, predict(half, 50<<10, 0), predict(stable, 50<<10, 0), true},
		{"before a long tensor", "tensorflow", "label:stable", predictMethod, predict(half, 0, 3<<20), predict(stable, 0, 3<<20), true},
		{"about as much as is held", "tensorflow", "label:stable", predictMethod, predict(half, 0, 64<<10-30), predict(stable, 0, 64<<10-30), true},
		{"status", "tensorflow", "7", "/tensorflow.serving.ModelService/GetModelStatus", predict(half, 0, 0), predict(modelSpec("half", 7), 0, 0), true},
		{"a named version", "tensorflow", "7", predictMethod, predict(modelSpec("half", 3), 0, 10), predict(modelSpec("half", 3), 0, 10), false},
		{"a named label", "tensorflow", "7", predictMethod, predict(stable, 0, 10), predict(stable, 0, 10), false},
		{"an open inference call", "v2", "v7", inferMethod, frame(inferCall("half", 10)), version("v7", inferCall("half", 10)), true},
		{"an empty version", "v2", "v7", inferMethod, frame(inferCall("half", 10, "")), frame(inferCall("half", 10, "v7")), true},
		{"a long open inference call", "triton", "7", inferMethod, frame(inferCall("half", 3<<20)), version("7", inferCall("half", 3<<20)), true},
		{"torchserve", "torchserve", "1.0", "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", frame(inferCall("half", 9)), version("1.0", inferCall("half", 9)), true},
		{"no model", "triton", "7", "/inference.GRPCInferenceService/ServerLive", frame(nil), frame(nil), false},
	} {
		for way, body := range map[string]io.Reader{"at once": bytes.NewReader(c.body), "in pieces": iotest.OneByteReader(bytes.NewReader(c.body))} {
			if way == "in pieces" && len(c.body) > 1<<10 {
				continue
			}
			t.Run(c.name+" "+way, func(t *testing.T) {
				t.Parallel()
				h, s := buildReleaseCalls(t, c.serves, `
  - host: models.test
    upstream: tf
    callers: issuer/corp
    rewrite: {latest: "`+c.latest+`"}
    rules: [{allow: "*", models: "*", versions: ["`+c.latest+`"]}, {allow: "*", models: "*"}]
`, "")
				res, err := h.call(t.Context(), c.method, body)
				if err != nil {
					t.Fatal(err)
				}
				if _, status := finish(t, res); status != "0" {
					t.Errorf("status %s %q", status, res.Header.Get("grpc-message"))
				}
				if got := s.kept(); !bytes.Equal(got, c.sent) {
					t.Errorf("the server got %d bytes, %.60x; want %d, %.60x", len(got), got, len(c.sent), c.sent)
				}
				r := h.ended()
				if asked := r["asked_version"] == "latest"; asked != c.asked || asked && r["version"] != c.latest {
					t.Errorf("record: %v", r)
				}
			})
		}
	}
}

// What cannot be rewritten is refused, unless the rules refuse the caller that version anyway; the server
// never gets a whole message.
func TestCallWithoutPlaceForAVersionIsRefused(t *testing.T) {
	frame := func(message []byte) []byte { return framedText(string(message)) }
	half := modelSpec("half", 0)
	predict := func(before int) []byte { return frame(predictRequest([][]byte{half}, before, 0)) }
	late := func(version string) []byte { // the version behind a long tensor
		return frame(slices.Concat(inferCall("half", 3<<20), protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), version)))
	}
	task := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), half)
	for _, c := range []struct {
		name, serves, method string
		body                 []byte
		status, reason       string
		more                 []string // fields
	}{
		{"the model far behind", "tensorflow", predictMethod, predict(3 << 20), "3", "version_needed", nil},
		{"compressed", "tensorflow", predictMethod, compressedText(string(predictRequest([][]byte{half}, 0, 10))), "3", "version_needed", []string{"grpc-encoding", "gzip"}},
		{"several tasks", "tensorflow", "/tensorflow.serving.PredictionService/MultiInference", frame(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), task)), "3", "version_needed", nil},
		{"a digest of the content", "tensorflow", predictMethod, predict(0), "3", "version_needed", []string{"content-digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"}},
		{"a stream", "triton", "/inference.GRPCInferenceService/ModelStreamInfer", frame(inferCall("half", 10)), "3", "version_needed", nil},
		{"another version at the end", "triton", inferMethod, late("3"), "3", "bad_model", nil},
		{"an empty version at the end", "triton", inferMethod, late(""), "3", "bad_model", nil},
		{"a version at the end of a short message", "triton", inferMethod, frame(slices.Concat(inferCall("half", 10, ""), inferCall("half", 10, "3"))), "3", "bad_model", nil},
		{"a model that is denied", "triton", "/inference.GRPCInferenceService/ModelStreamInfer", frame(inferCall("secret", 10)), "7", "forbidden", nil},
		{"a denied version", "triton", inferMethod, frame(inferCall("half", 10, "9")), "7", "forbidden", nil},
		{"a denied version of a long call", "triton", inferMethod, frame(inferCall("half", 3<<20, "9")), "7", "forbidden", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, s := buildReleaseCalls(t, c.serves, `
  - host: models.test
    upstream: tf
    callers: issuer/corp
    rewrite: {latest: 7}
    rules: [{deny: "*", models: secret}, {allow: "*", models: "*", versions: [3, 7]}]
`, "")
			res, err := h.call(t.Context(), c.method, bytes.NewReader(c.body), c.more...)
			if err != nil {
				t.Fatal(err)
			}
			if _, status := finish(t, res); status != c.status {
				t.Errorf("status %s %q; want %s", status, res.Header.Get("grpc-message"), c.status)
			}
			if r := h.ended(); r["reason"] != c.reason || r["model"] == nil && c.reason != "bad_model" {
				t.Errorf("record: %v; want reason %s", r, c.reason)
			}
			if got := s.kept(); len(got) > 0 {
				t.Errorf("the server got %d bytes to their end", len(got))
			}
		})
	}
}

// A caller has one version of a model and one upstream, whether it asks by REST or gRPC.
func TestChoiceIsTheSameOverRESTAndGRPC(t *testing.T) {
	h, s := buildReleaseCalls(t, "tensorflow", releaseRoute, "")
	of := map[string]int{}
	for i := range 16 {
		caller := fmt.Sprintf("user-%d", i)
		if got := h.asks(caller, "models.predict", "POST", "/v1/models/churn:predict"); got.StatusCode != 200 {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
		version := versionSent(h)
		of[version]++
		token, err := h.issuer.Sign(h.issuer.Claims(caller, "models.predict"))
		if err != nil {
			t.Fatal(err)
		}
		body := framedText(string(predictRequest([][]byte{modelSpec("churn", 0)}, 0, 10)))
		res, err := h.call(context.Background(), predictMethod, bytes.NewReader(body), "Authorization", "Bearer "+token)
		if err != nil {
			t.Fatal(err)
		}
		if _, status := finish(t, res); status != "0" {
			t.Fatalf("status %s %q", status, res.Header.Get("grpc-message"))
		}
		n := 0
		_, _ = fmt.Sscan(version, &n)
		if want := framedText(string(predictRequest([][]byte{modelSpec("churn", n)}, 0, 10))); !bytes.Equal(s.kept(), want) {
			t.Errorf("%s has version %s over REST and another over gRPC", caller, version)
		}
	}
	if of["3"] == 0 || of["4"] == 0 {
		t.Errorf("versions %v; want some callers of each", of)
	}
}
