package model

import (
	"fmt"
	"slices"
	"strings"
)

// Config says which dialect an upstream's servers speak, and what the dialect cannot know.
type Config struct {
	// Serves is the dialect's name; "" means raw.
	Serves string
	// Model is the name of the one model that the servers have; "" if they have several or none. Only
	// flask, mlflow and sagemaker take one.
	Model string
	// Calls are the requests that the servers take, of the dialect flask; empty means all.
	Calls []CallConfig
}

// CallConfig is one kind of request to a web application.
type CallConfig struct {
	Method string // in upper or lower case; GET stands for HEAD too
	// Path is a path whose segments are literal, or {model} or {version} for any one segment.
	Path string
	Verb string // one of the verbs of rules, see [Dialect.Verbs]
}

// Fault is a fault of a [Config]. Key is its place, such as calls[1].path.
type Fault struct{ Key, Value, Problem, Cure string }

// New returns the dialect for a Config, or all faults of the Config. A Config that only names a
// dialect gets the one of [ByName].
func New(c *Config) (*Dialect, []Fault) {
	d, ok := ByName(c.Serves)
	if !ok {
		return nil, []Fault{{"serves", c.Serves, "no such dialect", "write one of " + strings.Join(Names(), ", ")}}
	}
	if c.Model == "" && len(c.Calls) == 0 {
		return d, nil
	}
	var faults []Fault
	if c.Model != "" {
		if d.one == nil {
			faults = append(faults, Fault{"model", c.Model, "servers of this dialect say by themselves which model a request is for", "remove the line; only flask, mlflow and sagemaker take it"})
		} else if err := checkName(c.Model); err != nil {
			faults = append(faults, Fault{"model", c.Model, err.Error(), "write a name of letters, digits, dots and dashes"})
		}
	}
	if len(c.Calls) > 0 && d.name != "flask" {
		faults = append(faults, Fault{"calls", "", "the gateway knows the requests of this dialect", "remove the list; only flask takes it"})
	}
	calls := make([]call, len(c.Calls))
	for i := range c.Calls {
		var more []Fault
		calls[i], more = newCall(&c.Calls[i], fmt.Sprintf("calls[%d]", i))
		faults = append(faults, more...)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return d.one(c.Model, calls), nil
}

// call is a compiled [CallConfig].
type call struct {
	method   string
	segments []string // without the first slash
	verb     string
}

const (
	modelSegment   = "{model}"
	versionSegment = "{version}"
)

func newCall(c *CallConfig, at string) (call, []Fault) {
	var faults []Fault
	add := func(key, value, problem, cure string) {
		faults = append(faults, Fault{at + "." + key, value, problem, cure})
	}
	got := call{method: strings.ToUpper(c.Method), verb: c.Verb}
	if problem, _ := checkMethod(strings.ToLower(c.Method)); problem != "" || got.method == "HEAD" {
		add("method", c.Method, "not a method of a call", "write one such as post; get stands for HEAD too")
	}
	if classOf(c.Verb) == "" {
		add("verb", c.Verb, "no such verb", "write one such as predict, metadata or health")
	}
	rest, ok := strings.CutPrefix(c.Path, "/")
	if !ok {
		add("path", c.Path, "not a path", "write one such as /predict/{model}")
		return got, faults
	}
	got.segments = strings.Split(rest, "/")
	for i, s := range got.segments {
		switch {
		case s == modelSegment, s == versionSegment:
			if slices.Contains(got.segments[:i], s) {
				add("path", c.Path, s+" stands twice", "remove one")
			}
		case strings.ContainsAny(s, "{}*%?#;\\") || s == "." || s == ".." || s == "" && i < len(got.segments)-1:
			add("path", c.Path, "a segment that is neither literal nor {model} or {version}", "write such as /predict/{model}")
			return got, faults
		}
	}
	return got, faults
}

// match reads a request by the call. ok is false if the path is another.
func (c *call) match(path string) (name, version string, ok bool) {
	rest := path[1:]
	for i, want := range c.segments {
		segment, more, deeper := strings.Cut(rest, "/")
		if deeper != (i < len(c.segments)-1) {
			return "", "", false
		}
		switch want {
		case modelSegment:
			name = segment
		case versionSegment:
			version = segment
		default:
			if segment != want {
				return "", "", false
			}
		}
		rest = more
	}
	return name, version, true
}

// names reports whether the path names the model.
func (c *call) names() bool { return slices.Contains(c.segments, modelSegment) }
