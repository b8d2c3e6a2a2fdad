package model

import (
	"errors"
	"strings"
)

// Counts reports whether the body holds what [Most] limits.
func (r *Reading) Counts() bool {
	if r.method != nil {
		return r.method.counts != 0
	}
	_, counts := r.plan()
	return counts
}

// Counter returns a scanner of a body that only counts what o.Most limits. Its errors are [*TooMuch] and
// [ErrUncounted]. It is nil if [Reading.Counts] is false, and for gRPC calls, whose [Reading.Scanner]
// counts.
func (r *Reading) Counter(o ScanOptions) Scanner {
	if r.method != nil {
		return nil
	}
	p, counts := r.plan()
	if !counts {
		return nil
	}
	s := newJSONCounter(r, &o, p)
	if !countsType(r) {
		s = &countScanner{s, errCountType}
	}
	return &countScanner{inflated(s, &o), nil}
}

// plan returns what is counted in the body of a request without gRPC, if anything is.
func (r *Reading) plan() (p jsonPlan, counts bool) {
	if d := r.Call.Dialect; d != nil && d.plan != nil && r.method == nil {
		p = d.plan(r)
	}
	return p, p.all || len(p.keys) > 0
}

// countsType reports whether a server reads a body of the request's type as one JSON object. TensorFlow
// Serving, Triton and Ollama's own API do so whatever the type. KServe takes events with an object within,
// and MLflow takes tables.
func countsType(r *Reading) bool {
	t := r.fields.Get("content-type")
	switch r.Call.Dialect.name {
	case tensorFlowName, tritonName:
		return true
	case "ollama":
		if strings.HasPrefix(r.Path, "/api/") {
			return true
		}
	case v2Name:
		media := MediaType(t)
		if media == "application/octet-stream" || media == "application/x-www-form-urlencoded" {
			return r.fields.Count("content-type") == 1
		}
	}
	return r.fields.Count("content-type") <= 1 && (t == "" || MediaType(t) == "application/json")
}

// countScanner makes faults of the scanner within into [ErrUncounted].
type countScanner struct {
	Scanner
	err error // of every body; nil: none
}

// Write takes the next piece of the body.
func (s *countScanner) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.Scanner.Write(p)
	return n, asUncounted(err)
}

// Check ends the body.
func (s *countScanner) Check() error {
	if s.err != nil {
		return s.err
	}
	return asUncounted(s.Scanner.Check())
}

func asUncounted(err error) error {
	if errors.Is(err, ErrBody) {
		return uncounted(err.Error())
	}
	return err
}

var (
	rowKeys     = [...]jsonKey{{"", "instances", roleRows}, {"", "inputs", roleRows}}
	exampleKeys = [...]jsonKey{{"", "examples", roleRows}}
	inferKeys   = [...]jsonKey{{"", "inputs", roleInputs}}
	// tableKeys are those of MLflow's scoring server. pandas makes rows of an index or a column alone.
	tableKeys = [...]jsonKey{
		{"dataframe_split", "data", roleRows}, {"dataframe_split", "index", roleRows}, {"", "dataframe_records", roleRows},
		{"", "instances", roleRows}, {"", "inputs", roleRows}, {"", "prompt", roleRows}, {"", "input", roleRows}, {"", "n", roleTimes},
	}
)

// These keys are those of OpenAI's API and of its servers. n answers are computed for each text; n_cmpl is
// llama.cpp's name for it.
var (
	answerKeys = [...]jsonKey{{"", "n", roleTimes}, {"", "best_of", roleTimes}, {"", "n_cmpl", roleTimes}}
	promptKeys = [...]jsonKey{{"", "prompt", roleTexts}, {"", "n", roleTimes}, {"", "best_of", roleTimes}, {"", "n_cmpl", roleTimes},
		{"sampling_params", "n", roleTimes}, {"sampling_params", "best_of", roleTimes}}
	textKeys = [...]jsonKey{{"", "input", roleTexts}, {"", "prompt", roleTexts}, {"", "content", roleTexts}, {"", "inputs", roleTexts},
		{"", "texts", roleTexts}, {"", "images", roleTexts}}
	pairKeys = [...]jsonKey{{"", "input", roleTexts}, {"", "documents", roleTexts}, {"", "texts", roleTexts}, {"", "queries", roleTexts},
		{"", "text_1", roleTexts}, {"", "text_2", roleTexts}, {"", "data_1", roleTexts}, {"", "data_2", roleTexts}, {"", "items", roleTexts}}
	// invocationKeys are for /invocations of vLLM, which takes the bodies of its other endpoints.
	invocationKeys = [...]jsonKey{{"", "prompt", roleTexts}, {"", "n", roleTimes}, {"", "best_of", roleTimes}, {"", "input", roleTexts},
		{"", "documents", roleTexts}, {"", "queries", roleTexts}, {"", "text_1", roleTexts}, {"", "text_2", roleTexts},
		{"", "data_1", roleTexts}, {"", "data_2", roleTexts}, {"", "items", roleTexts}}
)

func planTensorFlow(r *Reading) jsonPlan {
	switch r.Call.Verb {
	case "predict":
		return jsonPlan{keys: rowKeys[:]}
	case "classify", "regress":
		return jsonPlan{keys: exampleKeys[:]}
	}
	return jsonPlan{}
}

// planTriton takes every member of a body for generate for an input, as Triton does, and its parameters
// for some.
func planTriton(r *Reading) jsonPlan {
	switch r.Call.Verb {
	case "predict":
		return jsonPlan{keys: inferKeys[:], v2: true}
	case "generate":
		return jsonPlan{all: true}
	}
	return jsonPlan{}
}

// planV2 is also for the paths of version 1, whose bodies are as those of TensorFlow Serving.
func planV2(r *Reading) jsonPlan {
	if (r.Call.Verb == "predict" || r.Call.Verb == "explain") && strings.HasPrefix(r.Path, modelsPrefix) {
		return jsonPlan{keys: rowKeys[:]}
	}
	return planTriton(r)
}

func planMLflow(r *Reading) jsonPlan {
	if r.Call.Verb == "predict" {
		return jsonPlan{keys: tableKeys[:]}
	}
	return jsonPlan{}
}

// planOpenAI is for Ollama too, whose own API has the same names.
func planOpenAI(r *Reading) jsonPlan {
	var keys []jsonKey
	switch r.Call.Verb {
	case "chat":
		keys = answerKeys[:]
	case "complete", "generate":
		keys = promptKeys[:]
	case "embed", "moderate":
		keys = textKeys[:]
	case "rerank", "score", "classify":
		keys = pairKeys[:]
	case "predict":
		keys = invocationKeys[:]
	case "image":
		if strings.HasSuffix(r.Path, "/generations") { // others are forms
			keys = answerKeys[:]
		}
	}
	return jsonPlan{keys: keys}
}
