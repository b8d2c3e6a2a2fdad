//go:build !race

package model

// The race detector makes pools forget.

import (
	"slices"
	"testing"

	"sallyport/proxy/message"
)

func TestServedScannerAllocatesNothingForTheModelAsked(t *testing.T) {
	infer := answerFrame(slices.Concat(field(1, []byte("model")), field(2, []byte("12"))))
	for _, c := range []struct {
		dialect, path string
		grpc          bool
		fields        message.Fields
		body          []byte
		want          Served
	}{
		{"triton", "/v2/models/model/versions/12/infer", false, ofType("application/json"), []byte(`{"model_name":"model","model_version":"12"}`), Served{"model", "12"}},
		{"triton", servedInfer, true, ofType("application/grpc"), infer, Served{"model", "12"}},
	} {
		d, _ := ByName(c.dialect)
		got, err := d.Read(&Request{Method: "POST", Path: c.path, GRPC: c.grpc})
		if err != nil {
			t.Fatal(err)
		}
		got.Call = got.Call.With(Named{Model: "model", Version: "12"})
		h := &message.Response{Status: 200, Fields: c.fields}
		if n := testing.AllocsPerRun(200, func() {
			s := got.ServedScanner(h)
			s.Write(c.body)
			if said := s.End(); said != c.want {
				t.Fatal(said)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", c.path, n)
		}
	}
}
