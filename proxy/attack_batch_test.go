package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// batchRoutes limit what bodies ask for. The rules are not about models, so nothing else reads a body.
const batchRoutes = `
  - host: models.test
    upstream: '%s'
    serves: openai
    callers: issuer/corp
    limits: {batch: 4}
    rules: [{allow: inference, models: "*"}]
  - host: models.test
    path: /tf
    strip: /tf
    upstream: '%s'
    serves: tensorflow
    callers: issuer/corp
    limits: {batch: 4, tensor_bytes: 1MiB}
    rules: [{allow: inference, models: "*"}]
  - host: models.test
    path: /v2
    upstream: '%s'
    serves: v2
    callers: issuer/corp
    limits: {batch: 4, tensor_bytes: 1KiB}
    rules: [{allow: inference, models: "*"}]
  - host: models.test
    path: /free
    strip: /free
    upstream: '%s'
    serves: tensorflow
    callers: issuer/corp
    rules: [{allow: inference, models: "*"}]
`

// A body that asks for too much does not reach the server whole, however it comes. Another caller's
// requests, and what is within the limit, pass byte for byte.
func TestLargeBatchIsRefused(t *testing.T) {
	t.Parallel()
	var got struct {
		sync.Mutex
		body string
	}
	took := func(body string) (before string) {
		got.Lock()
		defer got.Unlock()
		before, got.body = got.body, body
		return before
	}
	h := build(t, plan{routes: batchRoutes, handler: func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			took(string(body))
		}
		_, _ = io.WriteString(w, "{}")
	}})
	list := func(n int) string { return strings.TrimSuffix(strings.Repeat(`"x",`, n), ",") }
	long := strings.Repeat("x", 600<<10)
	for _, c := range []struct {
		path, body     string
		status         int
		reason, answer string
		cause          string
	}{
		{"/v1/embeddings", `{"input":[` + list(4) + `]}`, 200, "", "", ""},
		{"/v1/embeddings", `{"input":[` + list(1000) + `]}`, 413, "batch_too_large", `{"error":{"message":"The batch is too large.","type":"gateway_error"`, "a batch of 5 or more, over 4 (limits.batch)"},
		{"/v1/completions", `{"prompt":["a","b"],"n":3}`, 413, "batch_too_large", `{"error":{`, "a batch of 6 or more, over 4 (limits.batch)"},
		{"/v1/completions", `{"model":7,"Model":"x","prompt":["a","b"],"n":2}`, 200, "", "", ""}, // only a rule about models reads the model
		{"/v1/completions", `{"prompt":`, 400, "uncounted_body", `{"error":{`, "the body is not complete JSON"},
		{"/tf/v1/models/m:predict", `{"instances":[` + list(4) + `]}`, 200, "", "", ""},
		{"/tf/v1/models/m:predict", `{"instances":["` + long + `"]}`, 200, "", "", ""},
		{"/tf/v1/models/m:predict", `{"instances":[` + list(5) + `]}`, 413, "batch_too_large", `{"error":"The batch is too large."`, "a batch of 5 or more, over 4 (limits.batch)"},
		{"/tf/v1/models/m:predict", `{"instances":["` + long + `","a","b","c","d"]}`, 413, "batch_too_large", `{"error":`, "a batch of 5 or more, over 4 (limits.batch)"},
		{"/tf/v1/models/m:predict", `{"instances":["` + long + `","` + long + `"]}`, 413, "tensor_too_large", `{"error":"An input is too large."`, "an input of … bytes or more, over 1MiB (limits.tensor_bytes)"},
		{"/tf/v1/models/m:predict", `{"instances":["` + long + `"`, 400, "uncounted_body", `{"error":`, "…the body is not complete JSON"},
		{"/v2/models/m/infer", `{"inputs":[{"name":"a","shape":[4,1],"datatype":"FP32","data":[1,2,3,4]}]}`, 200, "", "", ""},
		{"/v2/models/m/infer", `{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":[` + list(100) + `]}]}`, 413, "batch_too_large", `{"error":`, "a batch of 100 or more, over 4 (limits.batch)"},
		{"/v2/models/m/infer", `{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":[[],[],[],[],[]]}]}`, 413, "batch_too_large", `{"error":`, "a batch of 5 or more, over 4 (limits.batch)"},
		{"/v2/models/m/infer", `{"inputs":[{"name":"a","shape":[1,1000],"datatype":"BYTES","data":[` + list(1000) + `]}]}`, 413, "tensor_too_large", `{"error":`, "an input of … bytes or more, over 1KiB (limits.tensor_bytes)"},
		{"/free/v1/models/m:predict", `{"instances":[` + list(1000), 200, "", "", ""},
	} {
		for _, h2 := range []bool{false, true} {
			for _, known := range []bool{true, false} {
				req, err := http.NewRequest("POST", "https://models.test"+c.path, strings.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				if !known {
					req.ContentLength = -1
				}
				req.Header.Set("Authorization", "Bearer "+h.token())
				answer := h.send(h.client(h2), req)
				if answer.StatusCode != c.status || c.reason != "" && (answer.reason() != c.reason || !strings.HasPrefix(answer.body, c.answer)) {
					t.Errorf("%s %.60s: %d %.200s; want %d %s %s", c.path, c.body, answer.StatusCode, answer.body, c.status, c.reason, c.answer)
				}
				if sent := took(""); c.status == 200 && sent != c.body || c.status != 200 && sent != "" {
					t.Errorf("%s %.60s: the server got all of %.60s", c.path, c.body, sent)
				}
				record := h.record(answer.Header.Get("X-Request-Id"))
				before, after, any := strings.Cut(c.cause, "…")
				if cause, _ := record["cause"].(string); !strings.HasPrefix(cause, before) || !strings.HasSuffix(cause, after) || !any && cause != c.cause {
					t.Errorf("%s %.60s: cause %q; want %q", c.path, c.body, cause, c.cause)
				}
			}
		}
	}
}

