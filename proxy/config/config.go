package config

import (
	"cmp"
	"os"
	"strconv"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/audit"
	"sallyport/proxy/edge"
	"sallyport/proxy/exchange"
	"sallyport/proxy/message"
	"sallyport/proxy/pages"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// Config is the whole gateway.yaml. [Load] makes one that holds together;
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
	// APIKeys are the API keys by which callers prove who they are, by a name of your
	// choice. Only their hashes stand here.
	APIKeys map[string]auth.APIKeyConfig `yaml:"api_keys"`
	// APIKeyFile is a file with more API keys, such as those of thousands of users: a
	// line each, as sallyport keygen --api-key prints it. It is read again when it changes.
	APIKeyFile setting.Path `yaml:"api_key_file"`
	// ClientCertificates are the CAs whose certificates clients may prove themselves with, for
	// all hosts or by host.
	ClientCertificates setting.List[clientcert.Config] `yaml:"client_certificates"`
	// Basic are passwords that still count while their users move to tokens or keys, by a name of
	// your choice: routes list those of "legacy" as basic/legacy.
	Basic map[string]auth.BasicConfig `yaml:"basic"`
	// Logins are how people sign in to pages in a browser, by a name of your choice: routes list
	// those of "corp" as login/corp.
	Logins map[string]auth.LoginConfig `yaml:"logins"`
	// Pages is the look of the gateway's own pages for people who sign in.
	Pages pages.Config `yaml:"pages"`
	// Revoked is a file with credentials that count no longer, although they verify: a line each,
	// as sallyport revoke adds them. It is read again when it changes, and also ends streams.
	Revoked setting.Path `yaml:"revoked"`
	// Principals give one name to several proofs of the same caller, such as a
	// subject of an issuer and a signing key.
	Principals map[string]setting.List[string] `yaml:"principals"`
	// Integrity is what signatures of all routes share.
	Integrity seal.Config `yaml:"integrity"`
	// Upstreams are the model servers, by a name of your choice.
	Upstreams map[string]upstream.Config `yaml:"upstreams"`
	// Policies are lists of rules that several routes share, by a name of your choice.
	Policies map[string][]policy.Rule `yaml:"policies"`
	// Routes say who may ask what of which upstream. What no route names is refused.
	Routes []route.Config `yaml:"routes"`
	// TrustedProxies are the balancers in front of the gateway: from their
	// addresses alone X-Forwarded-For is believed. Default: none.
	TrustedProxies setting.List[setting.CIDR] `yaml:"trusted_proxies"`
	// TrustAllProxies lets trusted_proxies hold ranges as wide as 0.0.0.0/0, so
	// that every client can choose the address it is limited and recorded under.
	TrustAllProxies bool `yaml:"insecure_trust_all_proxies"`
	// Audit says where the record of each request goes.
	Audit audit.Config `yaml:"audit"`
	// Metrics says what the gateway counts beyond routes and verbs.
	Metrics audit.MetricsConfig `yaml:"metrics"`
	// Limits bound the whole process.
	Limits ServerLimits `yaml:"limits"`
	// Timeouts hold for the routes that set none of their own.
	Timeouts route.TimeoutsConfig `yaml:"timeouts"`
	// Reload says when the configuration is loaded again.
	Reload ReloadConfig `yaml:"reload"`
	// DrainDelay is how long the gateway goes on serving at SIGTERM, although it says that it
	// is not ready, so that balancers notice. Default: 0s.
	DrainDelay setting.Duration `yaml:"drain_delay"`
	// Drain is how long requests in flight may go on at SIGTERM. Default: 30s.
	Drain setting.Duration `yaml:"drain"`

	source *source
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
	ForwardAuth *exchange.ForwardAuthConfig `yaml:"forward_auth"`
	// Health is the address of /healthz, /readyz and /metrics, or "off". Every caller
	// learns whether the gateway is ready, and its metrics. Only callers on this machine get
	// URLs of upstreams and other detail. Write ":9902" to let other machines probe and
	// monitor the gateway. Default: "127.0.0.1:9902".
	Health string `yaml:"health"`
	// Control is the path of the unix socket for sallyport reload and sallyport status, or "off".
	// Only root and the gateway's own user may use it. Default: the path of the configuration
	// file with .sock in place of its ending, such as gateway.sock beside gateway.yaml.
	Control setting.Place `yaml:"control"`
}

// off is what switches a thing off that has a default.
const off = "off"

// Defaults of the section `listen`.
const (
	defaultHTTPS  = ":443"
	defaultHTTP   = ":80"
	defaultHealth = "127.0.0.1:9902"
)

// HTTPSAddrs are the addresses for requests, none if they are off.
func (c *ListenConfig) HTTPSAddrs() []string {
	switch {
	case len(c.HTTPS) == 0:
		return []string{defaultHTTPS}
	case c.HTTPS[0] == off && c.servesPlain():
		return nil
	}
	return c.HTTPS
}

