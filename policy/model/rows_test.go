package model

import (
	"errors"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// row is a request and what a dialect reads from it: "VERB MODEL VERSION TARGET" with - for what is
// empty and "server" for the model of a call about the server, or "404", "400", "405 ALLOW". A target
// that is the path of the request may be left out. A star behind the verb says that the body is read.
type row struct{ method, path, want string }

// checkRows reads rows, and what was read from the canonical form again.
func checkRows(t *testing.T, dialect string, rows []row) {
	t.Helper()
	d, ok := ByName(dialect)
	if !ok {
		t.Fatalf("no dialect is called %s", dialect)
	}
	for _, c := range rows {
		r := request(c.method, c.path)
		got, err := d.Read(r)
		text := rowText(r, &got, err)
		if text != c.want {
			t.Errorf("%s %s: %q; want %q", c.method, c.path, text, c.want)
		}
		if err != nil {
			continue
		}
		if !strings.Contains(strings.Join(d.Verbs(), " "), got.Call.Verb) {
			t.Errorf("%s %s: rules cannot name the verb %s", c.method, c.path, got.Call.Verb)
		}
		if got.Call.Server && got.Call.Model != "" {
			t.Errorf("%s %s: a call about the server names the model %q", c.method, c.path, got.Call.Model)
		}
		checkAgain(t, d, r, &got)
	}
}

// checkAgain reads the canonical form of a request again.
func checkAgain(t *testing.T, d *Dialect, r *Request, got *Reading) {
	t.Helper()
	same := *r
	same.Path, same.Query, same.HasQuery = got.Path, got.Query, got.HasQuery
	again, err := d.Read(&same)
	if err != nil || again.Call != got.Call || again.Target() != got.Target() || again.NeedsBody() != got.NeedsBody() {
		t.Errorf("%s %s is read again as %+v %s, %v; want %+v", r.Method, got.Target(), again.Call, again.Target(), err, got.Call)
	}
}

// request is a request for a target; the method GRPC is a gRPC call.
func request(method, target string) *Request {
	r := &Request{Method: method, GRPC: method == "GRPC"}
	if r.GRPC {
		r.Method = "POST"
		r.Fields = message.Fields{{Name: "content-type", Value: "application/grpc"}}
	}
	r.Path, r.Query, r.HasQuery = strings.Cut(target, "?")
	return r
}

func rowText(r *Request, got *Reading, err error) string {
	if e := new(Unread); errors.As(err, &e) {
		return strings.TrimSpace(map[Reason]string{UnknownCall: "404", WrongMethod: "405 ", BadName: "400"}[e.Reason] + e.Allow)
	}
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	verb, model := got.Call.Verb, or(got.Call.Model)
	if got.NeedsBody() {
		verb += "*"
	}
	if got.Call.Server {
		model = "server"
	}
	text := verb + " " + model + " " + or(got.Call.Version)
	if asked := (&Reading{Path: r.Path, Query: r.Query, HasQuery: r.HasQuery}).Target(); got.Target() != asked {
		text += " " + got.Target()
	}
	return text
}

// fuzzRead checks what holds for every head: Read does not panic, and the canonical form is read as the
// same call, which names its model by the bytes of the path.
func fuzzRead(f *testing.F, dialect string, rows []row) {
	d, _ := ByName(dialect)
	for _, c := range rows {
		f.Add(c.method, c.path)
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		r := request(method, target)
		got, err := d.Read(r)
		if e := new(Unread); err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("the error is %T", err)
			}
			return
		}
		checkAgain(t, d, r, &got)
		if got.Call.Class() == "" {
			t.Errorf("the verb %q has no class", got.Call.Verb)
		}
		if got.Call.Model != "" && d.slashedIDs {
			if _, err := d.CanonicalModel(got.Call.Model); err != nil {
				t.Errorf("the model %q is no name: %v", got.Call.Model, err)
			}
		} else if got.Call.Model != "" && checkName(got.Call.Model) != nil {
			t.Errorf("the model %q is no name", got.Call.Model)
		}
	})
}

// FuzzReadAgain checks for every dialect that the canonical form of a head, which is forwarded, is read as
// the same call. The gateway relies on it: it reads a head once.
func FuzzReadAgain(f *testing.F) {
	all := dialects[:]
	for _, c := range []Config{
		{Serves: "flask", Model: "churn"}, {Serves: "mlflow", Model: "wine"}, {Serves: "sagemaker", Model: "wine"},
		{Serves: "flask", Calls: []CallConfig{{"post", "/predict/{model}", "predict"}, {"GET", "/{model}/{version}", "status"}}},
	} {
		d, faults := New(&c)
		if faults != nil {
			f.Fatal(faults)
		}
		all = append(all, d)
	}
	for _, target := range []string{
		"/V1/MODELS/half/Versions/007:predict?x=1", "/v1/models/half/labels/stable/metadata", "/v1/models/a%20b:classify",
		"/v2/models/a/versions/01/infer", "/predictions/a/1.0", "/predict/a%2e", "/a/1?", "/invocations", "/ping", "/api/tags", "/v1/chat/completions",
		"/tensorflow.serving.PredictionService/Predict", "/inference.GRPCInferenceService/ModelInfer",
	} {
		for _, method := range []string{"GET", "POST", "GRPC"} {
			f.Add(method, target[1:])
		}
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		r := request(method, "/"+target)
		for _, d := range all {
			if got, err := d.Read(r); err == nil {
				checkAgain(t, d, r, &got)
			}
		}
	})
}
