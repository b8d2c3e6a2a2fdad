package route

import (
	"slices"
	"strings"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/limit"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
)

// off disables a setting that has a default.
const off = "off"

// Anonymous is the entry under callers for routes without authentication.
const Anonymous = "anonymous"

// TimeoutsConfig is a section `timeouts`. A route's section takes precedence over the file's.
// Without either, the default depends on what the upstream serves: openai and ollama get more time,
// because they may compute for minutes. gRPC calls without either may take and pause for as long as
// their deadline (grpc-timeout), at most 24h, or for 1h if they have none: a call that waits for an
// event is silent.
//
// The gateway finds dead HTTP/2 peers by PING. It sends one to a client after 30s of silence
// and waits 60s for the answer; to an upstream after 5m10s, and waits 10s. gRPC servers end
// connections that send more than one PING in five minutes (grpc-go's default
// keepalive.EnforcementPolicy, C-core's http2.min_recv_ping_interval_without_data). TCP keep-alive
// finds a dead host earlier.
type TimeoutsConfig struct {
	// Connect limits connecting to an upstream, including TLS. Default: 5s.
	Connect setting.Duration `yaml:"connect"`
	// Head limits the time from the request to the head of the answer. Default: 60s; 10m where the
	// upstream serves openai or ollama; for gRPC the caller's deadline, or 1h without one.
	Head setting.Timeout `yaml:"head"`
	// Idle limits how long a body may pause, in either direction, before the exchange is aborted;
	// also for WebSocket. Default: 60s; 5m where the upstream serves openai or ollama; for gRPC the
	// caller's deadline, or 1h without one. The limit of each write is then that of other requests.
	Idle setting.Timeout `yaml:"idle"`
	// Total limits a whole exchange. Default: never, so that streams may continue.
	Total setting.Timeout `yaml:"total"`
}

