package model

import (
	"bytes"
	"testing"
)

var v2Rows = []row{
	{"GET", "/v2", "metadata server -"},
	{"HEAD", "/v2/health/live", "health server -"},
	{"GET", "/v2/health/ready?x", "health server - /v2/health/ready"},
	{"GET", "/v2/models", "list server -"},
	{"GET", "/v2/models/half", "metadata half latest"},
	{"GET", "/v2/models/half/versions/3", "metadata half 3"},
	{"GET", "/v2/models/half/versions/v1.2", "metadata half v1.2"},
	{"GET", "/v2/models/half/ready", "status half latest"},
	{"GET", "/v2/models/half/versions/3/ready", "status half 3"},
	{"POST", "/v2/models/half/infer", "predict half latest"},
	{"POST", "/v2/models/half/infer?model_version=3", "predict half latest /v2/models/half/infer"},
	{"POST", "/v2/models/half/versions/3/infer?model_version=2", "predict half 3 /v2/models/half/versions/3/infer"},
	{"POST", "/v2/models/half/infer_stream", "predict half latest"},
	{"POST", "/v2/models/half/generate", "generate half latest"},
	{"POST", "/v2/models/half/versions/1/generate_stream", "generate half 1"},
	{"POST", "/v2/models/a%20b/infer", "predict a b latest"},
	{"POST", "/v2/models/ready/infer", "predict ready latest"},
	{"POST", "/v2/repository/index", "list server -"},
	{"POST", "/v2/repository/models/half/load", "load half -"},
	{"POST", "/v2/repository/models/half/unload", "unload half -"},
	{"GET", "/v2/docs", "docs server -"},
	{"GET", "/v2/docs/dataplane.json", "docs server -"},
	{"GET", "/v2/models/half/docs", "docs half latest"},
	{"GET", "/v2/models/half/versions/v1/docs/dataplane.json", "docs half v1"},
	{"GET", "/openapi.json", "docs server -"},
	{"GET", "/docs", "docs server -"},
	{"GET", "/", "health server -"},
	{"GET", "/metrics?name%5B%5D=x", "metrics server -"},
	{"GET", "/v1/models", "list server -"},
	{"GET", "/v1/models/half", "status half latest"},
	{"POST", "/v1/models/half:predict", "predict half latest"},
	{"POST", "/v1/models/half:explain?x", "explain half latest /v1/models/half:explain"},

	{"GET", "/v2/models/half/infer", "405 POST"},
	{"PUT", "/v2/models/half/ready", "405 GET, HEAD"},
	{"GET", "/v2/repository/index", "405 POST"},
	{"DELETE", "/v2/repository/models/half/load", "405 POST"},
	{"GET", "/v1/models/half:predict", "405 POST"},
	{"POST", "/v1/models/half", "405 GET, HEAD"},

	{"POST", "/v2/models/half/infer/", "404"},
	{"GET", "/v2/models/half/", "404"},
	{"GET", "/v2/", "404"},
	{"POST", "/V2/models/half/infer", "404"},
	{"POST", "/v2/models/half/INFER", "404"},
	{"POST", "/v2/models/half/config", "404"},
	{"GET", "/v2/models/stats", "metadata stats latest"},
	{"GET", "/v2/models/half/versions", "404"},
	{"POST", "/v2/models/half/infer/infer", "404"},
	{"POST", "/v2/repository/models/half", "404"},
	{"POST", "/v2/repository/r/index", "404"},
	{"GET", "/v2/systemsharedmemory/status", "404"},
	{"POST", "/v1/models/half:regress", "404"},
	{"POST", "/v1/models/half/versions/1:predict", "400"},
	{"POST", "/v2/models//infer", "400"},
	{"POST", "/v2/models/double%2Finfer", "400"},
	{"GET", "/v2/models/secret%2Fversions%2F1", "400"},
	{"POST", "/v2/models/half%3Apredict/infer", "400"},
	{"POST", "/v2/models/half%3Fx/infer", "400"},
	{"POST", "/v2/models/%2564ouble/infer", "400"},
	{"POST", "/v2/models/caf%C3%A9/infer", "400"},
	{"POST", "/v2/models/half%00/infer", "400"},
	{"POST", "/v2/models/half/versions/latest/infer", "400"},
	{"POST", "/v2/models/half/versions/label%3Astable/infer", "400"},
	{"POST", "/v2/models/half/versions//infer", "400"},
	{"POST", "/v2/models/half/versions/001/infer", "400"},
	{"POST", "/v2/models/half/versions/-1/infer", "400"},
	{"POST", "/v2/models/half/versions/%31/infer", "400"},

	{"GRPC", "/inference.GRPCInferenceService/ServerLive", "health server -"},
	{"GRPC", "/inference.GRPCInferenceService/ServerReady", "health server -"},
	{"GRPC", "/inference.GRPCInferenceService/ServerMetadata", "metadata server -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelReady", "status* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelMetadata", "metadata* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelInfer", "predict* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelStreamInfer", "predict* - -"},
	{"GRPC", "/inference.GRPCInferenceService/RepositoryIndex", "list server -"},
	{"GRPC", "/inference.GRPCInferenceService/RepositoryModelLoad", "load server -"},
	{"GRPC", "/inference.GRPCInferenceService/RepositoryModelUnload", "unload server -"},
	{"GRPC", "/inference.model_repository.ModelRepositoryService/RepositoryIndex", "list server -"},
	{"GRPC", "/inference.model_repository.ModelRepositoryService/RepositoryModelLoad", "load* - -"},
	{"GRPC", "/inference.model_repository.ModelRepositoryService/RepositoryModelUnload", "unload* - -"},
	{"GRPC", "/grpc.health.v1.Health/Check", "health server -"},
	{"GRPC", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "reflection server -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelInfer?x=1", "predict* - - /inference.GRPCInferenceService/ModelInfer"},
	{"GRPC", "/inference.GRPCInferenceService/MODELINFER", "404"},
	{"GRPC", "/inference.GRPCInferenceService/ModelConfig", "404"},
	{"GRPC", "/inference.GRPCInferenceService/ModelInfer/", "404"},
	{"POST", "/inference.GRPCInferenceService/ModelInfer", "404"},
	{"GRPC", "/v2/models/half/infer", "404"},
}