// inputOf is an input of the Open Inference Protocol with 32-bit floats.
func inputOf(content []byte, dims ...uint64) []byte {
	var shape []byte
	for _, d := range dims {
		shape = protowire.AppendVarint(shape, d)
	}
	b := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), shape)
	contents := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), content)
	b = protowire.AppendBytes(protowire.AppendTag(b, 5, protowire.BytesType), contents)
	return protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), b)
}

// tensorOf is an input of TensorFlow with 32-bit floats.
func tensorOf(content []byte, dims ...uint64) []byte {
	var shape []byte
	for _, d := range dims {
		dim := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), d)
		shape = protowire.AppendBytes(protowire.AppendTag(shape, 2, protowire.BytesType), dim)
	}
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1) // float
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), shape)
	b = protowire.AppendBytes(protowire.AppendTag(b, 5, protowire.BytesType), content)
	entry := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), b)
	return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), entry)
}

// batchHouse has a gRPC server behind limits, with rules that are about models or not.
func batchHouse(t *testing.T, serves, rules string) (*house, *actingServer) {
	t.Helper()
	s := newActingServer(t)
	return build(t, plan{
		routes: `
  - host: models.test
    upstream: grpc
    callers: issuer/corp
    limits: {body: 128MiB, batch: 4, tensor_bytes: 1MiB}
    rules: ` + rules + "\n",
		more: "upstreams:\n  grpc: {serves: " + serves + ", grpc: 'h2c://" + s.addr + "'}\n",
	}), s
}

