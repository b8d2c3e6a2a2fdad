package upstream

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// Config is one entry of `upstreams`.
type Config struct {
	// Serves is the dialect of the servers: raw (the default), flask, tensorflow, v2, triton, torchserve, mlflow,
	// sagemaker, openai or ollama.
	Serves string `yaml:"serves"`
	// Model is the name of the one model that the servers have, so that rules may be about models. For
	// flask, mlflow and sagemaker only: requests to the others say which model they ask for.
	Model string `yaml:"model"`
	// Calls are the requests that servers of the dialect flask take; others are refused with 404. Rules
	// then name the verbs of this list instead of HTTP methods. Default: all requests.
	Calls []CallConfig `yaml:"calls"`
	// Rest lists the endpoints for all requests except gRPC. They serve HTTP/1.1 as
	// http://host:port, https://host:port or unix:///path.sock, or HTTP/2 as h2c://host:port
	// (without TLS) or h2://host:port. They must be replicas: each request goes to the endpoint
	// with the fewest requests in flight. Do not list gRPC servers here: some accept calls with
	// any Content-Type.
	Rest setting.List[setting.URL] `yaml:"rest"`
	// GRPC lists the endpoints for gRPC: h2c://host:port or h2://host:port. They must be replicas
	// too. An upstream may have either list, or both.
	GRPC setting.List[setting.URL] `yaml:"grpc"`
	// CA is a PEM file with the trusted roots for https and h2 endpoints. Default: the system's
	// roots.
	CA setting.Path `yaml:"ca"`
	// ServerName is the name for SNI and certificate verification. Default: the endpoint's host.
	ServerName string `yaml:"server_name"`
	// ServerID is the identity that the certificates of https and h2 endpoints must have in place of
	// the endpoint's host: a SPIFFE id such as spiffe://lab/tf, which needs ca, or a DNS name.
	ServerID string `yaml:"server_id"`
	// ClientCertificate is the gateway's own certificate, which https and h2 endpoints may ask for
	// (mTLS). The files are read again when they change: new connections have the new certificate.
	ClientCertificate *setting.Certificate `yaml:"client_certificate"`
	// InsecureSkipVerify accepts any certificate from https and h2 endpoints.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
	// Host is the Host field that the servers see: "upstream" (host and port of the endpoint;
	// "localhost" for unix sockets), "client" (the client's Host), or a literal. Default:
	// "upstream", as in nginx. Clients then cannot select an application by Host, and
	// X-Forwarded-Host has the client's name for links. For ollama the default is localhost with
	// the endpoint's port, because Ollama refuses other names while it listens on loopback.
	Host string `yaml:"host"`
	// MaxConnections is the maximum number of connections to an endpoint; 0 means no limit. Over
	// HTTP/1.1 it also limits requests; over HTTP/2 one connection carries several. Requests
	// above the limit wait up to the connect timeout.
	MaxConnections int `yaml:"max_connections"`
	// MaxIdle is the maximum number of idle HTTP/1.1 connections to an endpoint. Default: 64.
	MaxIdle int `yaml:"max_idle"`
	// IdleTime is how long an idle connection may be used again. Default: 60s. A shorter time
	// announced by the server (Keep-Alive: timeout=5) applies instead, less a second. If the server
	// announces none, the gateway measures how long the server keeps idle connections open. It uses
	// none again that was idle for over three quarters of that time: a request that meets the close
	// fails. To measure, it leaves one idle connection to each server open for up to a third longer.
	IdleTime setting.Duration `yaml:"idle_time"`
	// RequestTrailers sends the trailers of requests on over HTTP/2. Over HTTP/1.1 they are always
	// sent. Those of gRPC never are, because its requests have none. The default is false: some
	// servers end the connection when trailers arrive, and with it the requests of other callers.
	RequestTrailers bool `yaml:"request_trailers"`
	// Credentials are what the gateway itself shows to the servers. Default: nothing.
	Credentials CredentialsConfig `yaml:"credentials"`
	// Integrity configures message signatures between the gateway and the servers.
	Integrity IntegrityConfig `yaml:"integrity"`
}

