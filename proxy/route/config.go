package route

import (
	"slices"
	"strings"

	"sallyport/policy"
	"sallyport/proxy/limit"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
)

// off is what switches a thing off that has a default.
const off = "off"

// Anonymous is what routes without authentication list under callers.
const Anonymous = "anonymous"

// TimeoutsConfig is a section `timeouts`. A route's goes before the file's. Where
// neither says anything, what the upstream serves decides: openai and ollama,
// which may think for minutes, get more time.
type TimeoutsConfig struct {
	// Connect is how long connecting to an upstream may take, TLS included. Default: 5s.
	Connect setting.Duration `yaml:"connect"`
	// Head is how long an upstream may take from the request to the head of its
	// answer. Default: 60s; 10m where the upstream serves openai or ollama.
	Head setting.Timeout `yaml:"head"`
	// Idle is how long a body may rest, either way, before the exchange is given
	// up; WebSocket connections too. Default: 60s; 5m where the upstream serves
	// openai or ollama.
	Idle setting.Timeout `yaml:"idle"`
	// Total bounds a whole exchange. Default: never, so that streams may go on.
	Total setting.Timeout `yaml:"total"`
}

// Or is t, with what it leaves open taken from rest.
func (t TimeoutsConfig) Or(rest TimeoutsConfig) TimeoutsConfig {
	if t.Connect == 0 {
		t.Connect = rest.Connect
	}
	if t.Head == 0 {
		t.Head = rest.Head
	}
	if t.Idle == 0 {
		t.Idle = rest.Idle
	}
	if t.Total == 0 {
		t.Total = rest.Total
	}
	return t
}

// Config is one entry of `routes`.
type Config struct {
	// Name is how records and metrics call the route. Default: its first host and
	// its path, after its methods where it lists some.
	Name string `yaml:"name"`
	// Host is the name, or several, that clients call: models.example.com, or
	// "*.example.com" for any one label in the place of the star.
	Host setting.List[string] `yaml:"host"`
	// Path is where the route begins, on a segment boundary: /v1 is /v1 and
	// /v1/models, not /v1beta. The longest path wins. "=/v1" is that path alone.
	// Default: "/".
	Path string `yaml:"path"`
	// Strip is a prefix of the path that the upstream does not see: with /tf it is
	// asked for /v1 where the client asked for /tf/v1. Everything else, from the
	// route to the rules and the record, goes by the path as the client sent it.
	// The upstream learns the prefix from X-Forwarded-Prefix.
	Strip string `yaml:"strip"`
	// Replace puts another prefix in the place of one.
	Replace *ReplaceConfig `yaml:"replace"`
	// Methods are the HTTP methods that the route takes, in upper or lower case. Default: all.
	Methods setting.List[string] `yaml:"methods"`
	// Upstream is a name under upstreams, or a URL.
	Upstream string `yaml:"upstream"`
	// Serves says what kind of server the URL in upstream is: raw, flask,
	// tensorflow, triton, openai or ollama. Default: raw.
	Serves string `yaml:"serves"`
	// Callers are the proofs that the route takes: issuer/NAME for bearer tokens
	// of that issuer, key/NAME for signatures by keys of that principal, key for those
	// of all, or anonymous alone for nobody's. One of several will do; {all: [...]}
	// demands every one.
	Callers CallersConfig `yaml:"callers"`
	// Integrity says what signatures must be here, and which answers are signed.
	Integrity seal.RouteConfig `yaml:"integrity"`
	// Audience narrows the audiences of the issuers for this route.
	Audience setting.List[string] `yaml:"audience"`
	// Rules decide which caller may do what: a list of rules, or the name of one
	// under policies. A deny goes before any allow; what no rule allows is refused.
	Rules RulesRef `yaml:"rules"`
	// AllowFrom are the addresses from which requests are taken, before anybody is
	// asked who they are. Default: all.
	AllowFrom setting.List[setting.CIDR] `yaml:"allow_from"`
	// DenyFrom are addresses from which none are, whatever allow_from says.
	DenyFrom setting.List[setting.CIDR] `yaml:"deny_from"`
	// Respond answers in the place of an upstream, such as 503 for maintenance.
	// callers hold as they do everywhere, anonymous for an answer to all; upstream
	// and rules may be left out.
	Respond *RespondConfig `yaml:"respond"`
	// CORS lets pages of other sites call the route from a browser.
	CORS *CORSConfig `yaml:"cors"`
	// Compress sends answers through gzip to clients that take it. Beware of answers
	// that hold a secret beside what a stranger chose: their length then tells the
	// secret (BREACH).
	Compress CompressConfig `yaml:"compress"`
	// Limits bound what callers may ask.
	Limits LimitsConfig `yaml:"limits"`
	// Timeouts go before those of the whole file.
	Timeouts TimeoutsConfig `yaml:"timeouts"`
	// Websocket lets clients upgrade to WebSocket here. The upstream's endpoints must
	// serve HTTP/1.1.
	Websocket bool `yaml:"websocket"`
	// Headers changes header fields, both ways.
	Headers HeadersConfig `yaml:"headers"`
	// Identity names the fields that tell the upstream who calls.
	Identity IdentityConfig `yaml:"identity"`
	// ForwardAuthorization sends the caller's own Authorization field, token and
	// all, to the upstream, which can then act in the caller's name anywhere.
	ForwardAuthorization bool `yaml:"insecure_forward_authorization"`
	// SecurityHeaders changes the security headers of answers: a name, and the
	// value that it gets where the upstream sets none, or off.
	SecurityHeaders map[string]string `yaml:"security_headers"`
	// KeepServer keeps the Server and X-Powered-By of the upstream in answers.
	KeepServer bool `yaml:"keep_server_header"`
}