// A server acts on no message that asks for too much, wherever in it that stands. A stream ends there, and
// what came before has been acted on.
func TestLargeBatchOfCallIsRefused(t *testing.T) {
	spec := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), modelSpec("open-a", 3))
	name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "open-a")
	join := func(parts ...[]byte) []byte { return framedText(string(bytes.Join(parts, nil))) }
	floats := func(n int) []byte { return make([]byte, 4*n) }
	const infer, stream = inferService + "ModelInfer", inferService + "ModelStreamInfer"
	for _, c := range []struct {
		name, serves, method string
		body                 []byte
		status, reason       string
		whole                int // messages that the server may get
	}{
		{"within", "tensorflow", predictMethod, join(spec, tensorOf(floats(8), 4, 2)), "0", "", 1},
		{"within, large", "tensorflow", predictMethod, join(spec, tensorOf(floats(200<<10), 4, 50<<10)), "0", "", 1},
		{"batch", "tensorflow", predictMethod, join(spec, tensorOf(floats(8), 8)), "3", "batch_too_large", 0},
		{"batch before the model", "tensorflow", predictMethod, join(tensorOf(floats(8), 8), spec), "3", "batch_too_large", 0},
		{"batch behind a large input", "tensorflow", predictMethod, join(spec, tensorOf(floats(200<<10), 4, 50<<10), tensorOf(floats(8), 8)), "3", "batch_too_large", 0},
		{"shape that is larger than the content", "tensorflow", predictMethod, join(spec, tensorOf(floats(1), 1, 1<<40)), "3", "tensor_too_large", 0},
		{"content that is larger than the shape", "tensorflow", predictMethod, join(spec, tensorOf(floats(1000), 1)), "3", "batch_too_large", 0},
		{"tensor", "tensorflow", predictMethod, join(spec, tensorOf(floats(300<<10), 1, 300<<10)), "3", "tensor_too_large", 0},
		{"not Protocol Buffers within", "tensorflow", predictMethod, join(spec, []byte{0x12, 0x03, 0x12, 0x01, 0x0b}), "3", "uncounted_body", 0},
		{"V2", "v2", infer, join(name, inputOf(floats(4), 4)), "0", "", 1},
		{"V2 batch", "v2", infer, join(name, inputOf(floats(1), 5)), "3", "batch_too_large", 0},
		{"V2 content", "triton", infer, join(name, inputOf(floats(5), 1)), "3", "batch_too_large", 0},
		{"stream", "triton", stream, bytes.Repeat(join(name, inputOf(floats(4), 4)), 3), "0", "", 3},
		{"stream with a large one", "triton", stream, append(join(name, inputOf(floats(4), 4)), join(name, inputOf(floats(5), 5))...), "refused", "batch_too_large", 1},
	} {
		for rules, text := range map[string]string{"rules about models": `[{allow: inference, models: "open-*"}]`, "other rules": `[{allow: inference, models: "*"}]`} {
			t.Run(c.name+", "+rules, func(t *testing.T) {
				t.Parallel()
				h, s := batchHouse(t, c.serves, text)
				victim := func() {
					t.Helper()
					body := join(spec, tensorOf(floats(1), 1))
					method := predictMethod
					if c.serves != "tensorflow" {
						body, method = join(name, inputOf(floats(1), 1)), infer
					}
					res, err := h.call(context.Background(), method, bytes.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					if _, status := finish(t, res); status != "0" || len(s.acted()) != 1 {
						t.Errorf("the victim gets status %s", status)
					}
				}
				res, err := h.call(context.Background(), c.method, bytes.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				_, status := finish(t, res)
				if c.status == "refused" && status != "0" {
					status = "refused" // by a status, or by a reset once the answer has begun
				}
				if status != c.status {
					t.Errorf("status %s %q; want %s", status, res.Header.Get("grpc-message"), c.status)
				}
				if got, _ := h.record(res.Header.Get("X-Request-Id"))["reason"].(string); got != c.reason {
					t.Errorf("reason %q; want %q", got, c.reason)
				}
				if acts := s.acted(); len(acts) > c.whole {
					t.Errorf("the server acted on %q", acts)
				}
				victim()
			})
		}
	}
}

// A proxy that asks for a decision keeps the body, so nobody can count it.
func TestCountedRequestIsNotDecidedForAnotherProxy(t *testing.T) {
	h := asked(t, "nginx", strings.ReplaceAll(batchRoutes, "issuer/corp", "anonymous"))
	for target, status := range map[string]int{"/tf/v1/models/m:predict": 403, "/free/v1/models/m:predict": 200} {
		if got := h.askAs(told("nginx", "POST", "models.test", target)...); got.StatusCode != status {
			t.Errorf("%s: %d %s; want %d", target, got.StatusCode, got.body, status)
		}
	}
}

// Content of any length is counted in memory that does not grow with it.
func TestCountedContentIsNotHeld(t *testing.T) {
	h := build(t, plan{routes: strings.Replace(batchRoutes, "tensor_bytes: 1MiB", "tensor_bytes: 100MiB", 1), more: "integrity: {memory: 1MiB}\n"})
	r, w := io.Pipe()
	go func() {
		_, _ = fmt.Fprint(w, `{"instances":["`)
		piece := bytes.Repeat([]byte("x"), 64<<10)
		for range 48 << 4 {
			_, _ = w.Write(piece)
		}
		_, _ = fmt.Fprint(w, `"]}`)
		w.Close()
	}()
	req, err := http.NewRequest("POST", "https://models.test/tf/v1/models/m:predict", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token())
	if got := h.send(h.client(true), req); got.StatusCode != 200 {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if _, sent := h.model.seen(); len(sent) != 48<<20+len(`{"instances":[""]}`) {
		t.Errorf("the server got %d bytes", len(sent))
	}
}
