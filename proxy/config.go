package proxy

import (
	"cmp"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/audit"
	"sallyport/proxy/edge"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// Config is the whole gateway.yaml. [LoadConfig] makes one that holds together;
// after that it must not be modified.
type Config struct {
	// Listen says on which addresses the gateway listens.
	Listen ListenConfig `yaml:"listen"`
	// PublicHTTPS is the port of the HTTPS listener as clients see it, for
	// redirects, where a port mapping or balancer changes it. Default: the port
	// of listen.https.
	PublicHTTPS int `yaml:"public_https"`
	// Include names more files by patterns relative to this one, such as
	// conf.d/*.yaml. They may hold upstreams, policies and routes, which are added
	// to those here, files in the order of their names.
	Include setting.List[string] `yaml:"include"`
	// TLS says where certificates come from.
	TLS edge.Config `yaml:"tls"`
	// Issuers are those whose bearer tokens are taken, by a name of your choice:
	// routes list issuer "corp" as issuer/corp.
	Issuers map[string]auth.IssuerConfig `yaml:"issuers"`
	// SigningKeys are the keys of message signatures (RFC 9421), by their keyids:
	// clients' own, and those between the gateway and upstreams.
	SigningKeys map[string]auth.SigningKeyConfig `yaml:"signing_keys"`
	// Principals give one name to several proofs of the same caller, such as a
	// subject of an issuer and a signing key.
	Principals map[string]setting.List[string] `yaml:"principals"`
	// Integrity is what signatures of all routes share.
	Integrity IntegrityConfig `yaml:"integrity"`
	// Upstreams are the model servers, by a name of your choice.
	Upstreams map[string]upstream.Config `yaml:"upstreams"`
	// Policies are lists of rules that several routes share, by a name of your choice.
	Policies map[string][]policy.Rule `yaml:"policies"`
	// Routes say who may ask what of which upstream. What no route names is refused.
	Routes []RouteConfig `yaml:"routes"`
	// TrustedProxies are the balancers in front of the gateway: from their
	// addresses alone X-Forwarded-For is believed. Default: none.
	TrustedProxies setting.List[setting.CIDR] `yaml:"trusted_proxies"`
	// TrustAllProxies lets trusted_proxies hold ranges as wide as 0.0.0.0/0, so
	// that every client can choose the address it is limited and recorded under.
	TrustAllProxies bool `yaml:"insecure_trust_all_proxies"`
	// Audit says where the record of each request goes.
	Audit audit.Config `yaml:"audit"`
	// Limits bound the whole process.
	Limits ServerLimits `yaml:"limits"`
	// Timeouts hold for the routes that set none of their own.
	Timeouts TimeoutsConfig `yaml:"timeouts"`
	// Drain is how long requests in flight may go on at SIGTERM. Default: 30s.
	Drain setting.Duration `yaml:"drain"`

	source *configSource
}

// ListenConfig is the section `listen`. Addresses are HOST:PORT, with an empty
// host for all of the machine's addresses.
type ListenConfig struct {
	// HTTPS are the addresses for requests; or "off" where insecure_plain or
	// forward_auth serves. Default: ":443".
	HTTPS setting.List[string] `yaml:"https"`
	// HTTP are the addresses that redirect to HTTPS, or "off". Default: ":80".
	HTTP setting.List[string] `yaml:"http"`
	// ProxyProtocol reads from balancers in front of https, http and insecure_plain
	// who the client is.
	ProxyProtocol *ProxyProtocolConfig `yaml:"proxy_protocol"`
	// InsecurePlain serves requests without TLS to balancers that end TLS; what clients send is in the clear from there to here. To clients it is
	// https.
	InsecurePlain *PlainConfig `yaml:"insecure_plain"`
	// ForwardAuth decides for other proxies, which forward themselves.
	ForwardAuth *ForwardAuthConfig `yaml:"forward_auth"`
	// Health is the address of /healthz, /readyz and /metrics, or "off". Default: ":9902".
	Health string `yaml:"health"`
}

// configOff is what switches a thing off that has a default.
const configOff = "off"

// Defaults of the section `listen`.
const (
	defaultHTTPS  = ":443"
	defaultHTTP   = ":80"
	defaultHealth = ":9902"
)

// HTTPSAddrs are the addresses for requests, none if they are off.
func (c *ListenConfig) HTTPSAddrs() []string {
	switch {
	case len(c.HTTPS) == 0:
		return []string{defaultHTTPS}
	case c.HTTPS[0] == configOff && c.servesPlain():
		return nil
	}
	return c.HTTPS
}

// servesPlain says whether there is a listener besides those with TLS.
func (c *ListenConfig) servesPlain() bool { return c.InsecurePlain != nil || c.ForwardAuth != nil }

// HTTPAddrs are the addresses for redirects, none if they are off.
func (c *ListenConfig) HTTPAddrs() []string {
	switch {
	case len(c.HTTP) == 0:
		return []string{defaultHTTP}
	case c.HTTP[0] == configOff:
		return nil
	}
	return c.HTTP
}

// HealthAddr is the address for health and metrics, "" if it is off.
func (c *ListenConfig) HealthAddr() string {
	switch c.Health {
	case "":
		return defaultHealth
	case configOff:
		return ""
	}
	return c.Health
}

// ServerLimits is the section `limits`: bounds of the whole process, whoever calls.
type ServerLimits struct {
	// Connections is how many may be open at once. Default: 10000.
	Connections int `yaml:"connections"`
	// ConnectionsPerAddress is how many may be open at once from one client
	// address (IPv6: from one /64); trusted proxies are not counted. Default: 1000.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
	// Accepts bounds how many connections come in a time, from all clients: each costs
	// a handshake. Default: 20000/s.
	Accepts setting.Rate `yaml:"accepts"`
	// AcceptsPerAddress bounds those of one client address (IPv6: of one /64); trusted
	// proxies are not counted. Default: 4000/s.
	AcceptsPerAddress setting.Rate `yaml:"accepts_per_address"`
	// Requests is how many one connection may bring before it is closed, after the
	// answer to the last. Default: 100000.
	Requests int `yaml:"requests"`
	// Linger is how long the rest of a request that was answered early may take, and a
	// client to read its last answer, before the connection is closed. Default: 1s.
	Linger setting.Duration `yaml:"linger"`
	// Resets is how many more requests of one HTTP/2 connection may be called off than
	// are answered; a tenth comes back each second. Default: 200.
	Resets int `yaml:"resets"`
	// Frames is how many frames one HTTP/2 connection may send for which there is no
	// cause, such as PING, SETTINGS, empty DATA; a tenth comes back each second.
	// Default: 1000.
	Frames int `yaml:"frames"`
	// Window is how much content of one HTTP/2 request may come that no upstream has
	// taken yet; four times that for a connection. Default: 1MiB.
	Window setting.Size `yaml:"window"`
	// Fields is how many field lines a request may have. Default: 128.
	Fields int `yaml:"fields"`
	// BodyRate is how many bytes a second a body must bring on average, once it has
	// kept the gateway waiting for ten seconds; gRPC streams may rest. Default: 256B.
	BodyRate setting.Size `yaml:"body_rate"`
	// Memory is how much the process may use before it refuses new connections and
	// requests, so that those under way go on. Default: four fifths of what its
	// control group allows, else no bound.
	Memory setting.Size `yaml:"memory"`
	// HeadBytes bounds the head of a request, and that of an answer. Default: 64KiB.
	HeadBytes setting.Size `yaml:"head_bytes"`
	// HeadTime is how long the TLS handshake, and then the head of a request, may
	// take to arrive. Default: 10s.
	HeadTime setting.Duration `yaml:"head_time"`
	// KeepAlive is how long a connection may wait for its next request. Default: 2m.
	KeepAlive setting.Duration `yaml:"keep_alive"`
	// Streams is how many requests one HTTP/2 connection may have in flight. Default: 100.
	Streams int `yaml:"streams"`
}

// WithDefaults is l with a value for everything.
func (l ServerLimits) WithDefaults() ServerLimits {
	if l.Connections == 0 {
		l.Connections = 10_000
	}
	if l.ConnectionsPerAddress == 0 {
		l.ConnectionsPerAddress = 1000
	}
	if l.Streams == 0 {
		l.Streams = 100
	}
	if l.Requests == 0 {
		l.Requests = 100_000
	}
	if l.Fields == 0 {
		l.Fields = message.MaxFields
	}
	if l.Resets == 0 {
		l.Resets = 200
	}
	if l.Frames == 0 {
		l.Frames = 1000
	}
	l.Linger = setting.Duration(l.Linger.Or(time.Second))
	l.Window = setting.Size(l.Window.Or(1 << 20))
	if l.Accepts.IsZero() {
		l.Accepts = setting.Rate{N: 20_000, Per: time.Second}
	}
	if l.AcceptsPerAddress.IsZero() {
		l.AcceptsPerAddress = setting.Rate{N: 4000, Per: time.Second}
	}
	l.BodyRate = setting.Size(l.BodyRate.Or(256))
	l.HeadBytes = setting.Size(l.HeadBytes.Or(64 << 10))
	l.HeadTime = setting.Duration(l.HeadTime.Or(10 * time.Second))
	l.KeepAlive = setting.Duration(l.KeepAlive.Or(2 * time.Minute))
	return l
}

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

// or is t, with what it leaves open taken from rest.
func (t TimeoutsConfig) or(rest TimeoutsConfig) TimeoutsConfig {
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

// RouteConfig is one entry of `routes`.
type RouteConfig struct {
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
	// Methods are the HTTP methods that the route takes. Default: all.
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
	Integrity RouteIntegrity `yaml:"integrity"`
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
	Limits RouteLimits `yaml:"limits"`
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

// RouteLimits is the section `limits` of a route.
type RouteLimits struct {
	// Body bounds the body of a request. Default: 64MiB.
	Body setting.Size `yaml:"body"`
	// Rate bounds how many requests come in a time; each of several must allow one.
	Rate setting.List[limit.RateConfig] `yaml:"rate"`
	// InFlight bounds how many requests of the route are under way at once. Default: no bound.
	InFlight int `yaml:"in_flight"`
}

// BodyBytes is the bound of a body.
func (l *RouteLimits) BodyBytes() int64 { return l.Body.Or(64 << 20) }

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

// Names are the fields' names in lower case, "" for those that are off.
func (c *IdentityConfig) Names() (principal, scopes, requestID string) {
	name := func(set, def string) string {
		switch set {
		case "":
			return def
		case configOff:
			return ""
		}
		return strings.ToLower(set)
	}
	return name(c.Principal, "x-sallyport-principal"), name(c.Scopes, "x-sallyport-scopes"), name(c.RequestID, "x-sallyport-request-id")
}

// UpstreamOf returns the upstream of a route and the name it goes by: its own, or
// the URL where it stands in the route. One over HTTP/2 may serve gRPC and others.
func (c *Config) UpstreamOf(r *RouteConfig) (name string, u upstream.Config, err error) {
	if !strings.Contains(r.Upstream, "://") {
		return r.Upstream, c.Upstreams[r.Upstream], nil
	}
	at, err := setting.ParseURL(r.Upstream)
	u = upstream.Config{Serves: r.Serves, Rest: setting.List[setting.URL]{at}}
	if err == nil && (at.Scheme == "h2c" || at.Scheme == "h2") {
		u.GRPC = u.Rest
	}
	return r.Upstream, u, err
}

// dialectOf returns the dialect of a route's upstream. For a name that check refuses it is
// raw, of which nothing is expected.
func (c *Config) dialectOf(r *RouteConfig) *model.Dialect {
	_, u, _ := c.UpstreamOf(r)
	if d, ok := model.ByName(u.Serves); ok {
		return d
	}
	return model.Raw()
}

// RulesOf returns the rules of a route.
func (c *Config) RulesOf(r *RouteConfig) []policy.Rule {
	if r.Rules.Policy != "" {
		return c.Policies[r.Rules.Policy]
	}
	return r.Rules.Rules
}

// TimeoutsOf returns the timeouts of a route, with a value for everything: its
// own before the file's, before those that suit what its upstream serves.
func (c *Config) TimeoutsOf(r *RouteConfig) TimeoutsConfig {
	def := upstream.DefaultTimeouts()
	head, idle := c.dialectOf(r).Timeouts()
	def.Head, def.Idle = cmp.Or(head, def.Head), cmp.Or(idle, def.Idle)
	bound := func(d time.Duration) setting.Timeout {
		if d == 0 {
			return setting.Never
		}
		return setting.Timeout(d)
	}
	return r.Timeouts.or(c.Timeouts).or(TimeoutsConfig{
		Connect: setting.Duration(def.Connect),
		Head:    bound(def.Head),
		Idle:    bound(def.Idle),
		Total:   bound(def.Total),
	})
}
