package proxy

import (
	"errors"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// ReplaceConfig is the section `replace` of a route.
type ReplaceConfig struct {
	// Prefix is what the path that the upstream sees loses, on a segment boundary.
	// Default: the path of the route.
	Prefix string `yaml:"prefix"`
	// With is what stands there instead, such as /v2.
	With string `yaml:"with"`
}

// rewriting puts another prefix in the place of a path's own. It is made from
// prefixes that are canonical and works on paths that are, so its results need no
// second look: what was decided on and what is sent cannot come apart by
// normalising after the cut. The zero rewriting changes nothing.
type rewriting struct {
	on        bool
	cut, with string // without a slash at the end; "" is the whole of the site
	told      string // the prefix of which the upstream is told, "" for none
}

var errNotUnder = errors.New("the path does not lie under the prefix that is cut")

// newRewriting makes the rewriting of a route.
func newRewriting(c *RouteConfig) (rewriting, error) {
	if c.Strip == "" && c.Replace == nil {
		return rewriting{}, nil
	}
	w := rewriting{on: true, cut: c.Strip, told: c.Strip}
	if c.Replace != nil {
		w = rewriting{on: true, cut: c.replaced(), with: strings.TrimSuffix(c.Replace.With, "/")}
	}
	if !under(strings.TrimPrefix(c.Path, "="), w.cut) {
		return rewriting{}, errNotUnder
	}
	w.cut = strings.TrimSuffix(w.cut, "/")
	return w, nil
}

// replaced is the prefix that `replace` takes away.
func (r *RouteConfig) replaced() string {
	switch {
	case r.Replace.Prefix != "":
		return r.Replace.Prefix
	case r.Path == "":
		return "/"
	}
	return strings.TrimPrefix(r.Path, "=")
}

// target is what the upstream is asked for: the path less the prefix, never
// empty, and the query as it came.
func (w *rewriting) target(h *message.Head) (string, error) {
	if !w.on {
		return h.PathAndQuery(), nil
	}
	if !under(h.Path, w.cut) && w.cut != "" {
		return "", &refusal{reason: reasonInternal, cause: errNotUnder}
	}
	path := w.with + h.Path[len(w.cut):]
	if path == "" {
		path = "/"
	}
	if h.HasQuery {
		path += "?" + h.Query
	}
	return path, nil
}

// location is the path and query of the client's for one of the upstream's; what does
// not lie under the prefix that was put there stays as it is.
func (w *rewriting) location(path string) string {
	plain, rest := path, ""
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		plain, rest = path[:i], path[i:]
	}
	if !w.on || !under(plain, w.with) && w.with != "" {
		return path
	}
	return w.cut + plain[len(w.with):] + rest
}

// relocate turns a Location that names the upstream as the gateway asked it into the
// client's own way there, as nginx's proxy_redirect does: the upstream's name
// would lead the client nowhere, and is none of its business. Relative ones stay: an
// upstream that heeds X-Forwarded-Prefix has made them for the client.
func (x *exchange) relocate(h *message.Response, host string) {
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.Name != "location" {
			continue
		}
		rest, ok := strings.CutPrefix(f.Value, "http://")
		if !ok {
			if rest, ok = strings.CutPrefix(f.Value, "https://"); !ok {
				continue
			}
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if !strings.EqualFold(rest[:end], host) {
			continue
		}
		path := rest[end:]
		if path == "" || path[0] != '/' {
			path = "/" + path
		}
		f.Value = x.head.Scheme + "://" + x.head.Authority + x.route.rewriting.location(path)
	}
}

// checkRewriting records the faults of strip and replace.
func (r *RouteConfig) checkRewriting(at string, f *setting.Faults) {
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

// checkPrefix says whether a prefix is one that a canonical path can have.
func checkPrefix(at, prefix string, f *setting.Faults) bool {
	canonical, err := message.CanonicalPath(prefix)
	switch {
	case prefix[0] != '/':
		f.Add(at, prefix, "not a path", "write one that begins with a slash, such as /tf")
	case err != nil || strings.Contains(prefix, "*"):
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

// checkCovers sees that every path of the route has the prefix.
func (r *RouteConfig) checkCovers(at, prefix string, f *setting.Faults) {
	path := strings.TrimPrefix(r.Path, "=")
	if path == "" {
		path = "/"
	}
	if !under(path, prefix) {
		f.Add(at, prefix, "not all paths of the route begin with it", "write path: "+prefix+" in the route, or a prefix of its path")
	}
}
