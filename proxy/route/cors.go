package route

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// CORSConfig is the section `cors` of a route: the pages of other sites that may call it from a
// browser.
type CORSConfig struct {
	// Origins are the origins of the pages, byte for byte as browsers send them, such as
	// https://demo.example.com; or "*" alone for all pages.
	Origins setting.List[string] `yaml:"origins"`
	// Methods that pages may use. Default: those of the route, or GET, HEAD and POST.
	Methods setting.List[string] `yaml:"methods"`
	// Headers are the request fields that pages may set. Default: Authorization
	// and Content-Type.
	Headers setting.List[string] `yaml:"headers"`
	// Expose are the answer fields that pages may read, in addition to X-Request-Id.
	Expose setting.List[string] `yaml:"expose"`
	// MaxAge is how long a browser may remember the permission. Default: 10m.
	MaxAge setting.Duration `yaml:"max_age"`
	// Credentials lets pages send cookies and client certificates; bearer tokens do not need it.
	Credentials bool `yaml:"credentials"`
}

// CORS writes the answers' CORS fields for a route. It is immutable.
type CORS struct {
	any         bool
	origins     []string
	credentials bool
	expose      string
	Preflight   message.Fields // fields of every preflight answer
}

// NewCORS returns nil if the route has no such section.
func NewCORS(r *Config) *CORS {
	c := r.CORS
	if c == nil {
		return nil
	}
	methods := slices.Clone(c.Methods)
	if len(methods) == 0 {
		methods = slices.Clone(r.Methods)
	}
	if len(methods) == 0 {
		methods = setting.List[string]{"GET", "HEAD", "POST"}
	}
	headers := c.Headers
	if len(headers) == 0 {
		headers = setting.List[string]{"authorization", "content-type"}
	}
	expose := append(setting.List[string]{"x-request-id"}, c.Expose...)
	return &CORS{
		any:         slices.Contains(c.Origins, "*"),
		origins:     slices.Clone(c.Origins),
		credentials: c.Credentials,
		expose:      strings.ToLower(strings.Join(expose, ", ")),
		Preflight: message.Fields{
			{Name: "access-control-allow-methods", Value: strings.Join(methods, ", ")},
			{Name: "access-control-allow-headers", Value: strings.ToLower(strings.Join(headers, ", "))},
			{Name: "access-control-max-age", Value: strconv.FormatInt(int64(c.MaxAge.Or(10*time.Minute)/time.Second), 10)},
		},
	}
}

// PreflightMethod returns the method that a preflight asks about, "" for any other request. A
// preflight never carries a credential, so it is recognized by its form.
func PreflightMethod(h *message.Head) string {
	if h.Method != http.MethodOptions || h.Fields.Count("origin") != 1 || h.Fields.Count("access-control-request-method") != 1 {
		return ""
	}
	return h.Fields.Get("access-control-request-method")
}

// Admits reports whether pages of an origin may call.
func (c *CORS) Admits(origin string) bool {
	return origin != "" && (c.any || slices.Contains(c.origins, origin))
}

// AdmitsCredentials reports whether pages of an origin may call with what browsers add by themselves. The
// nil CORS admits none.
func (c *CORS) AdmitsCredentials(origin string) bool {
	return c != nil && c.credentials && c.Admits(origin)
}

// Mark replaces the upstream's CORS fields by those of the route. For unlisted origins and requests
// that no page made, it writes only Vary, so that a cache does not mix up answers for pages and
// others.
func (c *CORS) Mark(h *message.Fields, request message.Fields) {
	h.DelFunc(func(f message.Field) bool { return strings.HasPrefix(f.Name, "access-control-") })
	origin := ""
	if request.Count("origin") == 1 {
		origin = request.Get("origin")
	}
	h.AddVary("Origin") // with "*" too: the answer depends on whether the request has an Origin
	if !c.Admits(origin) {
		return
	}
	if c.any {
		origin = "*"
	}
	h.Add("access-control-allow-origin", origin)
	if c.credentials {
		h.Add("access-control-allow-credentials", "true")
	}
	h.Add("access-control-expose-headers", c.expose)
}

// check records the faults of the section.
func (c *CORSConfig) check(at string, f *setting.Faults) {
	if len(c.Origins) == 0 {
		f.Add(at+".origins", "", "no page may call", `list origins such as https://demo.example.com, or "*" for every page there is`)
	}
	for i, o := range c.Origins {
		at := setting.Index(at+".origins", i)
		switch {
		case o == "*" && len(c.Origins) > 1:
			f.Add(at, o, "stands beside others, which it includes", "remove it, or the others")
		case o == "*" && c.Credentials:
			f.Add(at, o, "with credentials every page there is could act as whoever visits it", "list the origins, or remove credentials")
		case o == "*":
		case slices.Index(c.Origins, o) < i:
			f.Add(at, o, "is listed twice", "remove one of the two")
		default:
			if problem, cure := badOrigin(o, c.Credentials); problem != "" {
				f.Add(at, o, problem, cure)
			}
		}
	}
	for i, m := range c.Methods {
		if !message.ValidName(m) || m == "*" || m != strings.ToUpper(m) || m == http.MethodConnect {
			f.Add(setting.Index(at+".methods", i), m, "not a method", "write some such as [GET, POST]")
		}
	}
	for _, l := range []struct {
		name  string
		names []string
	}{{"headers", c.Headers}, {"expose", c.Expose}} {
		for i, n := range l.names {
			if !message.ValidName(n) || n == "*" {
				f.Add(setting.Index(at+"."+l.name, i), n, "not a field name", "list names such as Content-Type")
			}
		}
	}
	if c.MaxAge.D() > 24*time.Hour {
		f.Add(at+".max_age", c.MaxAge.String(), "longer than any browser remembers", "write 24h or less")
	}
}

// badOrigin says why no browser would send an origin, or why it is unsafe.
func badOrigin(o string, credentials bool) (problem, cure string) {
	scheme, rest, ok := strings.Cut(o, "://")
	authority, host, err := message.CanonicalAuthority(rest, scheme)
	switch {
	case o == "null":
		return "is what pages without an origin send, and any page can make itself one of them", "list the origins of the pages"
	case strings.Contains(o, "*"):
		return "origins are compared as a whole", `list each of them, or write "*" alone`
	case !ok || !message.ValidName(scheme):
		return "not an origin", "write scheme and host, such as https://demo.example.com"
	case strings.Contains(rest, "/"):
		return "an origin has no path", "write " + scheme + "://" + rest[:strings.IndexByte(rest, '/')]
	case err != nil:
		return "not an origin", "write scheme and host, such as https://demo.example.com"
	case scheme+"://"+authority != o || strings.ToLower(scheme) != scheme:
		return "not as browsers write it", "write " + strings.ToLower(scheme) + "://" + authority
	case credentials && scheme == "http" && host != "localhost" && !strings.HasSuffix(host, ".localhost") && host != "127.0.0.1" && host != "[::1]":
		return "whoever is between it and its visitors could act as them", "write https://" + authority + ", or remove credentials"
	}
	return "", ""
}
