package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// answeringServer answers each request with this content.
func answeringServer(t *testing.T, contentType, encoding string, content []byte) (url string) {
	return overHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("content-type", contentType)
		if encoding != "" {
			w.Header().Set("content-encoding", encoding)
		}
		_, _ = w.Write(content)
		if strings.HasPrefix(contentType, "application/grpc") {
			w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
		}
	})
}

// The record has what the answer says of its model, and the client gets the answer as it was.
func TestRecordSaysWhichModelAndVersionServed(t *testing.T) {
	text := func(number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	seven := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	tensor := text(1, make([]byte, 3<<20))
	predicted := framedText(string(slices.Concat(tensor, text(2, slices.Concat(text(1, []byte("m")), text(2, seven))))))
	const grpc, json = "application/grpc", "application/json"
	for name, c := range map[string]struct {
		serves, contentType, encoding string
		path                          string
		request, content              []byte
		version, model                any
	}{
		"TensorFlow over gRPC":     {"tensorflow", grpc, "", predictMethod, framedText(string(predictRequest([][]byte{modelSpec("m", 0)}, 0, 1))), predicted, "7", nil},
		"another model than asked": {"v2", grpc, "", inferService + "ModelInfer", framedText(string(inferRequest("a", 1))), framedText("\x0a\x01b\x12\x017"), "7", "b"},
		"hostile names":            {"v2", grpc, "", inferService + "ModelInfer", framedText(string(inferRequest("a", 1))), framedText("\x0a\x02\x1b\"\x12\x02\"\n"), nil, nil},
		"broken message":           {"v2", grpc, "", inferService + "ModelInfer", framedText(string(inferRequest("a", 1))), framedText("\xff\xff\xff\xff\xff\xff\xff"), nil, nil},
		"REST":                     {"v2", json, "", "/v2/models/m/infer", []byte(`{}`), []byte(`{"model_name":"m","model_version":"3","outputs":[]}`), "3", nil},
		"compressed":               {"v2", json, "gzip", "/v2/models/m/infer", []byte(`{}`), []byte(`{"model_name":"m","model_version":"3"}`), nil, nil},
		"chat":                     {"openai", json, "", "/v1/chat/completions", []byte(`{"model":"small"}`), []byte(`{"choices":[],"model":"large"}`), nil, "large"},
		"events":                   {"openai", "text/event-stream", "", "/v1/chat/completions", []byte(`{"model":"small"}`), []byte("data: {\"model\":\"small\"}\n\n"), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := answeringServer(t, c.contentType, c.encoding, c.content)
			h := build(t, plan{
				routes: `
  - {host: models.test, upstream: it, callers: issuer/corp, rules: [{deny: "*", models: secret}, {allow: inference, models: "*"}]}
`,
				more: "upstreams: {it: {serves: " + c.serves + ", rest: '" + url + "', grpc: '" + url + "'}}\n",
			})
			res, err := h.call(t.Context(), c.path, bytes.NewReader(c.request), "Content-Type", map[bool]string{true: grpc, false: json}[c.contentType == grpc])
			if err != nil {
				t.Fatal(err)
			}
			if body, status := finish(t, res); res.StatusCode != 200 || body != string(c.content) || c.contentType == grpc && status != "0" {
				t.Errorf("%d, %d bytes of %d, status %s", res.StatusCode, len(body), len(c.content), status)
			}
			if r := h.ended(); r["served_version"] != c.version || r["served_model"] != c.model {
				t.Errorf("record %v; want version %v, model %v", r, c.version, c.model)
			}
		})
	}
}

// Requests for the models of metrics.models are counted with the version that served, and a reload changes
// which models those are.
func TestRequestsOfListedModelsAreCountedByVersion(t *testing.T) {
	url := answeringServer(t, "application/json", "", []byte(`{"model_name":"m","model_version":"3","outputs":[]}`))
	h := build(t, plan{
		routes: `
  - {host: models.test, upstream: it, callers: issuer/corp, rules: [{allow: inference, models: "*"}]}
`,
		more: unwatched + "metrics: {models: m}\nupstreams: {it: {serves: v2, rest: '" + url + "'}}\n",
	})
	ask := func(model string) {
		if r := h.do("POST", "/v2/models/"+model+"/infer", "{}", map[string]string{"Content-Type": "application/json"}); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
	}
	count := func() (series []string) {
		text := h.metrics()
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "sallyport_model_requests_total{") {
				series = append(series, strings.TrimSpace(line))
			}
		}
		return series
	}
	ask("m")
	ask("n")
	h.until("m is counted, and n is not", func() bool {
		return slices.Equal(count(), []string{`sallyport_model_requests_total{code="2xx",dialect="v2",model="m",verb="predict",version="3"} 1`})
	})
	h.edit("models: m}", "models: n}")
	h.reload("changed")
	ask("m")
	ask("n")
	h.until("n is counted, and m is not", func() bool {
		return slices.Equal(count(), []string{`sallyport_model_requests_total{code="2xx",dialect="v2",model="n",verb="predict",version="3"} 1`})
	})
}