var tritonRows = []row{
	{"GET", "/v2", "metadata server -"},
	{"GET", "/v2/health/live", "health server -"},
	{"GET", "/v2/health/ready", "health server -"},
	{"GET", "/v2/models/stats", "404"},
	{"GET", "/v2/models/stats/stats", "stats stats latest"},
	{"GET", "/v2/models/half", "metadata half latest"},
	{"GET", "/v2/models/half/versions/3", "metadata half 3"},
	{"GET", "/v2/models/half/versions/003", "metadata half 3 /v2/models/half/versions/3"},
	{"POST", "/v2/models/half/versions/003/infer", "predict half 3 /v2/models/half/versions/3/infer"},
	{"POST", "/v2/models/versions/versions/03/infer", "predict versions 3 /v2/models/versions/versions/3/infer"},
	{"POST", "/v2/models/half/infer?x=1", "predict half latest /v2/models/half/infer"},
	{"POST", "/v2/models/half/generate", "generate half latest"},
	{"POST", "/v2/models/half/versions/1/generate_stream", "generate half 1"},
	{"GET", "/v2/models/half/ready", "status half latest"},
	{"GET", "/v2/models/half/config", "config half latest"},
	{"GET", "/v2/models/half/versions/2/stats", "stats half 2"},
	{"GET", "/v2/models/half/trace/setting", "trace half latest"},
	{"POST", "/v2/models/half/trace/setting", "trace half latest"},
	{"GET", "/v2/trace/setting", "trace server -"},
	{"POST", "/v2/trace/setting", "trace server -"},
	{"GET", "/v2/logging", "logging server -"},
	{"POST", "/v2/logging", "logging server -"},
	{"POST", "/v2/repository/index", "list server -"},
	{"POST", "/v2/repository/r/index", "list server -"},
	{"POST", "/v2/repository/models/index", "list server -"},
	{"POST", "/v2/repository/models/half/load", "load half -"},
	{"POST", "/v2/repository/models/half/unload?x", "unload half - /v2/repository/models/half/unload"},
	{"POST", "/v2/repository/r/models/half/load", "load half -"},
	{"POST", "/v2/repository/models/models/half/load", "load half -"},
	{"GET", "/v2/systemsharedmemory/status", "shared_memory server -"},
	{"GET", "/v2/systemsharedmemory/region/r/status", "shared_memory server -"},
	{"POST", "/v2/systemsharedmemory/region/r/register", "shared_memory server -"},
	{"POST", "/v2/systemsharedmemory/unregister", "shared_memory server -"},
	{"POST", "/v2/cudasharedmemory/region/r/unregister", "shared_memory server -"},
	{"GET", "/v2/cudasharedmemory/status", "shared_memory server -"},
	{"GET", "/metrics", "metrics server -"},

	{"GET", "/v2/models/half/infer", "405 POST"},
	{"POST", "/v2/models/half/config", "405 GET, HEAD"},
	{"PUT", "/v2/logging", "405 GET, HEAD, POST"},
	{"GET", "/v2/repository/index", "405 POST"},
	{"GET", "/v2/repository/r/index", "405 POST"},
	{"GET", "/v2/systemsharedmemory/region/r/register", "405 POST"},

	{"GET", "/v2/models", "404"},
	{"GET", "/v2/models/half/", "404"},
	{"POST", "/v2/models/half/infer/", "404"},
	{"POST", "/v2/models/half/INFER", "404"},
	{"POST", "/v2/models/half/infer_stream", "404"},
	{"POST", "/v2/models/half/versions/1/versions/2/infer", "404"},
	{"POST", "/v2/repository/models/half/reload", "404"},
	{"POST", "/v2/repository/models/half", "404"},
	{"POST", "/v2/repository/r/models/half", "404"},
	{"POST", "/v2/repository/a/b/c/load", "404"},
	{"POST", "/v2/repository/a/models/half/load/x", "404"},
	{"POST", "/v2/systemsharedmemory/region/r", "404"},
	{"POST", "/v2/systemsharedmemory/region/r/x/register", "404"},
	{"POST", "/v2/gpusharedmemory/register", "404"},
	{"GET", "/", "404"},
	{"GET", "/v1/models/half", "404"},

	{"POST", "/v2/models/a%20b/infer", "400"},
	{"POST", "/v2/models/half%2Finfer", "400"},
	{"POST", "/v2/models/half:predict/infer", "400"},
	{"POST", "/v2/models//infer", "400"},
	{"POST", "/v2/models/half/versions/x/infer", "400"},
	{"POST", "/v2/models/half/versions/+1/infer", "400"},
	{"POST", "/v2/models/half/versions//infer", "400"},
	{"POST", "/v2/models/half/versions/9223372036854775808/infer", "400"},
	{"POST", "/v2/repository/%72/models/half/load", "400"},
	{"POST", "/v2/systemsharedmemory/region//register", "400"},

	{"GRPC", "/inference.GRPCInferenceService/ModelInfer", "predict* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelStreamInfer", "predict* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelReady", "status* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelMetadata", "metadata* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelConfig", "config* - -"},
	{"GRPC", "/inference.GRPCInferenceService/ModelStatistics", "stats* - -"},
	{"GRPC", "/inference.GRPCInferenceService/RepositoryIndex", "list server -"},
	{"GRPC", "/inference.GRPCInferenceService/RepositoryModelLoad", "load* - -"},
	{"GRPC", "/inference.GRPCInferenceService/RepositoryModelUnload", "unload* - -"},
	{"GRPC", "/inference.GRPCInferenceService/SystemSharedMemoryStatus", "shared_memory server -"},
	{"GRPC", "/inference.GRPCInferenceService/SystemSharedMemoryRegister", "shared_memory server -"},
	{"GRPC", "/inference.GRPCInferenceService/SystemSharedMemoryUnregister", "shared_memory server -"},
	{"GRPC", "/inference.GRPCInferenceService/CudaSharedMemoryStatus", "shared_memory server -"},
	{"GRPC", "/inference.GRPCInferenceService/CudaSharedMemoryRegister", "shared_memory server -"},
	{"GRPC", "/inference.GRPCInferenceService/CudaSharedMemoryUnregister", "shared_memory server -"},
	{"GRPC", "/inference.GRPCInferenceService/TraceSetting", "trace server -"},
	{"GRPC", "/inference.GRPCInferenceService/LogSettings", "logging server -"},
	{"GRPC", "/grpc.health.v1.Health/Check", "health server -"},
	{"GRPC", "/inference.model_repository.ModelRepositoryService/RepositoryIndex", "404"},
	{"GRPC", "//inference.GRPCInferenceService/ModelInfer", "404"},
}

