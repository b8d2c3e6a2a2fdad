package model

import (
	"errors"
	"testing"
)

func TestTensorFlowPaths(t *testing.T) {
	for _, c := range []struct{ method, path, want string }{
		{"POST", "/v1/models/half:predict", "predict half latest /v1/models/half:predict"},
		{"POST", "/V1/MODELS/half:predict", "predict half latest /v1/models/half:predict"},
		{"POST", "/v1/models/half/versions/3:predict", "predict half 3 /v1/models/half/versions/3:predict"},
		{"POST", "/v1/models/half/versions/007:predict", "predict half 7 /v1/models/half/versions/7:predict"},
		{"POST", "/v1/models/half/Versions/3:classify", "classify half 3 /v1/models/half/versions/3:classify"},
		{"POST", "/v1/models/half/labels/stable:regress", "regress half label:stable /v1/models/half/labels/stable:regress"},
		{"GET", "/v1/models/half", "status half latest /v1/models/half"},
		{"HEAD", "/v1/models/half", "status half latest /v1/models/half"},
		{"GET", "/v1/models/half/versions/12", "status half 12 /v1/models/half/versions/12"},
		{"GET", "/v1/models/half/metadata", "metadata half latest /v1/models/half/metadata"},
		{"GET", "/v1/models/half/versions/1/metadata", "metadata half 1 /v1/models/half/versions/1/metadata"},
		{"GET", "/v1/models/half/labels/stable/metadata", "metadata half label:stable /v1/models/half/labels/stable/metadata"},
		{"GET", "/v1/models/metadata", "status metadata latest /v1/models/metadata"},
		{"GET", "/v1/models/a%20b", "status a b latest /v1/models/a%20b"},
		{"GET", "/monitoring/prometheus/metrics", "metrics   /monitoring/prometheus/metrics"},

		{"GET", "/v1/models/half:predict", "405 POST"},
		{"POST", "/v1/models/half", "405 GET, HEAD"},
		{"POST", "/monitoring/prometheus/metrics", "405 GET, HEAD"},
		{"GET", "/v1/models/", "400"},
		{"POST", "/v1/models/:predict", "400"},
		{"POST", "/v1/models/a%2Fb:predict", "400"},
		{"POST", "/v1/models/secret%3Apredict", "400"},
		{"GET", "/v1/models/secret%3Apredict", "400"},
		{"GET", "/v1/models/a%25b", "400"},
		{"GET", "/v1/models/%C3%A9", "400"},
		{"POST", "/v1/models/half/versions/99999999999999999999:predict", "400"},
		{"POST", "/v1/models/half/versions/x:predict", "400"},
		{"GET", "/v1/models", "404"},
		{"GET", "/v1/models/half/METADATA", "404"},
		{"POST", "/v1/models/half:PREDICT", "404"},
		{"POST", "/v1/models/half:", "404"},
		{"POST", "/v1/models/half/versions/:predict", "404"},
		{"POST", "/v1/models/half/labels/:predict", "404"},
		{"POST", "/v1/models/half/else/1:predict", "404"},
		{"POST", "/v1/models/half/versions/1/2:predict", "400"},
		{"POST", "/v1/models/half/metadata:predict", "404"},
		{"POST", "/v1/models/a:b:predict", "404"},
		{"POST", "/v1/models/a:b/c", "404"},
		{"POST", "/v1/models/a:predict/", "404"},
		{"GET", "/", "404"},
	} {
		d, _ := ByName("tensorflow")
		got, err := d.Read(&Request{Method: c.method, Path: c.path, Query: "x=1", HasQuery: true})
		text := got.Call.Verb + " " + got.Call.Model + " " + got.Call.Version + " " + got.Target()
		if e := new(Unread); errors.As(err, &e) {
			text = map[Reason]string{UnknownCall: "404", WrongMethod: "405 " + e.Allow, BadName: "400"}[e.Reason]
		}
		if text != c.want {
			t.Errorf("%s %s: %q; want %q", c.method, c.path, text, c.want)
		}
		if err != nil {
			continue
		}
		again, err := d.Read(&Request{Method: c.method, Path: got.Path})
		if err != nil || again.Call != got.Call || again.Path != got.Path {
			t.Errorf("%s is read again as %+v, %v; want %+v", got.Path, again.Call, err, got.Call)
		}
	}
}
