package model

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// exchange is a request that was sent to a real server; testdata/exchanges/README.md says how.
type exchange struct {
	name, dialect string
	head          message.Head
	grpc          bool
	body          []byte
	served        []Named // the models that the server worked on
}

// servedThoughRefused are requests that the gateway refuses although a server answered them with a model,
// by the row of the list of differences between parsers. No other such request is refused.
var servedThoughRefused = map[string][]string{
	"row 1": {
		"tensorflow/rest-absolute", "tensorflow/rest-absolute-ftp", "tensorflow/rest-authority", "tensorflow/rest-authority-user",
		"tensorflow/rest-double-slash", "triton/rest-absolute",
	},
	"row 2": {
		"tensorflow/rest-case-metadata",
	},
	"row 3": {
		"llamacpp-diff-encoded-slash", "mlserver/rest-escape-slash", "mlserver/rest-escape-versions", "ollama-diff-encoded-slash",
		"ollama-diff-null", "ollama-diff-scheme", "torchserve/rest-describe-escape-slash", "torchserve/rest-escape-slash",
		"torchserve/rest-escape-version", "triton/grpc-infer-nul",
	},
	"row 4": {
		"llamacpp-diff-query", "torchserve/rest-describe-query", "torchserve/rest-fragment", "torchserve/rest-invocations-escaped-key",
		"torchserve/rest-invocations-semicolon", "torchserve/rest-invocations-twice", "torchserve/rest-invocations-version",
		"torchserve/rest-predict-query-model",
	},
	"row 6": {
		"llamacpp-diff-bom", "llamacpp-diff-case-after", "llamacpp-diff-duplicate", "llamacpp-diff-duplicate-escaped",
		"llamacpp-diff-duplicate-reversed", "llamacpp-diff-type-form", "llamacpp-diff-type-text", "ollama-diff-case-after",
		"ollama-diff-case-alone", "ollama-diff-case-before", "ollama-diff-duplicate", "ollama-diff-trailing",
		"ollama-diff-v1-case-after", "ollama-diff-v1-duplicate", "ollama-diff-v1-messages-case", "ollama-diff-v1-responses-case",
	},
	"row 7": {
		"mlserver/grpc-infer-group", "mlserver/grpc-infer-long-tag", "mlserver/grpc-infer-twice", "mlserver/grpc-infer-version-twice",
		"mlserver/grpc-infer-wrong-type", "tensorflow/grpc-group", "tensorflow/grpc-label-then-version", "tensorflow/grpc-long-tag",
		"tensorflow/grpc-name-twice", "tensorflow/grpc-name-wrong-type", "tensorflow/grpc-spec-merged", "tensorflow/grpc-spec-twice",
		"tensorflow/grpc-spec-wrong-type", "tensorflow/grpc-version-then-label", "tensorflow/grpc-version-twice",
		"tensorflow/grpc-version-twice-empty", "tensorflow/grpc-version-value-twice", "tensorflow/grpc-version-wrong-type",
		"torchserve/grpc-describe-twice", "torchserve/grpc-predict-group", "torchserve/grpc-predict-long-tag",
		"torchserve/grpc-predict-twice", "torchserve/grpc-predict-version-twice", "torchserve/grpc-predict-wrong-type",
		"triton/grpc-infer-group", "triton/grpc-infer-long-tag", "triton/grpc-infer-twice", "triton/grpc-infer-version-twice",
		"triton/grpc-infer-wrong-type",
	},
	"row 8": {
		"mlserver/grpc-infer-two-messages", "tensorflow/grpc-two-messages", "triton/grpc-infer-two-messages",
	},
	"row 9": {
		"ollama-diff-zstd-claimed",
	},
	"row 11": {
		"triton/grpc-infer-after-digits", "triton/grpc-infer-plus", "triton/grpc-infer-space",
	},
	"another form of a path, or a model in a form": {
		"torchserve/rest-alias-predict", "torchserve/rest-alias-version", "torchserve/rest-describe-slash",
		"torchserve/rest-invocations-encoded", "torchserve/rest-invocations-form", "torchserve/rest-more-segments",
		"torchserve/rest-predict-patch", "torchserve/rest-predict-suffix", "torchserve/rest-slash-end",
		"torchserve/rest-slash-end-version",
	},
	"a call about all models, which only a list may be": {
		"triton/grpc-stats-all", "triton/rest-stats-all",
	},
	"content that carries code": {
		"llamacpp-diff-type-pickle",
	},
}