func TestV2Requests(t *testing.T)     { checkRows(t, "v2", v2Rows) }
func TestTritonRequests(t *testing.T) { checkRows(t, "triton", tritonRows) }

func FuzzReadV2(f *testing.F)     { fuzzRead(f, "v2", v2Rows) }
func FuzzReadTriton(f *testing.F) { fuzzRead(f, "triton", tritonRows) }

// TestRow8EveryMessageOfAStreamIsDecided has a victim in the second message of a stream.
func TestRow8EveryMessageOfAStreamIsDecided(t *testing.T) {
	for _, dialect := range []string{"v2", "triton"} {
		d, _ := ByName(dialect)
		got, err := d.Read(request("GRPC", v2Service+"ModelStreamInfer"))
		if err != nil || !got.Streams() {
			t.Fatalf("%s: %+v, %v; want a stream", dialect, got, err)
		}
		var named []Named
		s := got.Scanner(ScanOptions{Decide: func(n Named) error { named = append(named, n); return nil }})
		defer s.Close()
		body := append(framed(0, pbText(1, "public")), framed(0, bytes.Join([][]byte{pbText(1, "secret"), pbText(2, "3")}, nil))...)
		if _, err := s.Write(body); err != nil || s.Check() != nil {
			t.Fatalf("%s: %v", dialect, err)
		}
		if len(named) != 2 || named[0] != (Named{Model: "public", Version: Latest}) || named[1] != (Named{Model: "secret", Version: "3"}) {
			t.Errorf("%s: the messages name %+v", dialect, named)
		}
	}
}

