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
	return r.plan() != nil
}

// Counter returns a scanner of a body that only counts what o.Most limits. Its errors are [*TooMuch] and
// [ErrUncounted]. It is nil if [Reading.Counts] is false, and for gRPC calls, whose [Reading.Scanner]
// counts.
func (r *Reading) Counter(o ScanOptions) Scanner {
	if r.method != nil {
		return nil
	}
	p := r.plan()
	if p == nil {
		return nil
	}
	s := newJSONCounter(r, &o, p)
	if !countsType(r) {
		s = &countScanner{s, errCountType}
	}
	return &countScanner{inflated(s, &o), nil}
}

// plan returns what is counted in the body of a request without gRPC; nil for nothing.
func (r *Reading) plan() *jsonPlan {
	if d := r.Call.Dialect; d != nil && d.plan != nil && r.method == nil {
		return d.plan(r)
	}
	return nil
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
	planRows     = &jsonPlan{keys: []jsonKey{{"instances", roleRows, nil}, {"inputs", roleRows, nil}}}
	planExamples = &jsonPlan{keys: []jsonKey{{"examples", roleRows, nil}}}
	planInfer    = &jsonPlan{keys: []jsonKey{{"inputs", roleInputs, nil}}, v2: true}
	// planGenerate takes every member for an input, as Triton does, and its parameters for some.
	planGenerate = &jsonPlan{all: true}

	// planTable is that of MLflow's scoring server. pandas makes rows of an index or a column alone.
	planTable = &jsonPlan{keys: []jsonKey{
		{"dataframe_split", roleObject, &jsonPlan{keys: []jsonKey{{"data", roleRows, nil}, {"index", roleRows, nil}}}},
		{"dataframe_records", roleRows, nil}, {"instances", roleRows, nil}, {"inputs", roleRows, nil},
		{"prompt", roleRows, nil}, {"input", roleRows, nil}, {"n", roleTimes, nil},
	}}
)

// These keys are the same in OpenAI's API and those of its servers: n answers are computed for each text.
var (
	keyN      = jsonKey{"n", roleTimes, nil}
	keyBestOf = jsonKey{"best_of", roleTimes, nil}
	keyNCmpl  = jsonKey{"n_cmpl", roleTimes, nil} // llama.cpp
	keyPrompt = jsonKey{"prompt", roleTexts, nil}
	keyInput  = jsonKey{"input", roleTexts, nil}

	planAnswers = &jsonPlan{keys: []jsonKey{keyN, keyBestOf, keyNCmpl}}
	planPrompts = &jsonPlan{keys: []jsonKey{keyPrompt, keyN, keyBestOf, keyNCmpl,
		{"sampling_params", roleObject, &jsonPlan{keys: []jsonKey{keyN, keyBestOf}}}}}
	planTexts = &jsonPlan{keys: []jsonKey{keyInput, keyPrompt, {"content", roleTexts, nil}, {"inputs", roleTexts, nil},
		{"texts", roleTexts, nil}, {"images", roleTexts, nil}}}
	planPairs = &jsonPlan{keys: []jsonKey{keyInput, {"documents", roleTexts, nil}, {"texts", roleTexts, nil}, {"queries", roleTexts, nil},
		{"text_1", roleTexts, nil}, {"text_2", roleTexts, nil}, {"data_1", roleTexts, nil}, {"data_2", roleTexts, nil}, {"items", roleTexts, nil}}}
	// planInvocations is for /invocations of vLLM, which takes bodies of all its endpoints.
	planInvocations = &jsonPlan{keys: append(append(append([]jsonKey(nil), planPrompts.keys...), planTexts.keys...), planPairs.keys...)}
)

func planTensorFlow(r *Reading) *jsonPlan {
	switch r.Call.Verb {
	case "predict":
		return planRows
	case "classify", "regress":
		return planExamples
	}
	return nil
}

func planTriton(r *Reading) *jsonPlan {
	switch r.Call.Verb {
	case "predict":
		return planInfer
	case "generate":
		return planGenerate
	}
	return nil
}

// planV2 is also for the paths of version 1, whose bodies are as those of TensorFlow Serving.
func planV2(r *Reading) *jsonPlan {
	if (r.Call.Verb == "predict" || r.Call.Verb == "explain") && strings.HasPrefix(r.Path, modelsPrefix) {
		return planRows
	}
	return planTriton(r)
}

func planMLflow(r *Reading) *jsonPlan {
	if r.Call.Verb == "predict" {
		return planTable
	}
	return nil
}

func planOpenAI(r *Reading) *jsonPlan {
	if r.scanner == nil {
		return nil
	}
	switch r.Call.Verb {
	case "chat":
		return planAnswers
	case "complete", "generate":
		return planPrompts
	case "embed", "moderate":
		return planTexts
	case "rerank", "score", "classify":
		return planPairs
	case "predict":
		return planInvocations
	case "image":
		if strings.HasSuffix(r.Path, "/generations") {
			return planAnswers
		}
	}
	return nil
}

// planOllama is the same: Ollama's own API has a prompt or input, too.
func planOllama(r *Reading) *jsonPlan { return planOpenAI(r) }
