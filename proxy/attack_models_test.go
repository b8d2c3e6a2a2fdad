package proxy_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// inferRequest is a ModelInferRequest of the Open Inference Protocol, with bytes of input.
func inferRequest(model string, size int) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), model)
	return protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), make([]byte, size))
}

const inferService = "/inference.GRPCInferenceService/"

// A new configuration takes the right to a model away while calls are open. Their next messages for that
// model do not reach the server, and a message for another model still does.
func TestReloadHoldsForTheNextMessageOfAnOpenCall(t *testing.T) {
	for _, c := range []struct {
		name, method   string
		first, body    []byte // before the reload, and after it
		status, reason string
		before, acts   int // messages that the server may get before the reload, and in all
	}{
		{"stream, a model that was taken away", "ModelStreamInfer", framedText(string(inferRequest("open-a", 1))), framedText(string(inferRequest("open-b", 2))), "7", "withdrawn_in_stream", 1, 1},
		{"stream, another model", "ModelStreamInfer", framedText(string(inferRequest("open-a", 1))), framedText(string(inferRequest("open-c", 2))), "0", "", 1, 2},
		{"stream that has named nothing", "ModelStreamInfer", nil, framedText(string(inferRequest("open-b", 2))), "7", "withdrawn_in_stream", 0, 0},
		{"long unary", "ModelInfer", framedText(string(inferRequest("open-b", 1<<20)))[:512<<10], framedText(string(inferRequest("open-b", 1<<20)))[512<<10:], "7", "withdrawn_in_stream", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newActingServer(t)
			h := build(t, plan{routes: `
  - host: models.test
    upstream: kserve
    callers: issuer/corp
    rules:
      - {allow: inference, models: [open-a, open-b, open-c], who: {scope: models.predict}}
`, more: unwatched + "upstreams:\n  kserve: {serves: v2, grpc: 'h2c://" + s.addr + "'}\n"})
			r, w := io.Pipe()
			answered := make(chan string, 1)
			go func() {
				res, err := h.call(context.Background(), inferService+c.method, r)
				if err != nil {
					answered <- err.Error()
					return
				}
				_, status := finish(t, res)
				answered <- status
			}()
			if _, err := w.Write(c.first); err != nil {
				t.Fatal(err)
			}
			h.until("the call is under way", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.calls.Load() == 1 && len(s.acts) == c.before
			})
			h.edit("[open-a, open-b, open-c]", "[open-a, open-c]")
			h.reload("changed")
			_, _ = w.Write(c.body)
			w.Close()
			if got := <-answered; got != c.status {
				t.Errorf("status %s; want %s", got, c.status)
			}
			record := h.ended()
			if got, _ := record["reason"].(string); got != c.reason {
				t.Errorf("reason %q; want %q: %v", got, c.reason, record)
			}
			if acts := s.acted(); len(acts) != c.acts {
				t.Errorf("the server acted on %q; want %d messages", acts, c.acts)
			}
		})
	}
}

// A message is decoded by the format that its call declares. One that is not Protocol Buffers could name
// another model to a server with such a decoder.
func TestModelOfCallInAnotherFormatIsNotGuessed(t *testing.T) {
	body := framedText(string(predictRequest([][]byte{modelSpec("open-a", 0)}, 0, 10)))
	for contentType, want := range map[string]string{
		"application/grpc": "0", "application/grpc+proto": "0", "Application/GRPC+Proto; x=y": "0",
		"application/grpc+json": "3", "application/grpc+proto2": "3", "application/grpc+thrift; x=+proto": "3",
	} {
		t.Run(contentType, func(t *testing.T) {
			h, s := buildModels(t)
			res, err := h.call(context.Background(), predictMethod, bytes.NewReader(body), "Content-Type", contentType)
			if err != nil {
				t.Fatal(err)
			}
			_, status := finish(t, res)
			if acts := s.acted(); status != want || len(acts) > 0 != (want == "0") {
				t.Errorf("status %s, the server acted on %q; want status %s", status, acts, want)
			}
		})
	}
}