// RulesRef is a list of rules, or the name of one under `policies`.
type RulesRef struct {
	Policy string        // "" if the rules stand here
	Rules  []policy.Rule // nil if they stand under Policy
}

// Form implements [setting.Forms].
func (r *RulesRef) Form(s setting.Shape) any {
	switch s {
	case setting.Scalar:
		return &r.Policy
	case setting.Sequence:
		return &r.Rules
	}
	return nil
}

// Want implements [setting.Forms].
func (r *RulesRef) Want() string { return "a list of rules, or the name of one under policies" }

// LimitsConfig is the section `limits` of a route.
type LimitsConfig struct {
	// Body bounds the body of a request. Default: 64MiB.
	Body setting.Size `yaml:"body"`
	// Rate bounds how many requests come in a time; each of several must allow one.
	Rate setting.List[limit.RateConfig] `yaml:"rate"`
	// InFlight bounds how many requests of the route are under way at once. Default: no bound.
	InFlight int `yaml:"in_flight"`
}

// BodyBytes is the bound of a body.
func (l *LimitsConfig) BodyBytes() int64 { return l.Body.Or(64 << 20) }

// IdentityConfig names the fields in which the upstream learns who calls; off
// leaves one out. What a client sends under these names is refused.
type IdentityConfig struct {
	// Principal is the caller's qualified name, such as issuer/corp:alice.
	// Default: X-Sallyport-Principal.
	Principal string `yaml:"principal"`
	// Scopes are the caller's scopes, separated by spaces. Default: X-Sallyport-Scopes.
	Scopes string `yaml:"scopes"`
	// RequestID is the id of the record. Default: X-Sallyport-Request-Id.
	RequestID string `yaml:"request_id"`
}

// Names are the names of the fields.
func (c *IdentityConfig) Names() IdentityNames {
	name := func(set, def string) string {
		switch set {
		case "":
			return def
		case off:
			return ""
		}
		return strings.ToLower(set)
	}
	return IdentityNames{name(c.Principal, "x-sallyport-principal"), name(c.Scopes, "x-sallyport-scopes"), name(c.RequestID, "x-sallyport-request-id")}
}

// CallersConfig is `callers` of a route: a list of proofs, of which one will do, or
// all of several.
type CallersConfig struct {
	List setting.List[string]
	CallersFields
}

// CallersFields are those of `callers` where all proofs are demanded.
type CallersFields struct {
	// All lists proofs that are demanded all. The first is the caller.
	All setting.List[string] `yaml:"all"`
	// Bind says how they belong together: alias (they are of one entry under
	// principals) or independent. Default: alias.
	Bind string `yaml:"bind"`
}

// Words of Bind.
const (
	BindAlias       = "alias"
	BindIndependent = "independent"
)

// Form implements [setting.Forms].
func (c *CallersConfig) Form(s setting.Shape) any {
	if s == setting.Mapping {
		return &c.CallersFields
	}
	return &c.List
}

// Want implements [setting.Forms].
func (c *CallersConfig) Want() string { return "a list of proofs, or {all: [...]}" }

// Names are the proofs that are listed, whichever way.
func (c *CallersConfig) Names() []string {
	if len(c.All) > 0 {
		return c.All
	}
	return c.List
}

// TakesKeys says whether a route lists signing keys.
func (c *CallersConfig) TakesKeys() bool {
	return slices.ContainsFunc(c.Names(), func(name string) bool { return name == "key" || strings.HasPrefix(name, "key/") })
}

// TakesSignatures says whether signatures of requests are verified on the route.
func (r *Config) TakesSignatures() bool {
	return r.Callers.TakesKeys() || r.Integrity.Request == seal.Always
}