// Rows 10: a header chooses another model or path.
func TestRow10FieldsThatSteerServersAreDropped(t *testing.T) {
	for _, c := range []struct {
		dialect, name string
		dropped       bool
	}{
		{"triton", "x-vertex-ai-triton-redirect", true},
		{"triton", "x_vertex_ai_triton_redirect", true},
		{"triton", "triton-grpc-protocol-infer-key", true},
		{"triton", "triton-grpc-protocol", false},
		{"triton", "x-vertex-ai-triton-redirected", false},
		{"triton", "inference-header-content-length", false},
		{"triton", "content-type", false},
		{"triton", "triton_grpc_error", false},
		{"v2", "seldon-model", true},
		{"v2", "mm-vmodel-id", true},
		{"v2", "mm-model-id-bin", true},
		{"v2", "serve_multiplexed_model_id", true},
		{"triton", "x-amzn-sagemaker-target-model", true},
		{"triton", "x-amzn-sagemaker-custom-attributes", true},
		{"tensorflow", "x-amzn-sagemaker-target-variant", true},
		{"raw", "x-amzn-sagemaker-target-model", false},
	} {
		if d, _ := ByName(c.dialect); d.Dropped(c.name) != c.dropped {
			t.Errorf("%s: %s is dropped: %v; want %v", c.dialect, c.name, !c.dropped, c.dropped)
		}
	}
}

// TestRow11VersionsThatDodgeANumberAreTold: a rule about version 3 alone must see latest, labels and zero.
func TestRow11VersionsThatDodgeANumberAreTold(t *testing.T) {
	for _, c := range []struct{ dialect, path, version string }{
		{"tensorflow", "/v1/models/half:predict", Latest},
		{"tensorflow", "/v1/models/half/labels/3:predict", "label:3"},
		{"tensorflow", "/v1/models/half/versions/0:predict", "0"},
		{"tensorflow", "/v1/models/half/versions/03:predict", "3"},
		{"triton", "/v2/models/half/infer", Latest},
		{"triton", "/v2/models/half/versions/03/infer", "3"},
		{"v2", "/v2/models/half/infer?model_version=2", Latest},
		{"torchserve", "/predictions/half", Latest},
	} {
		d, _ := ByName(c.dialect)
		if got, err := d.Read(request("POST", c.path)); err != nil || got.Call.Version != c.version {
			t.Errorf("%s: %s: version %q, %v; want %q", c.dialect, c.path, got.Call.Version, err, c.version)
		}
	}
	for _, dialect := range []string{"tensorflow", "triton"} {
		d, _ := ByName(dialect)
		path := v2Service + "ModelInfer"
		message := bytes.Join([][]byte{pbText(1, "half"), pbText(2, "003")}, nil)
		want := Named{Model: "half", Version: "3"}
		if dialect == "tensorflow" { // an empty version is zero
			path, want.Version = "/tensorflow.serving.PredictionService/Predict", "0"
			message = pbText(1, bytes.Join([][]byte{pbText(1, "half"), pbText(2, "")}, nil))
		}
		got, err := d.Read(request("GRPC", path))
		if err != nil {
			t.Fatal(err)
		}
		var named Named
		s := got.Scanner(ScanOptions{Decide: func(n Named) error { named = n; return nil }})
		defer s.Close()
		if _, err := s.Write(framed(0, message)); err != nil || s.Check() != nil || named != want {
			t.Errorf("%s over gRPC: %+v, %v; want %+v", dialect, named, err, want)
		}
	}
}
