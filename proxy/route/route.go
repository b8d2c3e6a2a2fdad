// Package route finds the route of a request and applies the route's settings to messages: allowed
// addresses, cross-origin answers, header fields, path rewriting, compression and fixed answers. It
// also removes the fields that clients may never send.
//
// Each of these has one file with its section of gateway.yaml, the checks of that section, and the
// compiled form.
package route

import (
	"slices"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/credential"
	"sallyport/proxy/limit"
	"sallyport/proxy/ratelog"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// RequestIDField is the answer field with the id of the audit record.
const RequestIDField = "x-request-id"

// Route is one entry of `routes`, ready for use. It is immutable.
type Route struct {
	Name    string
	Methods []string       // empty: any
	Dialect *model.Dialect // the upstream's dialect
	Chain   *auth.Chain
	Logins  []string // that people may sign in with, by name; nil: none
	// StepUp is how callers must have proved themselves to their issuer; nil: in any way.
	StepUp *auth.StepUp
	Policy *policy.Policy
	// Candidate are the rules that are recorded and not enforced; nil if there are none.
	Candidate *policy.Policy
	Resource  *Resource // what clients without a token may learn; nil: nothing
	Backend             // where requests go
	// Backends are those of splits, by the names of their upstreams.
	Backends map[string]*Backend
	Digests  bool // one of the upstreams must receive the digest of all content
	Limits   Limits
	Timeouts upstream.Timeouts // zero values mean no limit
	Calls    CallTimeouts

	Access       Access
	Rewriting    Rewriting
	Release      *Release // nil: calls get what they name
	Paths        Paths
	ToUpstream   Edits
	Passed       Passed
	CodeTypes    []string // media types of content that runs code, in lower case, that are sent on
	ToClient     Edits
	Fixed        *Fixed                // nil: requests are forwarded
	CORS         *CORS                 // nil: none
	Compression  *Compression          // nil: none
	WebSocket    bool                  // upgrades are allowed
	Subprotocols auth.SubprotocolForms // in which a handshake may have the caller's credential
	// UpgradeWarned limits the warnings about WebSockets that the route ignores or its server refuses. All its
	// hosts share it.
	UpgradeWarned *ratelog.Rarely

	TakesPasswords       bool          // Authorization with Basic is the gateway's
	TakesAPIKeys         bool          // X-Api-Key and Api-Key are the gateway's
	ForwardAuthorization bool          // insecure_forward_authorization
	OwnsAuthorization    bool          // its servers take Authorization for the gateway's word, see OwnedFields
	Identity             IdentityNames // fields for the caller's identity
	Security             Security
	KeepServer           bool
	Integrity            seal.Policy
	Durable              setting.Durability // of the route's audit records
}

// Backend is an upstream with what the gateway shows to it and expects of it.
type Backend struct {
	Upstream   *upstream.Upstream // nil with a fixed answer
	Leg        seal.Leg
	Credential *credential.Credential // the gateway's own for the upstream; nil: none
}

// AddBackend adds an upstream of the route by its name: its own, or one of a split too.
func (r *Route) AddBackend(name string, b Backend, own bool) {
	if own {
		r.Backend = b
	}
	if r.Release.SplitsUpstreams() {
		if r.Backends == nil {
			r.Backends = map[string]*Backend{}
		}
		r.Backends[name] = &b
	}
}

// Limits are the limits of one route. The counters outlive the exchanges.
type Limits struct {
	Body     int64 // largest request body in bytes; zero: none
	Inflated int64 // largest message after decompression
	Most     model.Most
	Rates    limit.Rates
	InFlight *limit.InFlight // of the whole route
	Places   *limit.Places   // in flight too, by entries
	Headers  bool            // every answer tells what is left of the rates
}

// Count reports whether entries count the route's requests. Only the gateway then writes RateLimit.
func (l *Limits) Count() bool { return len(l.Rates) > 0 || l.Places.Count() }

// takes reports whether the route accepts a method.
func (r *Route) takes(method string) bool {
	return len(r.Methods) == 0 || slices.Contains(r.Methods, method)
}