// servesPlain reports whether there is a listener besides those with TLS.
func (c *ListenConfig) servesPlain() bool { return c.InsecurePlain != nil || c.ForwardAuth != nil }

// HTTPAddrs are the addresses for redirects, none if they are off.
func (c *ListenConfig) HTTPAddrs() []string {
	switch {
	case len(c.HTTP) == 0:
		return []string{defaultHTTP}
	case c.HTTP[0] == off:
		return nil
	}
	return c.HTTP
}

// HealthAddr is the address for health and metrics, "" if it is off.
func (c *ListenConfig) HealthAddr() string {
	switch c.Health {
	case "":
		return defaultHealth
	case off:
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
	// Linger is how long a client may continue to send a request that was answered early.
	// Many clients read the answer only after the upload. Five seconds of silence end the
	// wait earlier. Default: 30s.
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
	// Fields is how many field lines a request may have. Over HTTP/2 all its cookies, each of
	// which may have a line of its own, count as one. Default: 128.
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
	l.Linger = setting.Duration(l.Linger.Or(30 * time.Second))
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

// UpstreamOf returns the upstream of a route and the name it goes by: its own, or
// the URL where it stands in the route. One over HTTP/2 may serve gRPC and others.
func (c *Config) UpstreamOf(r *route.Config) (name string, u upstream.Config, err error) {
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

// DialectOf returns the dialect of a route's upstream. For a name that check refuses it is
// raw, of which nothing is expected.
func (c *Config) DialectOf(r *route.Config) *model.Dialect {
	_, u, _ := c.UpstreamOf(r)
	if d, faults := model.New(modelConfig(&u)); len(faults) == 0 {
		return d
	}
	return model.Raw()
}

// servesKnown reports whether it is known what the upstream of a route serves. If check refuses its name or
// its kind, faults that go by the kind would mislead.
func (c *Config) servesKnown(r *route.Config) bool {
	name, u, err := c.UpstreamOf(r)
	if _, named := c.Upstreams[name]; r.Upstream == "" {
		return r.Respond != nil
	} else if err != nil || !named && !strings.Contains(name, "://") {
		return false
	}
	_, faults := model.New(modelConfig(&u))
	return len(faults) == 0
}

// modelConfig returns what an upstream says of its dialect.
func modelConfig(u *upstream.Config) *model.Config {
	c := &model.Config{Serves: u.Serves, Model: u.Model}
	for _, call := range u.Calls {
		c.Calls = append(c.Calls, model.CallConfig(call))
	}
	return c
}

// OwnTimeouts returns the timeouts that the configuration sets for a route. Those of the route take
// precedence over those of the whole file; 0 means that neither sets one.
func (c *Config) OwnTimeouts(r *route.Config) route.TimeoutsConfig { return r.Timeouts.Or(c.Timeouts) }

// TimeoutsOf returns the timeouts of a route, with a value for everything: its
// own before the file's, before those that suit what its upstream serves.
func (c *Config) TimeoutsOf(r *route.Config) route.TimeoutsConfig {
	def := upstream.DefaultTimeouts()
	head, idle := c.DialectOf(r).Timeouts()
	def.Head, def.Idle = cmp.Or(head, def.Head), cmp.Or(idle, def.Idle)
	bound := func(d time.Duration) setting.Timeout {
		if d == 0 {
			return setting.Never
		}
		return setting.Timeout(d)
	}
	return c.OwnTimeouts(r).Or(route.TimeoutsConfig{
		Connect: setting.Duration(def.Connect),
		Head:    bound(def.Head),
		Idle:    bound(def.Idle),
		Total:   bound(def.Total),
	})
}

// ReloadConfig is the section `reload`.
type ReloadConfig struct {
	// Watch sets whether the configuration is loaded again when the file, or a file that
	// it names, changes. SIGHUP and sallyport reload work either way. Default: true.
	Watch *bool `yaml:"watch"`
}

// Watches reports whether changes of files cause a reload.
func (c *ReloadConfig) Watches() bool { return c.Watch == nil || *c.Watch }

// MemoryBudget is limits.memory with its default; zero is no bound.
func (c *Config) MemoryBudget() int64 {
	if c.Limits.Memory > 0 {
		return int64(c.Limits.Memory)
	}
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return 0 // no control groups, or none of their second version
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n <= 0 {
		return 0 // "max"
	}
	return n / 5 * 4
}

// RouteNames are the names of the routes, in the order of the file.
func (c *Config) RouteNames() []string {
	names := make([]string, 0, len(c.Routes))
	for i := range c.Routes {
		names = append(names, c.Routes[i].Name)
	}
	return names
}