// Or returns t with unset values taken from rest.
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
	// Name is the route's name in records and metrics. Default: its first host and its path, after
	// its methods if it lists some.
	Name string `yaml:"name"`
	// Host is the name, or several, that clients call: models.example.com, or
	// "*.example.com" for any one label in the place of the star.
	Host setting.List[string] `yaml:"host"`
	// Path is the prefix of the paths, on a segment boundary: /v1 matches /v1 and /v1/models, not
	// /v1beta. The longest path wins. "=/v1" matches that path alone. Letter case counts, also before
	// TensorFlow Serving, which reads /V1/Models as /v1/models: such a request has the route of the other
	// paths, whose rules see the same model and verb. Default: "/".
	Path string `yaml:"path"`
	// Strip is a prefix to remove from the path for the upstream: with /tf, the upstream gets /v1
	// when the client asked for /tf/v1. Routes, rules and records use the client's path. The
	// upstream gets the prefix in X-Forwarded-Prefix.
	Strip string `yaml:"strip"`
	// Replace replaces a prefix of the path for the upstream.
	Replace *ReplaceConfig `yaml:"replace"`
	// Rewrite says which version of a model, or which upstream, requests get that leave it open.
	// Default: the servers choose the version.
	Rewrite *RewriteConfig `yaml:"rewrite"`
	// Paths permits forms of paths that servers read in different ways. Default: none.
	Paths PathsConfig `yaml:"paths"`
	// Methods are the HTTP methods that the route accepts, in upper or lower case. Default: all.
	Methods setting.List[string] `yaml:"methods"`
	// Upstream is a name under upstreams, or a URL.
	Upstream string `yaml:"upstream"`
	// Serves says what kind of server the URL in upstream is: raw, flask,
	// tensorflow, v2, triton, torchserve, mlflow, sagemaker, openai or ollama. Default: raw.
	Serves string `yaml:"serves"`
	// Callers lists the accepted credentials: issuer/NAME for bearer tokens of that issuer,
	// login/NAME for people who sign in to pages in a browser,
	// key/NAME for signatures by keys of that principal, key for those of all principals,
	// apikey/NAME and apikey likewise for API keys, cert/NAME and cert likewise for client
	// certificates, or anonymous alone for none. One of several is enough; {all: [...]} requires every one.
	Callers CallersConfig `yaml:"callers"`
	// StepUp demands a stronger or more recent authentication than the issuer or the login does. Default:
	// none. All callers of the route must be issuers and logins; of {all: [...]}, one.
	StepUp *StepUpConfig `yaml:"step_up"`
	// Integrity says which signatures are required, and which answers are signed.
	Integrity seal.RouteConfig `yaml:"integrity"`
	// Audience narrows the audiences of the issuers for this route.
	Audience setting.List[string] `yaml:"audience"`
	// Rules decide which caller may do what: a list of rules, or the name of one
	// under policies. A deny goes before any allow; what no rule allows is refused.
	Rules RulesRef `yaml:"rules"`
	// CandidateRules are rules to try out: a list, or the name of one under policies. What they would
	// decide is recorded as candidate, and counted; it has no other effect. Where they alone are about
	// models, gRPC messages are read on their way, and JSON bodies of a known length are held and read for
	// them, up to integrity.buffer.
	CandidateRules RulesRef `yaml:"candidate_rules"`
	// AllowFrom are the addresses from which requests are accepted, checked before authentication.
	// Default: all.
	AllowFrom setting.List[setting.CIDR] `yaml:"allow_from"`
	// DenyFrom are addresses that are refused, even if allow_from lists them.
	DenyFrom setting.List[setting.CIDR] `yaml:"deny_from"`
	// Respond answers instead of an upstream, such as 503 for maintenance. callers applies as
	// everywhere (anonymous for a public answer); upstream and rules may be left out.
	Respond *RespondConfig `yaml:"respond"`
	// CORS lets pages of other sites call the route from a browser.
	CORS *CORSConfig `yaml:"cors"`
	// Compress compresses answers with gzip for clients that accept it. Do not use it for answers
	// that hold a secret and text chosen by others: their length reveals the secret (BREACH).
	Compress CompressConfig `yaml:"compress"`
	// Limits are the limits for callers.
	Limits LimitsConfig `yaml:"limits"`
	// Audit says how durable the route's audit records are.
	Audit AuditConfig `yaml:"audit"`
	// Timeouts take precedence over those of the whole file.
	Timeouts TimeoutsConfig `yaml:"timeouts"`
	// Websocket lets clients upgrade to WebSocket here. The upstream's endpoints must
	// serve HTTP/1.1.
	Websocket bool `yaml:"websocket"`
	// WebsocketToken lists the forms in which a WebSocket handshake may have its bearer token or API
	// key in a subprotocol, since scripts of pages cannot set Authorization there: kubernetes is
	// base64url.bearer.authorization.k8s.io. and the token in base64url, openai is
	// openai-insecure-api-key. and the token, beside realtime. Another subprotocol must be offered too.
	// The token counts as in Authorization, whatever the page's origin is, and instead of the session
	// of a login; no upstream gets its subprotocol. Default: none.
	WebsocketToken setting.List[string] `yaml:"websocket_token"`
	// Headers changes header fields of requests and answers.
	Headers HeadersConfig `yaml:"headers"`
	// Identity names the fields with the caller's identity for the upstream.
	Identity IdentityConfig `yaml:"identity"`
	// PassIdentityFields lists fields that clients may send to the upstream although servers behind
	// other proxies learn from them who calls, such as Cf-Access-Jwt-Assertion where the upstream
	// verifies that itself. Default: Remote-User, X-Auth-Request-*, Client-Cert and all others that
	// the gateway knows are dropped, in any spelling.
	PassIdentityFields setting.List[string] `yaml:"pass_identity_fields"`
	// CodeTypes lists media types of serialized objects that the upstream may get, such as
	// application/x-pickle. A server that reads one runs what its sender wrote. Default: pickle, joblib,
	// dill, NumPy's, PyTorch's and Java's types are refused.
	CodeTypes setting.List[string] `yaml:"code_types"`
	// ForwardAuthorization forwards the caller's Authorization field with its token, or puts there the
	// token of a subprotocol (websocket_token). The upstream can then act as the caller anywhere.
	ForwardAuthorization bool `yaml:"insecure_forward_authorization"`
	// SecurityHeaders are the security headers that answers get where the upstream sets none. It is
	// the name of a set: default, which gives pages no Content-Security-Policy; talisman, which is
	// that of Flask-Talisman, also for pages; or off. Or it changes the default set: a name, and the
	// value or off. A Content-Security-Policy written here goes to pages too.
	SecurityHeaders SecurityConfig `yaml:"security_headers"`
	// KeepServer keeps the Server and X-Powered-By of the upstream in answers.
	KeepServer bool `yaml:"keep_server_header"`
}

// AuditConfig is the section `audit` of a route.
type AuditConfig struct {
	// Durable takes precedence over that of the whole file: off, answer or synced.
	Durable setting.Durability `yaml:"durable"`
}

// RulesRef is a list of rules, or the name of one under `policies`.
type RulesRef struct {
	Policy string        // "" if the rules stand here
	Rules  []policy.Rule // nil if they stand under Policy
}

