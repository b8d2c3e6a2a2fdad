package model_test

import (
	"testing"

	"sallyport/policy/model"
)

// A rule about a version that no request can have would never speak: a deny rule would deny nothing.
func TestVersionsOfRules(t *testing.T) {
	for _, c := range []struct {
		dialect, version string
		ok               bool
	}{
		{"tensorflow", "3", true}, {"tensorflow", "label:stable", true}, {"tensorflow", "latest", true}, {"tensorflow", "v3", false}, {"tensorflow", "stable", false},
		{"triton", "3", true}, {"triton", "latest", true}, {"triton", "v3", false}, {"triton", "label:stable", false},
		{"v2", "v3.1", true}, {"v2", "latest", true}, {"v2", "label:stable", false},
		{"torchserve", "1.0", true}, {"openai", "3", false}, {"mlflow", "latest", false}, {"raw", "latest", false},
	} {
		d, _ := model.ByName(c.dialect)
		problem, cure := d.CheckVersion(c.version)
		if (problem == "") != c.ok || (problem == "") != (cure == "") {
			t.Errorf("%s %s: %q, %q", c.dialect, c.version, problem, cure)
		}
	}
	d, _ := model.New(&model.Config{Serves: "flask", Calls: []model.CallConfig{{Method: "post", Path: "/predict/{model}/{version}", Verb: "predict"}}})
	if problem, _ := d.CheckVersion("v3"); problem != "" {
		t.Errorf("an application whose paths have a version: %s", problem)
	}
}
