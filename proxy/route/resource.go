package route

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
)

// ResourcePath begins the paths of documents about protected resources (RFC 9728, section 3.1).
// The path of the resource follows it.
const ResourcePath = "/.well-known/oauth-protected-resource"

// Resource is what clients may learn about a route before they have a token (RFC 9728): who issues
// tokens for it, and with which scopes. It is immutable.
type Resource struct {
	path            string // of the route; "" for "/"
	servers, scopes []string
	bound           bool // tokens must be bound to a client certificate
}

// NewResource returns the resource of a route with this path. It returns nil if no servers issue
// tokens for it. Scopes are those that rules mention, and may be repeated.
func NewResource(path string, servers, scopes []string, bound bool) *Resource {
	if len(servers) == 0 {
		return nil
	}
	r := &Resource{path: strings.TrimPrefix(path, "="), servers: servers, bound: bound}
	if r.path == "/" {
		r.path = ""
	}
	r.add(nil, scopes)
	return r
}

// add adds servers and scopes that the resource does not have yet.
func (r *Resource) add(servers, scopes []string) {
	for _, s := range servers {
		if !slices.Contains(r.servers, s) {
			r.servers = append(r.servers, s)
		}
	}
	for _, s := range scopes {
		if !slices.Contains(r.scopes, s) {
			r.scopes = append(r.scopes, s)
		}
	}
}

// URL returns the URL of the document. origin is scheme, host and port as clients see them.
func (r *Resource) URL(origin string) string { return origin + ResourcePath + r.path }

// Document returns the document.
func (r *Resource) Document(origin string) []byte {
	text, err := json.Marshal(struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
		Scopes   []string `json:"scopes_supported,omitempty"`
		Methods  []string `json:"bearer_methods_supported"`
		Bound    bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	}{origin + r.path, r.servers, r.scopes, []string{"header"}, r.bound})
	if err != nil {
		return nil // impossible: these are strings
	}
	return append(text, '\n')
}

// Resource returns the resource that the document under a path describes, nil if the path is not
// reserved: only paths that a route with issuers would take are. A route whose own path is at or
// below ResourcePath keeps its requests. Routes that refuse the client's address do not count.
// Several routes of one path, for different methods, are one resource.
func (t *Table) Resource(host, path string, client netip.Addr) *Resource {
	rest, ok := strings.CutPrefix(path, ResourcePath)
	h := t.host(host)
	if !ok || rest != "" && rest[0] != '/' || h == nil {
		return nil
	}
	if own, _ := h.find(path); under(own, ResourcePath) {
		return nil
	}
	if rest == "" {
		rest = "/"
	}
	var all *Resource
	_, routes := h.find(rest)
	for _, r := range routes {
		switch {
		case r.Resource == nil || !r.Access.Admits(client):
		case all == nil:
			one := *r.Resource
			one.servers, one.scopes = slices.Clone(one.servers), slices.Clone(one.scopes)
			all = &one
		default:
			all.add(r.Resource.servers, r.Resource.scopes)
			all.bound = all.bound && r.Resource.bound
		}
	}
	return all
}
