package model

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestFilterList(t *testing.T) {
	keep := func(name string) bool { return strings.HasPrefix(name, "open") }
	for _, c := range []struct{ dialect, method, path, content, want string }{
		{"openai", "GET", "/v1/models", `{"object":"list","data":[{"id":"open-a","x":[1]},{"id":"secret"}]}`, `{"object":"list","data":[{"id":"open-a","x":[1]}]}`},
		{"openai", "GET", "/v1/models", `{"models":[{"name":"secret","model":"secret"}],"data":[{"id":"secret"}]}`, `{"models":[],"data":[]}`},
		{"openai", "GET", "/v1/models", `{"data":[{"id":"open-a","name":"secret"},{"owned_by":"open-a"},{"id":1},5,null]}`, `{"data":[]}`},
		{"openai", "GET", "/v1/models", ` { "data" : [ {"id":"op\u0065n"} , {"id":"s\u0065cret"} ] } `, `{"data":[{"id":"op\u0065n"}]}`},
		{"openai", "GET", "/v1/models", `{"data":[{"id":"secret","id":"open-a"}]}`, "error"},
		{"openai", "GET", "/v1/models", `{"data":{"id":"secret"}}`, "error"},
		{"openai", "GET", "/v1/models", `{"items":[{"id":"secret"}]}`, "error"},
		{"openai", "GET", "/v1/models", `{"data":[{"id":"secret"}`, "error"},
		{"openai", "GET", "/v1/models", `secret`, "error"},
		{"openai", "GET", "/v1/models", ``, "error"},
		{"ollama", "GET", "/api/tags", `{"models":[{"name":"Open:latest","model":"open"},{"name":"secret:latest"}]}`, `{"models":[{"name":"Open:latest","model":"open"}]}`},
		{"ollama", "GET", "/api/ps", `{"models":[{"name":"secret"}]}`, `{"models":[]}`},
		{"triton", "POST", "/v2/repository/index", `[{"name":"open","version":"1"},{"name":"secret"}]`, `[{"name":"open","version":"1"}]`},
		{"torchserve", "GET", "/models", `{"nextPageToken":"2","models":[{"modelName":"open","modelUrl":"open.mar"},{"modelName":"secret"}]}`, `{"nextPageToken":"2","models":[{"modelName":"open","modelUrl":"open.mar"}]}`},
		{"torchserve", "GET", "/workflows", `{"workflows":[{"workflowName":"open","workflowUrl":"open.war"},{"workflowName":"secret"}]}`, `{"workflows":[{"workflowName":"open","workflowUrl":"open.war"}]}`},
	} {
		d, _ := ByName(c.dialect)
		r, err := d.Read(&Request{Method: c.method, Path: c.path})
		if err != nil || !r.Lists() {
			t.Fatalf("%s %s lists nothing: %v", c.dialect, c.path, err)
		}
		got, err := r.FilterList([]byte(c.content), keep)
		text := string(got)
		if errors.Is(err, ErrListing) {
			text = "error"
		}
		if text != c.want {
			t.Errorf("%s: %s becomes %s; want %s", c.dialect, c.content, text, c.want)
		}
	}
}

func TestFilterIndex(t *testing.T) {
	entry := func(names ...string) (b []byte) {
		for _, n := range names {
			b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), n)
		}
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), "1")
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b)
	}
	framed := func(parts ...[]byte) string {
		m := []byte{}
		for _, p := range parts {
			m = append(m, p...)
		}
		return string(append([]byte{0, 0, 0, 0, byte(len(m))}, m...))
	}
	d, _ := ByName("triton")
	r, err := d.Read(&Request{Method: "POST", Path: "/inference.GRPCInferenceService/RepositoryIndex", GRPC: true})
	if err != nil || !r.Lists() {
		t.Fatal("the index lists nothing", err)
	}
	for content, want := range map[string]string{
		framed(entry("open"), entry("secret"), entry("open-b")):  framed(entry("open"), entry("open-b")),
		framed(entry("open", "secret"), entry("secret", "open")): framed(),
		framed(entry()): framed(),
		framed(entry("secret")) + framed(entry("open")): framed() + framed(entry("open")),
		"":                                 "",
		"\x01" + framed(entry("open"))[1:]: "error",
		framed(entry("open"))[:8]:          "error",
		framed([]byte{0x08, 1}):            "error",
		framed([]byte{0x0a, 9, 1}):         "error",
	} {
		got, err := r.FilterList([]byte(content), func(name string) bool { return strings.HasPrefix(name, "open") })
		if text := string(got); (err == nil || want != "error") && text != want {
			t.Errorf("%q becomes %q, %v; want %q", content, text, err, want)
		}
	}
}

// TorchServe's list over gRPC is the text of its list over REST.
func TestFilterListOfTorchServeCalls(t *testing.T) {
	framed := func(text string) string {
		m := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), text)
		return string(append([]byte{0, 0, 0, 0, byte(len(m))}, m...))
	}
	d, _ := ByName("torchserve")
	r, err := d.Read(&Request{Method: "POST", Path: "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels", GRPC: true})
	if err != nil || !r.Lists() {
		t.Fatal("it lists nothing", err)
	}
	for content, want := range map[string]string{
		framed(`{"models":[{"modelName":"open"},{"modelName":"secret"}]}`): framed(`{"models":[{"modelName":"open"}]}`),
		framed("secret"): "error",
		framed(""):       "error",
	} {
		got, err := r.FilterList([]byte(content), func(name string) bool { return name == "open" })
		if text := string(got); (err == nil || want != "error") && text != want {
			t.Errorf("%q becomes %q, %v; want %q", content, text, err, want)
		}
	}
}
