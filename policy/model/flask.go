package model

import "slices"

// flask is the dialect of Python web applications. WSGI and ASGI hand an application
// the body as it arrives, so it may act before the end.
func flask() *Dialect {
	return &Dialect{name: "flask", rest: readMethod, refusal: problem, one: newFlask}
}

// newFlask returns the dialect of web applications that have one model, or that take certain calls
// only.
func newFlask(name string, calls []call) *Dialect {
	d := &Dialect{name: "flask", refusal: problem, namesModels: name != ""}
	if len(calls) == 0 {
		d.rest = func(r *Request) (Reading, error) {
			got, err := readMethod(r)
			got.Call.Model = name
			return got, err
		}
		return d
	}
	for i := range calls {
		d.namesModels = d.namesModels || calls[i].names()
		if slices.Contains(calls[i].segments, versionSegment) {
			d.versions = words
		}
		if !slices.Contains(d.verbs, calls[i].verb) {
			d.verbs = append(d.verbs, calls[i].verb)
		}
	}
	d.rest = func(r *Request) (Reading, error) { return readTable(r, name, calls) }
	return d
}

// readTable reads a request by a table of calls, the first that fits. Applications decode a path
// once before they route it.
func readTable(r *Request, only string, calls []call) (Reading, error) {
	allow := ""
	for i := range calls {
		c := &calls[i]
		name, version, ok := c.match(r.Path)
		switch {
		case !ok:
			continue
		case !is(r, c.method):
			allow = withMethod(allow, c.method)
			continue
		}
		got := Reading{Call: Call{Verb: c.verb, Model: only}, Path: r.Path, Query: r.Query, HasQuery: r.HasQuery}
		var err error
		if c.names() {
			if got.Call.Model, err = readName(name); err != nil {
				return Reading{}, err
			}
		}
		if slices.Contains(c.segments, versionSegment) {
			if got.Call.Version, err = readName(version); err != nil {
				return Reading{}, err
			}
			if err := checkVersion([]byte(got.Call.Version)); err != nil {
				return Reading{}, &Unread{Reason: BadName, Cause: err.Error()}
			}
		}
		if class := classOf(c.verb); got.Call.Model == "" || class == Metadata && !c.names() {
			got.Call.Server, got.Call.Model = true, ""
		}
		return got, nil
	}
	if allow != "" {
		return Reading{}, wrongMethod(r, allow)
	}
	return Reading{}, unknownPath("flask", r)
}
