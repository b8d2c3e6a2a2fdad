package proxy

import (
	"slices"
	"strings"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// route is one entry of `routes:`, ready for use. It is immutable.
type route struct {
	name     string
	methods  []string       // empty: any
	dialect  *model.Dialect // of the upstream
	chain    *auth.Chain
	policy   *policy.Policy
	upstream *upstream.Upstream
	limits   routeLimits
	timeouts timeouts

	access        access
	rewriting     rewriting
	toUpstream    edits
	toClient      edits
	fixed         *fixed       // nil: forwarded
	cors          *cors        // nil: none
	compression   *compression // nil: none
	websocket     bool
	authorization bool          // insecure_forward_authorization
	identity      identityNames // fields that tell the upstream who calls
	security      message.Fields
	keepServer    bool
	integrity     routeIntegrity
	upstreamLeg   upstreamLeg
}

// routeIntegrity is what a route does about signatures.
type routeIntegrity struct {
	body             string // buffer, stream or headers_only
	streams          bool   // content that is vouched for is compared on its way
	buffer           int64  // the longest content that is held, in bytes
	forwardSignature bool   // the client's goes on to the upstream
	unsigned         bool   // answers are never signed
	responseBuffer   int64  // the longest answer that is signed in its head, in bytes
	inline           bool   // events are signed by a comment at their end
}

// identityNames are the lower-case names of the identity fields; "" leaves one out.
type identityNames struct{ principal, scopes, requestID string }

// routeTable finds the route of a request. It is immutable.
type routeTable struct {
	exact    map[string]*hostRoutes // by host
	wildcard map[string]*hostRoutes // by what follows the first label, "example.com" for "*.example.com"
}

// hostRoutes are the routes of one host.
type hostRoutes struct {
	exact    map[string][]*route // by path
	prefixes []prefixRoutes      // longest first

	// The same, by lower-case path; see match.
	foldedExact    map[string]string
	foldedPrefixes []foldedPrefix
	slashed        bool // some path, but "/", ends in a slash
}

type prefixRoutes struct {
	prefix string
	routes []*route
}

type foldedPrefix struct{ folded, prefix string }

// add enters a route under a host pattern and a path, "=/path" for an exact one.
func (t *routeTable) add(host, path string, r *route) {
	table, key := &t.exact, host
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		table, key = &t.wildcard, rest
	}
	if *table == nil {
		*table = map[string]*hostRoutes{}
	}
	h := (*table)[key]
	if h == nil {
		h = &hostRoutes{exact: map[string][]*route{}, foldedExact: map[string]string{}}
		(*table)[key] = h
	}
	h.add(path, r)
}

func (h *hostRoutes) add(path string, r *route) {
	h.slashed = h.slashed || len(path) > 1 && path != "=/" && strings.HasSuffix(path, "/")
	if exact, ok := strings.CutPrefix(path, "="); ok {
		h.exact[exact] = append(h.exact[exact], r)
		h.foldedExact[strings.ToLower(exact)] = exact
		return
	}
	for i := range h.prefixes {
		if h.prefixes[i].prefix == path {
			h.prefixes[i].routes = append(h.prefixes[i].routes, r)
			return
		}
	}
	h.prefixes = append(h.prefixes, prefixRoutes{path, []*route{r}})
	slices.SortStableFunc(h.prefixes, func(a, b prefixRoutes) int { return len(b.prefix) - len(a.prefix) })
	h.foldedPrefixes = h.foldedPrefixes[:0]
	for _, p := range h.prefixes {
		h.foldedPrefixes = append(h.foldedPrefixes, foldedPrefix{strings.ToLower(p.prefix), p.prefix})
	}
}

// match finds the route for a head: by host, exact before wildcard; then by
// path, exact before the longest prefix; then by method. The longest path
// decides alone: where no route of that path takes the method, the answer is
// 405, and no shorter path is tried, so a laxer route never catches what a
// stricter one was written for.
//
// For the same reason a path that would lead elsewhere if letter case were
// ignored is refused, and one that would lead to a longer path if its end were
// read otherwise: some model servers do read so.
func (t *routeTable) match(head *message.Head) (*route, error) {
	h := t.host(head.Host)
	if h == nil {
		return nil, &refusal{reason: reasonNoRoute}
	}
	path, routes := h.find(head.Path)
	folded := strings.ToLower(head.Path)
	if h.findFolded(folded) != path {
		return nil, &refusal{reason: reasonAmbiguousPath, cause: errCase}
	}
	if len(routes) == 0 {
		return nil, &refusal{reason: reasonNoRoute}
	}
	if h.dodges(folded, path) {
		return nil, &refusal{reason: reasonAmbiguousPath, cause: errEnd}
	}
	if wanted := preflightMethod(head); wanted != "" {
		for _, r := range routes {
			if r.cors != nil && r.takes(wanted) {
				return r, nil // it answers for the request that is to come
			}
		}
	}
	for _, r := range routes {
		if r.takes(head.Method) {
			return r, nil
		}
	}
	return nil, &refusal{reason: reasonMethod, allow: allowed(routes)}
}

// takes says whether the route takes requests with a method.
func (r *route) takes(method string) bool {
	return len(r.methods) == 0 || slices.Contains(r.methods, method)
}

// find returns the routes for a path and the configured path that led there.
func (h *hostRoutes) find(path string) (string, []*route) {
	if r := h.exact[path]; r != nil {
		return path, r
	}
	for i := range h.prefixes {
		if p := &h.prefixes[i]; under(path, p.prefix) {
			return p.prefix, p.routes
		}
	}
	return "", nil
}

// findFolded returns the configured path that a reader without regard for letter
// case would have chosen.
func (h *hostRoutes) findFolded(folded string) string {
	if p, ok := h.foldedExact[folded]; ok {
		return p
	}
	for i := range h.foldedPrefixes {
		if p := &h.foldedPrefixes[i]; under(folded, p.folded) {
			return p.prefix
		}
	}
	return ""
}

// dodges says whether a path for which a route was found would lead to a longer
// one if it were read as some servers do: with or without a slash at its end, or
// with a colon that ends the name of a resource, as in /v1/models/m:predict.
func (h *hostRoutes) dodges(folded, found string) bool {
	if cut, slash := strings.CutSuffix(folded, "/"); slash {
		if cut != "" && len(h.findFolded(cut)) > len(found) {
			return true
		}
	} else if h.slashed && len(h.findFolded(folded+"/")) > len(found) {
		return true
	}
	for i := range h.foldedPrefixes {
		p := h.foldedPrefixes[i].folded
		if len(p) <= len(found) {
			return false // the rest are shorter still
		}
		if len(folded) > len(p) && folded[len(p)] == ':' && folded[:len(p)] == p {
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

// allowed lists the methods that some route takes.
func allowed(routes []*route) string {
	var all []string
	for _, r := range routes {
		all = append(all, r.methods...)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// serves says whether some route names the host.
func (t *routeTable) serves(host string) bool { return t.host(host) != nil }

// host finds the routes of a host: an exact name before a wildcard label.
func (t *routeTable) host(host string) *hostRoutes {
	if h := t.exact[host]; h != nil {
		return h
	}
	_, rest, _ := strings.Cut(host, ".")
	return t.wildcard[rest]
}