// IsZero reports whether the key is absent.
func (r *RulesRef) IsZero() bool { return r.Policy == "" && r.Rules == nil }

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
	// Body limits the body of a request. Default: 64MiB.
	Body setting.Size `yaml:"body"`
	// Inflated limits a compressed message after decompression, where the gateway must read it to find
	// the model, or to count a batch. The upstream gets it as it came. Default: 64MiB.
	Inflated setting.Size `yaml:"inflated"`
	// Batch limits the entries that one request, or message of a gRPC stream, has a server compute
	// together: instances, examples, rows or texts, times the answers for each (n), and the first
	// dimension of tensors. The largest input counts, by its shape and by its content. For servers that
	// serve tensorflow, v2, triton, mlflow, openai and ollama. Default: no limit.
	Batch int `yaml:"batch"`
	// TensorBytes limits the content of one input as it is encoded, without its name and shape. In
	// TensorFlow Serving's gRPC calls what the shape takes in memory counts too, because the server
	// repeats a content that is shorter. For tensorflow, v2, triton and mlflow. Default: no limit.
	TensorBytes setting.Size `yaml:"tensor_bytes"`
	// Rate limits how many requests are accepted per time. Every entry that covers a request counts it;
	// if one has none left, the request is refused and none counts it.
	Rate setting.List[limit.RateConfig] `yaml:"rate"`
	// InFlight limits concurrent requests: a number for the whole route, or a list of entries. Default:
	// no limit.
	InFlight InFlightConfig `yaml:"in_flight"`
	// Headers adds RateLimit and RateLimit-Policy to every answer, for the entry of rate of which least
	// is left (draft-ietf-httpapi-ratelimit-headers-11, not yet a standard). Default: only refusals
	// with 429 have them.
	Headers bool `yaml:"headers"`
}

// InFlightConfig is `limits.in_flight` of a route.
type InFlightConfig struct {
	Number  int // for the whole route; 0: no limit
	Entries setting.List[limit.InFlightConfig]
}

// Form implements [setting.Forms].
func (c *InFlightConfig) Form(s setting.Shape) any {
	if s == setting.Scalar {
		return &c.Number
	}
	return &c.Entries
}

// Want implements [setting.Forms].
func (c *InFlightConfig) Want() string { return "a number, or a list of entries with per and limit" }

// NeedModel reports whether an entry needs the model that a request asks for.
func (l *LimitsConfig) NeedModel() bool {
	return slices.ContainsFunc(l.Rate, func(c limit.RateConfig) bool { return c.NeedsModel() }) ||
		slices.ContainsFunc(l.InFlight.Entries, func(c limit.InFlightConfig) bool { return c.NeedsModel() })
}

// Most returns what the body of a request may ask a server to compute.
func (l *LimitsConfig) Most() model.Most {
	return model.Most{Batch: int64(l.Batch), Tensor: int64(l.TensorBytes)}
}

// BodyBytes returns the limit of a request body.
func (l *LimitsConfig) BodyBytes() int64 { return l.Body.Or(64 << 20) }

// CallersConfig is `callers` of a route: a list of credentials, of which one or all are required.
type CallersConfig struct {
	List setting.List[string]
	CallersFields
}

// CallersFields are the fields of `callers` if all credentials are required.
type CallersFields struct {
	// All lists credentials that are all required. The first one identifies the caller.
	All setting.List[string] `yaml:"all"`
	// Bind says how they are related: alias (all belong to one entry under principals) or
	// independent. Default: alias.
	Bind string `yaml:"bind"`
}

// These are the values of Bind.
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

// Names returns all listed proofs, in either form.
func (c *CallersConfig) Names() []string {
	if len(c.All) > 0 {
		return c.All
	}
	return c.List
}

// TakesKeys reports whether a route lists signing keys.
func (c *CallersConfig) TakesKeys() bool {
	return slices.ContainsFunc(c.Names(), func(name string) bool { return name == "key" || strings.HasPrefix(name, "key/") })
}

// TakesAPIKeys reports whether a route lists API keys.
func (c *CallersConfig) TakesAPIKeys() bool {
	return slices.ContainsFunc(c.Names(), func(name string) bool { return name == "apikey" || strings.HasPrefix(name, "apikey/") })
}

// TakesPasswords reports whether a route lists passwords.
func (c *CallersConfig) TakesPasswords() bool {
	return slices.ContainsFunc(c.Names(), func(name string) bool { return strings.HasPrefix(name, "basic/") })
}

// Logins returns the names of the logins that a route lists, in their order.
func (c *CallersConfig) Logins() []string {
	var all []string
	for _, name := range c.Names() {
		if login, ok := strings.CutPrefix(name, "login/"); ok {
			all = append(all, login)
		}
	}
	return all
}

// TakesSignatures reports whether the route verifies signatures of requests.
func (r *Config) TakesSignatures() bool {
	return r.Callers.TakesKeys() || r.Integrity.Request == seal.Always
}

// Subprotocols returns the forms of websocket_token.
func (r *Config) Subprotocols() (all auth.SubprotocolForms) {
	for _, name := range r.WebsocketToken {
		all |= auth.SubprotocolForm(name)
	}
	return all
}
