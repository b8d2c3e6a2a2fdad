package policy

import (
	"net/netip"

	"cel.dev/cel-go/cel"

	"sallyport/auth/identity"
	"sallyport/policy/model"
)

// Facts are what the key when of a rule may ask besides the caller and the call. They belong to one
// request and must not change while a decision about it may still be made.
type Facts struct {
	Method string
	Path   string // canonical, as the client sent it
	Host   string
	Client netip.Addr // seen through trusted proxies
	// Headers are the fields of the request by lower-case name, the lines of a field joined by ", ".
	// The gateway leaves out fields with credentials and those that it acts on itself.
	Headers map[string]string
	Size    int64 // of the content as the head declares it; negative if it does not

	TLS  string     // the version, such as "1.3"; "" without TLS
	Peer netip.Addr // the other end of the connection, which may be a proxy
	HTTP string     // "1.0", "1.1" or "2"

	// Recorded means that the request is known from its record alone. Then its headers, size, TLS version
	// and peer, and the caller's claims, are not known.
	Recorded bool
}

// variables are the names that an expression may use, with their types. A variable is missing where
// its value is not known, so that an expression about it fails: see [Rule].
var variables = [...]struct {
	name string
	of   *cel.Type
}{
	{"principal.name", cel.StringType},
	{"principal.source", cel.StringType},
	{"principal.alias", cel.StringType},
	{"principal.scopes", cel.ListType(cel.StringType)},
	{"principal.groups", cel.ListType(cel.StringType)},
	{"call.dialect", cel.StringType},
	{"call.verb", cel.StringType},
	{"call.class", cel.StringType},
	{"call.model", cel.StringType},
	{"call.version", cel.StringType},
	{"call.signature", cel.StringType},
	{"request.method", cel.StringType},
	{"request.path", cel.StringType},
	{"request.host", cel.StringType},
	{"request.client", cel.StringType},
	{"request.headers", cel.MapType(cel.StringType, cel.StringType)},
	{"request.size", cel.IntType},
	{"connection.tls", cel.StringType},
	{"connection.peer", cel.StringType},
	{"connection.http", cel.StringType},
}

// question is what an expression is evaluated with. It implements the Activation of package cel.
type question struct {
	caller *identity.Principal
	call   model.Call
	facts  *Facts
}

// Parent returns nil: there are no other variables.
func (q *question) Parent() cel.Activation { return nil }

// ResolveName returns the value of a variable, and whether it is known.
func (q *question) ResolveName(name string) (any, bool) {
	c := &q.call
	switch name {
	case "principal":
		return &claimant{q.caller, q.facts != nil && q.facts.Recorded}, true
	case "principal.name":
		return q.caller.Name, true
	case "principal.source":
		return q.caller.Source, true
	case "principal.alias":
		return q.caller.Alias, true
	case "principal.scopes":
		return q.caller.Scopes, true
	case "principal.groups":
		return q.caller.Groups, !q.caller.GroupsElsewhere
	case "call.dialect":
		return c.Dialect.Name(), true
	case "call.verb":
		return c.Verb, true
	case "call.class":
		return string(c.Class()), true
	case "call.model":
		return c.Model, c.Model != ""
	case "call.version":
		return c.Version, c.Version != ""
	case "call.signature":
		return c.Signature, true
	}
	if q.facts == nil {
		return nil, false
	}
	return q.facts.resolve(name)
}

func (f *Facts) resolve(name string) (any, bool) {
	known := !f.Recorded
	switch name {
	case "request.method":
		return f.Method, true
	case "request.path":
		return f.Path, true
	case "request.host":
		return f.Host, true
	case "request.client":
		return f.Client.String(), f.Client.IsValid()
	case "request.headers":
		return f.Headers, known
	case "request.size":
		return f.Size, known && f.Size >= 0
	case "connection.tls":
		return f.TLS, known
	case "connection.peer":
		return f.Peer.String(), known && f.Peer.IsValid()
	case "connection.http":
		return f.HTTP, true
	}
	return nil, false
}