// CallConfig is one entry of `calls`: a kind of request to a web application.
type CallConfig struct {
	// Method is the HTTP method, such as post. get stands for head too.
	Method string `yaml:"method"`
	// Path is the whole path. A segment {model} stands for any name, which becomes the model of the
	// call, and {version} for its version.
	Path string `yaml:"path"`
	// Verb is what rules call it: predict, classify, metadata, health and so on.
	Verb string `yaml:"verb"`
}

// IntegrityConfig is the section `integrity` of an upstream.
type IntegrityConfig struct {
	// Sign is the signing key for requests to the servers, with the identity fields, so that
	// servers can recognize the gateway. Default: none.
	Sign string `yaml:"sign"`
	// Body says whether the signature covers bodies that the client did not sign; such bodies
	// must be buffered: buffer, or none. Default: buffer.
	Body string `yaml:"body"`
	// Verify lists the signing keys of the servers. An answer without a signature of one of them
	// is refused. Default: answers are not verified.
	Verify setting.List[string] `yaml:"verify"`
}

// Digests reports whether all requests are signed with a digest of the body, which must be
// buffered for that.
func (c *IntegrityConfig) Digests() bool { return c.Sign != "" && c.Body != "none" }

// check records the faults of the section. It does not resolve key names.
func (c *IntegrityConfig) check(path string, f *setting.Faults) {
	if c.Body != "" && c.Body != "buffer" && c.Body != "none" {
		f.Add(setting.Join(path, "body"), c.Body, "no such choice", "write buffer or none")
	}
	if c.Sign == "" && c.Body != "" {
		f.Add(setting.Join(path, "body"), c.Body, "requests to the servers are not signed", "write sign too, or remove the line")
	}
	if c.Sign == "" && len(c.Verify) > 0 {
		f.Add(setting.Join(path, "verify"), strings.Join(c.Verify, ", "), "answers are verified against the signature of the request, which is missing", "write sign too")
	}
}

const (
	defaultMaxIdle  = 64
	defaultIdleTime = 60 * time.Second
)

// DefaultTimeouts are the timeouts if neither the configuration nor the dialect sets others.
// There is no total timeout, because a stream may run for long.
func DefaultTimeouts() Timeouts {
	return Timeouts{Connect: 5 * time.Second, Head: 60 * time.Second, Idle: 60 * time.Second}
}

// Check records every fault of the section at path. It reads no file and uses no network. It
// does not check Serves: package policy/model knows the dialects, and their effect on an upstream
// comes in [Options] and [Request].
func (c *Config) Check(path string, f *setting.Faults) {
	if len(c.Rest)+len(c.GRPC) == 0 {
		f.Add(setting.Join(path, "rest"), "", "an upstream without endpoints", "list its URLs, such as http://host:8000, or under grpc such as h2c://host:8500")
	}
	secure := checkEndpoints(setting.Join(path, "rest"), c.Rest, f, "http", "https", "unix", "h2c", "h2")
	secure = checkEndpoints(setting.Join(path, "grpc"), c.GRPC, f, "h2c", "h2") || secure
	c.checkTLS(path, secure, f)
	c.Credentials.check(setting.Join(path, "credentials"), slices.Concat(c.Rest, c.GRPC), f)
	c.Integrity.check(setting.Join(path, "integrity"), f)
	if c.RequestTrailers && !c.sharesREST() {
		f.Add(setting.Join(path, "request_trailers"), "true", "no endpoint under rest is reached by h2c or h2", "remove the line: over HTTP/1.1 trailers are sent in any case, and gRPC has none in requests")
	}
	if h := c.Host; h != "" && h != "upstream" && h != "client" && !validHost(h) {
		f.Add(setting.Join(path, "host"), h, "not a host", `write "upstream", "client", or a host such as app.internal:8000`)
	}
	for _, n := range [...]struct {
		name  string
		value int
	}{{"max_connections", c.MaxConnections}, {"max_idle", c.MaxIdle}} {
		if n.value < 0 {
			f.Add(setting.Join(path, n.name), fmt.Sprint(n.value), "a negative number", "write a number above zero, or remove the line for the default")
		}
	}
}

