package model

import (
	"errors"
	"strings"
)

// ErrNoPlace is the error for a request into which no version of the model can be written.
var ErrNoPlace = errors.New("the request has no place for a version of the model")

// Open reports whether the call names no version of its model, so that a route may choose one. Calls of
// class management are not open: who loads or unloads a model must say what is meant.
func (c *Call) Open() bool {
	return c.Version == Latest && !c.Server && c.Class() != Management
}

// ChoosesVersions reports whether the gateway can write a version into requests to these servers.
func (d *Dialect) ChoosesVersions() bool { return d.withVersion != nil }

// CheckChoice checks a version that a route chooses for calls that name none. If it cannot be written
// into requests to these servers, it returns the problem and what to write instead; otherwise both are "".
func (d *Dialect) CheckChoice(version string) (problem, cure string) {
	switch {
	case !d.ChoosesVersions():
		return "requests to " + d.name + " servers cannot be given a version of a model", "remove the line"
	case version == Latest:
		return "is what these requests ask for anyway", "write a version such as 3, or remove the line"
	}
	if problem, cure = d.CheckVersion(version); problem != "" {
		return problem, strings.TrimSuffix(cure, ", or latest")
	}
	plain := strings.TrimPrefix(version, Label)
	if plain == "" || len(plain) > maxModelName || checkVersion([]byte(plain)) != nil {
		return "not one version or label", `write a version such as 3, or a label such as "label:stable", without stars`
	}
	if _, err := readNumber(version); d.versions != words && plain == version && err != nil {
		return "not a number of 63 bits", "write a version such as 3"
	}
	return "", ""
}

// WithVersion reads a request again, with a version in the path of its canonical form. The reading is
// that of the request in every other respect. r is what [Dialect.Read] has read from q. The error is
// [ErrNoPlace] for requests that have no place for a version.
func (d *Dialect) WithVersion(q *Request, r *Reading, version string) (Reading, error) {
	if d.withVersion == nil {
		return Reading{}, ErrNoPlace
	}
	path, ok := d.withVersion(r.Path, version)
	if !ok {
		return Reading{}, ErrNoPlace
	}
	again := *q
	again.Path, again.Query, again.HasQuery = path, r.Query, r.HasQuery
	got, err := d.Read(&again)
	want := r.Call
	want.Version = version
	if err != nil || got.Call != want {
		return Reading{}, ErrNoPlace
	}
	return got, nil
}

// insertSegments inserts segments behind the name that stands after prefix, and before the first of ends.
func insertSegments(path, prefix, ends, segments string) (string, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return "", false
	}
	i := strings.IndexAny(rest, ends)
	if i < 0 {
		i = len(rest)
	}
	return prefix + rest[:i] + segments + rest[i:], true
}
