package route

import (
	"errors"
	"slices"
	"strings"

	"sallyport/proxy/message"
)

// These errors of [Table.Match] say why no route was found.
var (
	// ErrNotFound means that no route has this host and path.
	ErrNotFound = errors.New("no route has this host and path")
	// ErrCase and ErrEnd mean that two servers could map the path to different routes.
	ErrCase = errors.New("path leads to another route if letter case is ignored")
	ErrEnd  = errors.New("path leads to a longer route if a slash at its end is ignored or added, or if a colon ends it")
)

// MethodError means that the path has routes, but none for the method.
type MethodError struct {
	Allow string // the accepted methods, in the form of the field Allow
}

func (e *MethodError) Error() string { return "the routes for this path take " + e.Allow }

// Table finds the route of a request. It is immutable.
type Table struct {
	exact    map[string]*hostRoutes // by host
	wildcard map[string]*hostRoutes // by the part after the first label, "example.com" for "*.example.com"
}

// hostRoutes are the routes of one host. Paths are looked up by their segments, so that the cost
// does not grow with the number of routes.
type hostRoutes struct {
	exact    map[string][]*Route // by path
	prefixes map[string][]*Route

	// The same, from the lower-case path to the configured one; see Match.
	foldedExact    map[string]string
	foldedPrefixes map[string]string
	slashed        bool // some path other than "/" ends in a slash
}

// Add adds a route under a host pattern and a path, "=/path" for an exact one.
func (t *Table) Add(host, path string, r *Route) {
	table, key := &t.exact, host
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		table, key = &t.wildcard, rest
	}
	if *table == nil {
		*table = map[string]*hostRoutes{}
	}
	h := (*table)[key]
	if h == nil {
		h = &hostRoutes{exact: map[string][]*Route{}, prefixes: map[string][]*Route{}, foldedExact: map[string]string{}, foldedPrefixes: map[string]string{}}
		(*table)[key] = h
	}
	h.add(path, r)
}

func (h *hostRoutes) add(path string, r *Route) {
	h.slashed = h.slashed || len(path) > 1 && path != "=/" && strings.HasSuffix(path, "/")
	if exact, ok := strings.CutPrefix(path, "="); ok {
		h.exact[exact] = append(h.exact[exact], r)
		h.foldedExact[strings.ToLower(exact)] = exact
		return
	}
	h.prefixes[path] = append(h.prefixes[path], r)
	h.foldedPrefixes[strings.ToLower(path)] = path
}

// Match finds the route for a head: by host, exact before wildcard; then by path, exact before the
// longest prefix; then by method. Only the longest path counts. If no route of that path accepts
// the method, the answer is 405, so that a laxer route with a shorter path never serves a request
// meant for a stricter one.
//
// For the same reason Match refuses paths that some model servers would map to another route: by
// ignoring case, or by reading the end of the path differently.
func (t *Table) Match(head *message.Head) (*Route, error) {
	h := t.host(head.Host)
	if h == nil {
		return nil, ErrNotFound
	}
	path, routes := h.find(head.Path)
	folded := strings.ToLower(head.Path)
	if h.findFolded(folded) != path {
		return nil, ErrCase
	}
	if len(routes) == 0 {
		return nil, ErrNotFound
	}
	if h.dodges(folded, path) {
		return nil, ErrEnd
	}
	if wanted := PreflightMethod(head); wanted != "" {
		for _, r := range routes {
			if r.CORS != nil && r.takes(wanted) {
				return r, nil // a preflight stands for the request that follows
			}
		}
	}
	for _, r := range routes {
		if r.takes(head.Method) {
			return r, nil
		}
	}
	return nil, &MethodError{Allow: allowed(routes)}
}

// find returns the routes for a path and the configured path that matched.
func (h *hostRoutes) find(path string) (string, []*Route) {
	if r := h.exact[path]; r != nil {
		return path, r
	}
	prefix, routes, _ := longestPrefix(h.prefixes, path)
	return prefix, routes
}

// findFolded returns the configured path that a case-insensitive reader would have chosen.
func (h *hostRoutes) findFolded(folded string) string {
	if p, ok := h.foldedExact[folded]; ok {
		return p
	}
	_, configured, _ := longestPrefix(h.foldedPrefixes, folded)
	return configured
}

// longestPrefix finds the longest key that path lies under, see under.
func longestPrefix[V any](all map[string]V, path string) (prefix string, v V, ok bool) {
	if v, ok = all[path]; ok {
		return path, v, true
	}
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] != '/' {
			continue
		}
		if v, ok = all[path[:i+1]]; ok {
			return path[:i+1], v, true
		}
		if v, ok = all[path[:i]]; ok {
			return path[:i], v, true
		}
	}
	return "", v, false
}

// dodges reports whether a path would match a longer one as some servers read it: with or without a
// slash at its end, or with a colon that ends a resource name, as in /v1/models/m:predict.
func (h *hostRoutes) dodges(folded, found string) bool {
	if cut, slash := strings.CutSuffix(folded, "/"); slash {
		if cut != "" && len(h.findFolded(cut)) > len(found) {
			return true
		}
	} else if h.slashed && len(h.findFolded(folded+"/")) > len(found) {
		return true
	}
	for i := len(found) + 1; i < len(folded); i++ {
		if folded[i] != ':' {
			continue
		}
		if _, ok := h.foldedPrefixes[folded[:i]]; ok {
			return true
		}
	}
	return false
}

// under says whether path is prefix or lies below it, on a segment boundary.
func under(path, prefix string) bool {
	if !strings.HasPrefix(path, prefix) {
		return false
	}
	return len(path) == len(prefix) || strings.HasSuffix(prefix, "/") || path[len(prefix)] == '/'
}

// allowed lists the methods that any of the routes accepts.
func allowed(routes []*Route) string {
	var all []string
	for _, r := range routes {
		all = append(all, r.Methods...)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// Serves reports whether any route names the host.
func (t *Table) Serves(host string) bool { return t.host(host) != nil }

// host finds the routes of a host: an exact name before a wildcard label.
func (t *Table) host(host string) *hostRoutes {
	if h := t.exact[host]; h != nil {
		return h
	}
	_, rest, _ := strings.Cut(host, ".")
	return t.wildcard[rest]
}
