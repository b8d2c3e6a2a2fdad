// Package route says by which route a request goes, and what a route does to messages
// on their way: who may reach it by address, cross-origin answers, header fields, path
// rewriting, compression, fixed answers, and the fields that clients may never send.
//
// Each of these has its section of gateway.yaml, the checks of that section, and what
// the section becomes, in one file.
package route

import (
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// RequestIDField tells every caller the id under which the record is found.
const RequestIDField = "x-request-id"

// Route is one entry of `routes`, ready for use. It is immutable.
type Route struct {
	Name     string
	Methods  []string       // empty: any
	Dialect  *model.Dialect // of the upstream
	Chain    *auth.Chain
	Policy   *policy.Policy
	Upstream *upstream.Upstream // nil with a fixed answer
	Limits   Limits
	Timeouts upstream.Timeouts // zero values are no bounds

	Access      Access
	Rewriting   Rewriting
	Paths       Paths
	ToUpstream  Edits
	ToClient    Edits
	Fixed       *Fixed       // nil: forwarded
	CORS        *CORS        // nil: none
	Compression *Compression // nil: none
	WebSocket   bool         // upgrades are allowed

	ForwardAuthorization bool          // insecure_forward_authorization
	Identity             IdentityNames // fields that tell the upstream who calls
	Security             message.Fields
	KeepServer           bool
	Integrity            seal.Policy
	Leg                  seal.Leg
}

// Limits are the bounds of one route. The counts outlive the exchanges.
type Limits struct {
	Body     int64 // largest request body in bytes; zero: none
	Rates    limit.Rates
	InFlight *limit.InFlight
}

// IdentityNames are the lower-case names of the identity fields; "" leaves one out.
type IdentityNames struct{ Principal, Scopes, RequestID string }

// All are the names that are not left out.
func (n *IdentityNames) All() []string {
	return slices.DeleteFunc([]string{n.Principal, n.Scopes, n.RequestID}, func(s string) bool { return s == "" })
}

// NewTimeouts compiles a section that has a value for everything.
func NewTimeouts(c TimeoutsConfig) upstream.Timeouts {
	bound := func(t setting.Timeout) time.Duration {
		if t == setting.Never {
			return 0
		}
		return t.D()
	}
	return upstream.Timeouts{Connect: c.Connect.D(), Head: bound(c.Head), Idle: bound(c.Idle), Total: bound(c.Total)}
}

// takes says whether the route takes requests with a method.
func (r *Route) takes(method string) bool {
	return len(r.Methods) == 0 || slices.Contains(r.Methods, method)
}

// SecurityFields are what every answer carries unless the upstream set its own: what
// Flask-Talisman sends, less the obsolete X-XSS-Protection. With a certificate of the
// development authority (local) there is no HSTS, which would lock a browser out of a
// host whose next certificate it does not know.
func SecurityFields(set map[string]string, local bool) message.Fields {
	all := message.Fields{
		{Name: "x-frame-options", Value: "SAMEORIGIN"},
		{Name: "x-content-type-options", Value: "nosniff"},
		{Name: "content-security-policy", Value: "default-src 'self'; object-src 'none'"},
		{Name: "strict-transport-security", Value: "max-age=31556926; includeSubDomains"},
		{Name: "referrer-policy", Value: "strict-origin-when-cross-origin"},
	}
	for name, value := range set {
		name = strings.ToLower(name)
		if value == off {
			all.Del(name)
		} else {
			all.Set(name, value)
		}
	}
	if local {
		all.Del("strict-transport-security")
	}
	slices.SortFunc(all, func(a, b message.Field) int { return strings.Compare(a.Name, b.Name) })
	return all
}
