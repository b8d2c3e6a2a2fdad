package route

import (
	"errors"
	"slices"
	"strings"

	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// These errors of [Table.Match] say why no route was found.
var (
	// ErrNotFound means that no route has this host and path.
	ErrNotFound = errors.New("no route has this host and path")
	// ErrCase and ErrEnd mean that two servers could map the path to different routes.
	ErrCase = errors.New("path leads to another route if letter case is ignored")
	ErrEnd  = errors.New("path leads to a longer route if a slash at its end is ignored or added, or if a colon ends it")
)

// notFound is an [ErrNotFound] whose text says what was not found, a host or a path.
type notFound string

func (e notFound) Error() string { return string(e) }

// Is reports whether target is [ErrNotFound].
func (e notFound) Is(target error) bool { return target == ErrNotFound }

// ErrNoHost is the [ErrNotFound] for a host that no route names.
const ErrNoHost = notFound("no route names this host")

const errNoPath = notFound("the host has no route for this path")

// Reading is the error for a path that another server could map to another route. It wraps
// [ErrCase] or [ErrEnd].
type Reading struct {
	Err  error
	Path string // the path of the other route
}

func (e *Reading) Error() string { return e.Err.Error() + ": " + setting.Quoted(e.Path, 64) }

// Unwrap returns Err.
func (e *Reading) Unwrap() error { return e.Err }

// MethodError means that the path has routes, but none for the method.
type MethodError struct {
	Allow string // the accepted methods, in the form of the field Allow
}

func (e *MethodError) Error() string { return "the routes for this path take " + e.Allow }

// Table finds the route of a request. It is immutable.
type Table struct {
	exact    map[string]*hostRoutes // by host
	wildcard map[string]*hostRoutes // by the part after the first label, "example.com" for "*.example.com"
	dialects shared
}

// hostRoutes are the routes of one host. Paths are looked up by their segments, so that the cost
// does not grow with the number of routes.
type hostRoutes struct {
	exact    map[string][]*Route // by path
	prefixes map[string][]*Route

	// The same, from the lower-case path to the configured one; see Match.
	foldedExact    map[string]string
	foldedPrefixes map[string]string
	dialects       shared
	slashed        bool // some path other than "/" ends in a slash
	longest        int  // bytes of the longest prefix
	door           *Door
}

// shared is the one dialect of several routes.
type shared struct {
	dialect *model.Dialect
	mixed   bool
}

func (s *shared) add(d *model.Dialect) {
	s.mixed = s.mixed || s.dialect != nil && s.dialect != d
	s.dialect = d
}

// get returns raw if there is none, or more than one.
func (s *shared) get() *model.Dialect {
	if s.mixed || s.dialect == nil {
		return model.Raw()
	}
	return s.dialect
}

// Dialect returns the dialect that all routes of a host share, or raw if they have several; for
// "", the one of all routes.
func (t *Table) Dialect(host string) *model.Dialect {
	if host == "" {
		return t.dialects.get()
	}
	if h := t.host(host); h != nil {
		return h.dialects.get()
	}
	return model.Raw()
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
	h.dialects.add(r.Dialect)
	t.dialects.add(r.Dialect)
	h.add(path, r)
	h.addDoor(r)
}

func (h *hostRoutes) add(path string, r *Route) {
	h.slashed = h.slashed || len(path) > 1 && path != "=/" && strings.HasSuffix(path, "/")
	if exact, ok := strings.CutPrefix(path, "="); ok {
		h.exact[exact] = append(h.exact[exact], r)
		h.foldedExact[strings.ToLower(exact)] = exact
		return
	}
	h.longest = max(h.longest, len(path))
	h.prefixes[path] = append(h.prefixes[path], r)
	h.foldedPrefixes[strings.ToLower(path)] = path
}

// Match finds the route for a head: by host, exact before wildcard; then by path, exact before the
// longest prefix; then by method. Only the longest path counts. If no route of that path accepts
// the method, the answer is 405, so that a laxer route with a shorter path never serves a request
// meant for a stricter one.
//
// For the same reason Match refuses paths that some model servers would map to another route: by
// ignoring case, or by reading the end of the path differently. A path with [message.Forms] is
// looked up with these as data. The route found reports whether it accepts them, and no reading of them
// may lead to another route. If it merges slashes, Match merges those of head.Path.
func (t *Table) Match(head *message.Head) (*Route, error) {
	h := t.host(head.Host)
	if h == nil {
		return nil, ErrNoHost
	}
	if head.Forms != 0 {
		return h.matchForms(head)
	}
	r, _, err := h.match(head, head.Path)
	return r, err
}

// matchForms finds the route of a path that not every server reads in the same way.
func (h *hostRoutes) matchForms(head *message.Head) (*Route, error) {
	r, found, err := h.match(head, head.Path)
	if head.Forms&message.DoubleSlash != 0 {
		merged := message.MergeSlashes(head.Path)
		if m, path, mergedErr := h.match(head, merged); mergedErr == nil && m.Paths.merge {
			r, found, err = m, path, nil
			head.Path, head.Forms = merged, head.Forms&^message.DoubleSlash
		}
	}
	if errors.Is(err, ErrNotFound) {
		err = refusedForm(head, head.Forms)
	}
	if err != nil {
		return nil, err
	}
	if err := r.check(head); err != nil {
		return nil, err
	}
	if err := h.checkForms(head, found); err != nil {
		return nil, err
	}
	return r, nil
}

// match finds the route for a path, and the configured path that led there.
func (h *hostRoutes) match(head *message.Head, path string) (*Route, string, error) {
	found, routes := h.find(path)
	folded := strings.ToLower(path)
	if other := h.findFolded(folded); other != found {
		return nil, "", &Reading{ErrCase, other}
	}
	if len(routes) == 0 {
		return nil, "", errNoPath
	}
	if other := h.dodge(folded, found); other != "" {
		return nil, "", &Reading{ErrEnd, other}
	}
	if wanted := PreflightMethod(head); wanted != "" {
		for _, r := range routes {
			if r.CORS != nil && r.takes(wanted) {
				return r, found, nil // a preflight stands for the request that follows
			}
		}
	}
	for _, r := range routes {
		if r.takes(head.Method) {
			return r, found, nil
		}
	}
	return nil, "", &MethodError{Allow: allowed(routes)}
}

// find returns the routes for a path and the configured path that matched.
func (h *hostRoutes) find(path string) (string, []*Route) {
	if r := h.exact[path]; r != nil {
		return path, r
	}
	prefix, routes, _ := longestPrefix(h.prefixes, h.clip(path))
	return prefix, routes
}

// findFolded returns the configured path that a case-insensitive reader would have chosen.
func (h *hostRoutes) findFolded(folded string) string {
	if p, ok := h.foldedExact[folded]; ok {
		return p
	}
	_, configured, _ := longestPrefix(h.foldedPrefixes, h.clip(folded))
	return configured
}

// clip cuts what can be no part of a prefix, nor end one: the cost of a lookup must not
// grow with the square of what a client sends.
func (h *hostRoutes) clip(path string) string { return path[:min(len(path), h.longest+1)] }

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

// dodge returns the longer path that a path would match in the reading of some servers, or "" if
// there is none. They add or remove a slash at the end, or end a resource name at a colon, as in
// /v1/models/m:predict.
func (h *hostRoutes) dodge(folded, found string) string {
	if cut, slash := strings.CutSuffix(folded, "/"); slash {
		if cut != "" {
			if other := h.findFolded(cut); len(other) > len(found) {
				return other
			}
		}
	} else if h.slashed {
		if other := h.findFolded(folded + "/"); len(other) > len(found) {
			return other
		}
	}
	for i := len(found) + 1; i < min(len(folded), h.longest+1); i++ {
		if folded[i] != ':' {
			continue
		}
		if other, ok := h.foldedPrefixes[folded[:i]]; ok {
			return other
		}
	}
	return ""
}

// under reports whether path is prefix or below it, on a segment boundary.
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

// OnlyHost returns the one host that routes name; "" if they name several, or patterns.
func (t *Table) OnlyHost() string {
	if len(t.exact) == 1 && len(t.wildcard) == 0 {
		for host := range t.exact {
			return host
		}
	}
	return ""
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