// Upgrades reports whether the upstream accepts protocol upgrades, which needs HTTP/1.1
// endpoints.
func (c *Config) Upgrades() bool {
	return !c.sharesREST() && (len(c.Rest) > 0 || len(c.GRPC) == 0)
}

// sharesREST reports whether requests other than gRPC use HTTP/2.
func (c *Config) sharesREST() bool {
	return slices.ContainsFunc(c.Rest, func(u setting.URL) bool { return u.URL != nil && shares(u.Scheme) })
}

// Servers returns a name for each endpoint. Two URLs of one server get the same name, whatever their
// scheme, letter case and form of address. All loopback addresses count as one. It does not use DNS:
// a server with two DNS names has two names here.
func (c *Config) Servers() []string {
	var names []string
	for _, u := range slices.Concat(c.Rest, c.GRPC) {
		if !u.IsZero() {
			names = append(names, serverName(u))
		}
	}
	return names
}

func serverName(u setting.URL) string {
	if u.Scheme == "unix" {
		return "unix:" + path.Clean(u.Path)
	}
	port := u.Port()
	switch {
	case port == "" && overTLS(u.Scheme):
		port = "443"
	case port == "":
		port = "80"
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap().WithZone("")
		host = a.String()
		if a.IsLoopback() || a.IsUnspecified() { // dialing the latter reaches the former
			host = loopback
		}
	}
	return net.JoinHostPort(host, port)
}

// loopback stands for every address of this machine's loopback.
const loopback = "localhost"

// checkEndpoints reports whether one of the endpoints uses TLS.
func checkEndpoints(path string, all []setting.URL, f *setting.Faults, schemes ...string) (secure bool) {
	if len(all) > maxEndpoints {
		f.Add(path, "", fmt.Sprintf("more than %d endpoints", maxEndpoints), "put a load balancer in front of them")
	}
	seen := map[string]bool{}
	for i, u := range all {
		at := path
		if len(all) > 1 {
			at = setting.Index(at, i)
		}
		checkEndpoint(at, u, schemes, f)
		if seen[u.String()] {
			f.Add(at, u.String(), "is listed twice", "remove one of the two")
		}
		seen[u.String()] = true
		secure = secure || u.URL != nil && overTLS(u.Scheme)
	}
	return secure
}

// overTLS reports whether a scheme uses TLS.
func overTLS(scheme string) bool { return scheme == "https" || scheme == "h2" }

// shares reports whether requests share connections under a scheme: HTTP/2.
func shares(scheme string) bool { return scheme == "h2c" || scheme == "h2" }

func checkEndpoint(at string, u setting.URL, schemes []string, f *setting.Faults) {
	if u.IsZero() {
		f.Add(at, "", "an endpoint without a URL", "write one such as "+schemes[0]+"://host:8000")
		return
	}
	if !slices.Contains(schemes, u.Scheme) {
		cure := "write " + strings.Join(schemes[:len(schemes)-1], "://, ") + ":// or " + schemes[len(schemes)-1] + "://"
		if u.Scheme == "http" || u.Scheme == "https" {
			cure += ": gRPC needs HTTP/2, h2c without TLS"
		}
		f.Add(at, u.String(), "endpoints do not support the scheme "+u.Scheme, cure)
		return
	}
	if u.Scheme != "unix" && u.Path != "" && u.Path != "/" {
		f.Add(at, u.String(), "an endpoint with a path", "remove the path; on a route replace: {prefix: /, with: "+u.Path+"} adds it")
	}
	if u.RawQuery != "" || u.ForceQuery {
		f.Add(at, u.String(), "an endpoint with a query", "remove ? and what follows it")
	}
	if u.User != nil {
		f.Add(at, setting.Redacted, "an endpoint with a user name or password", "take them out")
	}
	if u.Scheme != "unix" && !validHost(u.Host) {
		f.Add(at, u.String(), "a host that cannot be named in a request", "write a plain host name or address")
	}
}

// validHost reports whether h is a valid Host field: a host with an optional port.
func validHost(h string) bool {
	_, _, err := message.CanonicalAuthority(h, "")
	return err == nil
}
