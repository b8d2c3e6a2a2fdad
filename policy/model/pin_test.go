package model

import (
	"errors"
	"testing"
)

func TestVersionIsWrittenIntoPaths(t *testing.T) {
	for _, c := range []struct{ dialect, method, path, version, want string }{
		{"tensorflow", "POST", "/v1/models/half:predict", "3", "/v1/models/half/versions/3:predict"},
		{"tensorflow", "POST", "/V1/Models/half:classify", "label:stable", "/v1/models/half/labels/stable:classify"},
		{"tensorflow", "GET", "/v1/models/half/metadata", "3", "/v1/models/half/versions/3/metadata"},
		{"tensorflow", "GET", "/v1/models/half", "label:stable", "/v1/models/half/labels/stable"},
		{"tensorflow", "HEAD", "/v1/models/metadata", "3", "/v1/models/metadata/versions/3"},
		{"tensorflow", "POST", "/v1/models/a%20b:predict", "3", "/v1/models/a%20b/versions/3:predict"},
		{"v2", "POST", "/v2/models/half/infer", "v1.2", "/v2/models/half/versions/v1.2/infer"},
		{"v2", "GET", "/v2/models/half", "3", "/v2/models/half/versions/3"},
		{"v2", "GET", "/v2/models/versions/ready", "3", "/v2/models/versions/versions/3/ready"},
		{"v2", "POST", "/v1/models/half:predict", "3", ""},
		{"triton", "POST", "/v2/models/half/generate_stream", "3", "/v2/models/half/versions/3/generate_stream"},
		{"triton", "GET", "/v2/models/half/config", "3", "/v2/models/half/versions/3/config"},
		{"torchserve", "POST", "/predictions/half", "1.0", "/predictions/half/1.0"},
		{"torchserve", "PUT", "/predictions/half", "1.0", "/predictions/half/1.0"},
		{"torchserve", "POST", "/explanations/half", "1.0", "/explanations/half/1.0"},
		{"torchserve", "GET", "/models/half", "1.0", "/models/half/1.0"},
		{"torchserve", "POST", "/models/half/invoke", "1.0", ""},
		{"torchserve", "POST", "/wfpredict/half", "1.0", ""},
		{"torchserve", "POST", "/v2/models/half/infer", "1.0", ""},
		{"torchserve", "POST", "/v1/models/half:predict", "1.0", ""},
		{"openai", "GET", "/v1/models/half", "3", ""},
	} {
		d, _ := ByName(c.dialect)
		q := &Request{Method: c.method, Path: c.path}
		read, err := d.Read(q)
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		got, err := d.WithVersion(q, &read, c.version)
		if c.want == "" {
			if !errors.Is(err, ErrNoPlace) {
				t.Errorf("%s: %s %v; want ErrNoPlace", c.path, got.Path, err)
			}
			continue
		}
		if err != nil || !read.Call.Open() || got.Path != c.want || got.Call.Version != c.version {
			t.Errorf("%s: %s, version %q, %v; want %s", c.path, got.Path, got.Call.Version, err, c.want)
		}
	}
}

func TestCallsThatNameAVersionOrManageAreNotOpen(t *testing.T) {
	for _, c := range []struct{ dialect, method, path string }{
		{"tensorflow", "POST", "/v1/models/half/versions/3:predict"},
		{"tensorflow", "POST", "/v1/models/half/Labels/stable:predict"},
		{"tensorflow", "GET", "/monitoring/prometheus/metrics"},
		{"triton", "POST", "/v2/models/half/versions/003/infer"},
		{"triton", "POST", "/v2/models/half/trace/setting"},
		{"triton", "POST", "/v2/repository/models/half/load"},
		{"torchserve", "DELETE", "/models/half"},
		{"torchserve", "GET", "/ping"},
		{"openai", "GET", "/v1/models/half"},
	} {
		d, _ := ByName(c.dialect)
		got, err := d.Read(&Request{Method: c.method, Path: c.path})
		if err != nil || got.Call.Open() {
			t.Errorf("%s %s: %+v, %v; want a call that is not open", c.method, c.path, got.Call, err)
		}
	}
}

func TestChosenVersionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		dialect, version string
		good             bool
	}{
		{"tensorflow", "3", true}, {"tensorflow", "label:stable", true}, {"tensorflow", "0", true},
		{"tensorflow", "latest", false}, {"tensorflow", "label:st*", false}, {"tensorflow", "label:a b", false},
		{"tensorflow", "stable", false}, {"tensorflow", "99999999999999999999", false},
		{"triton", "3", true}, {"triton", "label:stable", false}, {"triton", "v3", false},
		{"v2", "v3", true}, {"v2", "../3", false}, {"torchserve", "1.0", true},
		{"openai", "3", false}, {"ollama", "3", false}, {"raw", "3", false}, {"mlflow", "3", false},
	} {
		d, _ := ByName(c.dialect)
		if problem, cure := d.CheckChoice(c.version); (problem == "") != c.good || (cure == "") != c.good {
			t.Errorf("%s %s: %q; %q", c.dialect, c.version, problem, cure)
		}
	}
}
