package model

import "testing"

func TestTensorFlowModel(t *testing.T) {
	for path, want := range map[string][2]string{
		"/v1/models/half:predict":               {"half", ""},
		"/V1/MODELS/half:predict":               {"half", ""},
		"/v1/models/half/versions/3:predict":    {"half", "3"},
		"/v1/models/half/Versions/3:classify":   {"half", "3"},
		"/v1/models/half/labels/stable:predict": {"half", ""},
		"/v1/models/half":                       {"half", ""},
		"/v1/models/half/versions/12":           {"half", "12"},
		"/v1/models/half/metadata":              {"half", ""},
		"/v1/models/half/versions/1/metadata":   {"half", "1"},
		"/v1/models/metadata":                   {"metadata", ""},
		"/v1/models/":                           {},
		"/v1/models":                            {},
		"/v1/models/half/versions/x:predict":    {},
		"/v1/models/half/versions/:predict":     {},
		"/v1/models/half/else/1":                {},
		"/v1/models/half/versions/1/2":          {},
		"/v1/models/a:b:predict":                {},
		"/v1/models/a:b/c":                      {},
		"/monitoring/prometheus/metrics":        {},
	} {
		if name, version := tensorFlowModel(path); name != want[0] || version != want[1] {
			t.Errorf("%s: model %q, version %q; want %q", path, name, version, want)
		}
	}
}