// TestDialectsAgreeWithRealServers reads each recorded request as the gateway would. What passes names the
// model and version on which the real server worked.
func TestDialectsAgreeWithRealServers(t *testing.T) {
	all := recorded(t)
	if len(all) < 400 {
		t.Fatalf("%d exchanges are recorded", len(all))
	}
	refused := map[string]bool{}
	for _, names := range servedThoughRefused {
		for _, name := range names {
			refused[name] = true
		}
	}
	for _, x := range all {
		if refused[x.name] {
			continue
		}
		call, named, err := x.read(t)
		switch {
		case err == nil:
		case len(x.served) > 0:
			t.Errorf("%s: %v; but the server answered with %+v", x.name, err, x.served)
			continue
		default:
			continue
		}
		for _, s := range x.served {
			if !call.Server && !slices.ContainsFunc(named, func(n Named) bool {
				return n.Model == s.Model && (n.Version == s.Version || n.Version == Latest || n.Version == "" || s.Version == "" || strings.HasPrefix(n.Version, Label))
			}) {
				t.Errorf("%s: the gateway decides on %+v; the server worked on %+v", x.name, named, s)
			}
		}
		if x.manages() && call.Class() != Management {
			t.Errorf("%s: %s is not a verb of management", x.name, call.Verb)
		}
	}
}

func TestWhatServersReadDifferentlyIsRefused(t *testing.T) {
	all := map[string]*exchange{}
	for _, x := range recorded(t) {
		all[x.name] = x
	}
	for row, names := range servedThoughRefused {
		for _, name := range names {
			t.Run(row+" "+strings.ReplaceAll(name, "/", " "), func(t *testing.T) {
				x := all[name]
				if x == nil || len(x.served) == 0 {
					t.Fatal("no server's answer to it is recorded")
				}
				if call, named, err := x.read(t); err == nil {
					t.Errorf("passes as %+v %+v; the server worked on %+v", call, named, x.served)
				}
			})
		}
	}
}

// manages reports whether the request changes the server or reads what other callers do there.
func (x *exchange) manages() bool {
	for _, word := range []string{"-load", "-unload", "-register", "-unregister", "-logging", "-trace", "-shared-memory-", "-profile", "-lora", "-slots", "-blob", "-delete", "-copy", "-scale", "-set-default"} {
		if strings.Contains(x.name, word) && !strings.Contains(x.name, "infer-shared") && !strings.Contains(x.name, "generate-unloads") {
			return true
		}
	}
	return false
}

// read reads the request, and what its body names. The error is a refusal.
func (x *exchange) read(t *testing.T) (Call, []Named, error) {
	t.Helper()
	d, ok := ByName(x.dialect)
	if !ok {
		t.Fatalf("%s: no dialect is called %q", x.name, x.dialect)
	}
	h := x.head
	h.Fields = slices.Clone(h.Fields)
	if err := h.Settle(); err != nil {
		return Call{}, nil, err
	}
	if h.Forms != 0 {
		return Call{}, nil, message.ErrAmbiguousPath
	}
	r := &Request{Method: h.Method, Path: h.Path, Query: h.Query, HasQuery: h.HasQuery, GRPC: x.grpc, Fields: h.Fields}
	if x.grpc && h.HasQuery {
		return Call{}, nil, errors.New("gRPC calls have no query")
	}
	for _, f := range h.Fields {
		if f.Name == "content-type" && CarriesCode(f.Value) {
			return Call{}, nil, errors.New("the body carries code")
		}
	}
	got, err := d.Read(r)
	if err != nil {
		return Call{}, nil, err
	}
	checkAgain(t, d, r, &got)
	if !got.NeedsBody() {
		return got.Call, []Named{{got.Call.Model, got.Call.Version, got.Call.Signature}}, nil
	}
	encoding := h.Fields.Get("content-encoding")
	if x.grpc {
		encoding = h.Fields.Get("grpc-encoding")
	}
	var named []Named
	s := got.Scanner(ScanOptions{Decide: func(n Named) error { named = append(named, n); return nil }, Encoding: encoding, Inflate: 1 << 20})
	defer s.Close()
	if _, err = s.Write(x.body); err == nil {
		err = s.Check()
	}
	return got.Call, named, err
}

