package route

import (
	"errors"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// ReplaceConfig is the section `replace` of a route.
type ReplaceConfig struct {
	// Prefix is the prefix to remove from the path for the upstream, on a segment boundary.
	// Default: the path of the route.
	Prefix string `yaml:"prefix"`
	// With is the prefix to put in its place, such as /v2.
	With string `yaml:"with"`
}

// Rewriting replaces the prefix of a path. Prefixes and paths are canonical, so the results are
// too: normalisation after the cut could make the sent path differ from the authorized one. The
// zero Rewriting changes nothing.
type Rewriting struct {
	on        bool
	cut, with string // without a slash at the end; "" is the whole of the site
	Prefix    string // the value of X-Forwarded-Prefix; "" for none
}

var errNotUnder = errors.New("the path does not lie under the prefix that is cut")

// NewRewriting makes the rewriting of a route.
func NewRewriting(c *Config) (Rewriting, error) {
	if c.Strip == "" && c.Replace == nil {
		return Rewriting{}, nil
	}
	w := Rewriting{on: true, cut: c.Strip, Prefix: c.Strip}
	if c.Replace != nil {
		w = Rewriting{on: true, cut: c.replaced(), with: strings.TrimSuffix(c.Replace.With, "/")}
	}
	if !under(strings.TrimPrefix(c.Path, "="), w.cut) {
		return Rewriting{}, errNotUnder
	}
	w.cut = strings.TrimSuffix(w.cut, "/")
	return w, nil
}

// replaced returns the prefix that `replace` removes.
func (r *Config) replaced() string {
	switch {
	case r.Replace.Prefix != "":
		return r.Replace.Prefix
	case r.Path == "":
		return "/"
	}
	return strings.TrimPrefix(r.Path, "=")
}

// Target returns the target for the upstream: the rewritten path, never empty, and the query.
func (w *Rewriting) Target(h *message.Head) (string, error) {
	if !w.on {
		return h.PathAndQuery(), nil
	}
	if !under(h.Path, w.cut) && w.cut != "" {
		return "", errNotUnder
	}
	path := w.path(h.Path)
	if h.HasQuery {
		path += "?" + h.Query
	}
	return path, nil
}

// path returns the upstream's path for a path of the route.
func (w *Rewriting) path(path string) string {
	if !w.on || !under(path, w.cut) && w.cut != "" {
		return path
	}
	if path = w.with + path[len(w.cut):]; path == "" {
		return "/"
	}
	return path
}

// Location maps a path and query of the upstream to the client's. A path outside the inserted
// prefix stays unchanged.
func (w *Rewriting) Location(path string) string {
	plain, rest := path, ""
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		plain, rest = path[:i], path[i:]
	}
	if !w.on || !under(plain, w.with) && w.with != "" {
		return path
	}
	return w.cut + plain[len(w.with):] + rest
}

// checkRewriting records the faults of strip and replace.
func (r *Config) checkRewriting(at string, f *setting.Faults) {
	if r.Strip != "" && r.Replace != nil {
		f.Add(at+".replace", "", "stands beside strip, and only one of them can be meant", "remove one of the two")
		return
	}
	if r.Strip != "" && checkPrefix(at+".strip", r.Strip, f) {
		switch {
		case r.Strip == "/":
			f.Add(at+".strip", r.Strip, "leaves everything as it is", "write the prefix to cut, such as /tf, or remove the line")
		default:
			r.checkCovers(at+".strip", r.Strip, f)
		}
	}
	if r.Replace == nil {
		return
	}
	if p := r.Replace.Prefix; p != "" && checkPrefix(at+".replace.prefix", p, f) {
		r.checkCovers(at+".replace.prefix", p, f)
	}
	switch with := r.Replace.With; {
	case with == "":
		f.Add(at+".replace.with", "", "nothing to put in the place of the prefix", "write a path such as /v2; strip cuts without putting anything there")
	default:
		checkPrefix(at+".replace.with", with, f)
	}
}

// checkPrefix reports whether a canonical path can have the prefix.
func checkPrefix(at, prefix string, f *setting.Faults) bool {
	canonical, forms, err := message.CanonicalPath(prefix)
	switch {
	case prefix[0] != '/':
		f.Add(at, prefix, "not a path", "write one that begins with a slash, such as /tf")
	case err != nil || forms != 0 || strings.Contains(prefix, "*"):
		f.Add(at, prefix, "a path that no request can have", "write one without //, dots alone, escapes, ; ? # or *")
	case canonical != prefix:
		f.Add(at, prefix, "not in its canonical form, in which paths are compared", "write "+canonical)
	case prefix != "/" && strings.HasSuffix(prefix, "/"):
		f.Add(at, prefix, "ends with a slash", "write "+strings.TrimSuffix(prefix, "/")+": prefixes end where a segment ends")
	default:
		return true
	}
	return false
}

// checkCovers checks that every path of the route has the prefix.
func (r *Config) checkCovers(at, prefix string, f *setting.Faults) {
	path := strings.TrimPrefix(r.Path, "=")
	if path == "" {
		path = "/"
	}
	if !under(path, prefix) {
		f.Add(at, prefix, "not all paths of the route begin with it", "write path: "+prefix+" in the route, or a prefix of its path")
	}
}