// recorded reads all exchanges.
func recorded(t *testing.T) (all []*exchange) {
	t.Helper()
	for pattern, read := range map[string]func(*testing.T, string, string) *exchange{
		"testdata/exchanges/*.http":          readHTTP,
		"testdata/exchanges/classic/*/*.txt": readClassic,
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, read(t, name, string(text)))
		}
	}
	return all
}

// readHTTP reads an exchange of language models and MLflow.
func readHTTP(t *testing.T, file, text string) *exchange {
	t.Helper()
	x := &exchange{name: strings.TrimSuffix(filepath.Base(file), ".http")}
	server, _, _ := strings.Cut(x.name, "-")
	x.dialect = map[string]string{"llamacpp": "openai", "ollama": "ollama", "mlflow": "mlflow"}[server]
	remarks, rest, _ := strings.Cut(text, ">>>\n")
	request, _, _ := strings.Cut(rest, "\n<<<\n")
	for line := range strings.Lines(remarks) {
		if model, ok := strings.CutPrefix(strings.TrimSpace(line), "served: "); ok {
			x.served = append(x.served, Named{Model: model})
		}
	}
	head, body, _ := strings.Cut(request+"\n", "\n\n")
	x.setHead(head)
	x.body = []byte(strings.TrimSuffix(body, "\n"))
	if strings.HasPrefix(x.head.Fields.Get("content-type"), "multipart/") {
		x.body = []byte(strings.ReplaceAll(string(x.body), "\n", "\r\n"))
	}
	if x.head.Fields.Get("content-encoding") == "gzip" {
		x.body = gzipped(t, string(x.body))
	}
	return x
}

// setHead reads a request line and fields.
func (x *exchange) setHead(head string) {
	line, fields, _ := strings.Cut(head, "\n")
	x.head = message.Head{Version: message.HTTP11, Scheme: "https", Authority: "localhost"}
	x.head.Method, x.head.Target, _ = strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), " HTTP/1.1"), " ")
	for f := range strings.Lines(fields) {
		name, value, found := strings.Cut(strings.TrimSpace(f), ":")
		if name = strings.ToLower(name); found && name != "host" && name != "content-length" && name != "transfer-encoding" {
			x.head.Fields = append(x.head.Fields, message.Field{Name: name, Value: strings.TrimSpace(value)})
		}
	}
}

// readClassic reads an exchange with TensorFlow, Triton, MLServer or TorchServe.
func readClassic(t *testing.T, file, text string) *exchange {
	t.Helper()
	server := filepath.Base(filepath.Dir(file))
	x := &exchange{name: server + "/" + strings.TrimSuffix(filepath.Base(file), ".txt")}
	x.dialect = map[string]string{"tensorflow": "tensorflow", "triton": "triton", "mlserver": "v2", "torchserve": "torchserve"}[server]
	var sent strings.Builder
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch key {
		case "send":
			piece, err := strconv.Unquote(value)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			sent.WriteString(piece)
		case "grpc":
			x.grpc = true
			x.head = message.Head{Version: message.HTTP2, Scheme: "https", Authority: "localhost", Method: "POST", Target: value,
				Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}}}
		case "grpc-encoding":
			x.head.Fields.Add("grpc-encoding", value)
		case "frames":
			var err error
			if x.body, err = hex.DecodeString(value); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		case "served":
			model, version, _ := strings.Cut(value, " ")
			x.served = append(x.served, Named{Model: model, Version: version})
		}
	}
	if !x.grpc {
		head, body, _ := strings.Cut(sent.String(), "\r\n\r\n")
		x.setHead(strings.ReplaceAll(head, "\r\n", "\n"))
		x.body = []byte(body)
	}
	return x
}
