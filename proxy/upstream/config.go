package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// Config is one entry of `upstreams`.
type Config struct {
	// Serves is the dialect that the servers speak: raw (the default), flask,
	// tensorflow, triton, openai or ollama.
	Serves string `yaml:"serves"`
	// Rest lists the endpoints for all requests but those of gRPC. They serve
	// HTTP/1.1 as http://host:port, https://host:port or unix:///path.sock, or
	// HTTP/2 as h2c://host:port (without TLS) or h2://host:port. They must be equal:
	// each request goes to the one with the fewest requests in flight. A server of
	// gRPC does not belong here: some take calls whatever their Content-Type says.
	Rest setting.List[setting.URL] `yaml:"rest"`
	// GRPC lists the endpoints for gRPC: h2c://host:port or h2://host:port. They
	// must be equal, too. An upstream may have either list, or both.
	GRPC setting.List[setting.URL] `yaml:"grpc"`
	// CA is a file of PEM certificates that https and h2 endpoints are verified
	// against; without it the system's own are used.
	CA setting.Path `yaml:"ca"`
	// ServerName is the name asked for by SNI and verified in the certificate;
	// without it the host of the endpoint.
	ServerName string `yaml:"server_name"`
	// InsecureSkipVerify takes any certificate from https and h2 endpoints.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
	// Host is the Host field that the servers see: "upstream" (host and port of
	// the endpoint; "localhost" for unix sockets), "client" (as the client named
	// us), or a literal. The default is "upstream", as in nginx: a server that
	// picks an application by Host is not steered by clients, and one that
	// builds links finds the client's name in X-Forwarded-Host. For ollama it is
	// localhost with the endpoint's port, because Ollama refuses other names
	// while it is bound to loopback.
	Host string `yaml:"host"`
	// MaxConnections bounds the connections that an endpoint has at a time, and so
	// the requests, of which one over HTTP/2 carries as many as the server takes; 0
	// is no bound. Requests over the bound wait as long as a connect may take.
	MaxConnections int `yaml:"max_connections"`
	// MaxIdle is how many idle connections over HTTP/1.1 are kept to an endpoint;
	// the default is 64.
	MaxIdle int `yaml:"max_idle"`
	// IdleTime is how long a connection is kept idle; the default is 60s. A
	// server that announces less (Keep-Alive: timeout=5) is believed.
	IdleTime setting.Duration `yaml:"idle_time"`
	// Integrity says what is signed on the way to the servers and back.
	Integrity IntegrityConfig `yaml:"integrity"`
}

// IntegrityConfig is the section `integrity` of an upstream.
type IntegrityConfig struct {
	// Sign is the signing key with which requests are signed anew, identity
	// and all, so that the servers can tell them from others'. Default: none.
	Sign string `yaml:"sign"`
	// Body says whether that covers bodies that clients did not sign, which must be
	// held for it: buffer, or none. Default: buffer.
	Body string `yaml:"body"`
	// Verify are the signing keys of the servers: an answer that none of them has
	// signed is refused. Default: none, and nothing is verified.
	Verify setting.List[string] `yaml:"verify"`
}

// Digests says whether requests are signed with the digests of their bodies, whoever
// sent them, so that these are held.
func (c *IntegrityConfig) Digests() bool { return c.Sign != "" && c.Body != "none" }

// check records the faults of the section but for the names of keys.
func (c *IntegrityConfig) check(path string, f *setting.Faults) {
	if c.Body != "" && c.Body != "buffer" && c.Body != "none" {
		f.Add(setting.Join(path, "body"), c.Body, "no such choice", "write buffer or none")
	}
	if c.Sign == "" && c.Body != "" {
		f.Add(setting.Join(path, "body"), c.Body, "requests to the servers are not signed", "write sign too, or remove the line")
	}
	if c.Sign == "" && len(c.Verify) > 0 {
		f.Add(setting.Join(path, "verify"), strings.Join(c.Verify, ", "), "answers are bound to the gateway's signature, and there is none", "write sign too")
	}
}

const (
	defaultMaxIdle  = 64
	defaultIdleTime = 60 * time.Second
)

// DefaultTimeouts are the timeouts where neither the configuration nor the dialect of
// the servers says otherwise. There is no total, because a stream may last.
func DefaultTimeouts() Timeouts {
	return Timeouts{Connect: 5 * time.Second, Head: 60 * time.Second, Idle: 60 * time.Second}
}

// Check records every fault of the section that stands at path. It reads no file and
// uses no network. It does not look at Serves: package policy/model knows the dialects,
// and what one means for an upstream comes in [Options] and [Request].
func (c *Config) Check(path string, f *setting.Faults) {
	if len(c.Rest)+len(c.GRPC) == 0 {
		f.Add(setting.Join(path, "rest"), "", "an upstream without endpoints", "list its URLs, such as http://host:8000, or under grpc such as h2c://host:8500")
	}
	secure := checkEndpoints(setting.Join(path, "rest"), c.Rest, f, "http", "https", "unix", "h2c", "h2")
	secure = checkEndpoints(setting.Join(path, "grpc"), c.GRPC, f, "h2c", "h2") || secure
	c.checkTLS(path, secure, f)
	c.Integrity.check(setting.Join(path, "integrity"), f)
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

// Upgrades says whether requests can be sent to the upstream that ask for another
// protocol: its endpoints serve HTTP/1.1.
func (c *Config) Upgrades() bool {
	return !slices.ContainsFunc(c.Rest, func(u setting.URL) bool { return u.URL != nil && shares(u.Scheme) }) &&
		(len(c.Rest) > 0 || len(c.GRPC) == 0)
}

// Servers names the endpoints so that the same server has the same name in every entry,
// however its URL is spelled there: neither the scheme, nor letter case, nor the form of an
// address counts, and all addresses of this machine's loopback are one. It asks no DNS, so a
// server with two names there has two.
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

// checkEndpoints says whether one of the endpoints uses TLS.
func checkEndpoints(path string, all []setting.URL, f *setting.Faults, schemes ...string) (secure bool) {
	if len(all) > maxEndpoints {
		f.Add(path, "", fmt.Sprintf("more than %d endpoints", maxEndpoints), "put a load balancer before them")
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

// overTLS says whether endpoints of a scheme use TLS.
func overTLS(scheme string) bool { return scheme == "https" || scheme == "h2" }

// shares says whether requests to endpoints of a scheme share connections.
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
		f.Add(at, u.String(), "endpoints cannot be reached by "+u.Scheme, cure)
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

func (c *Config) checkTLS(path string, secure bool, f *setting.Faults) {
	if c.ServerName != "" {
		if _, host, err := message.CanonicalAuthority(c.ServerName, "https"); err != nil || !strings.EqualFold(host, c.ServerName) {
			f.Add(setting.Join(path, "server_name"), c.ServerName, "not a host name", "write the name in the server's certificate, without a port")
		}
	}
	if !secure {
		const problem, cure = "no endpoint uses TLS", "remove the line, or write https:// or h2:// for the endpoints"
		if c.CA != "" {
			f.Add(setting.Join(path, "ca"), string(c.CA), problem, cure)
		}
		if c.ServerName != "" {
			f.Add(setting.Join(path, "server_name"), c.ServerName, problem, cure)
		}
		if c.InsecureSkipVerify {
			f.Add(setting.Join(path, "insecure_skip_verify"), "true", problem, cure)
		}
	} else if c.CA != "" && c.InsecureSkipVerify {
		f.Add(setting.Join(path, "insecure_skip_verify"), "true", "contradicts ca", "remove one of the two")
	}
}

// validHost says whether h may stand in Host: a host with an optional port.
func validHost(h string) bool {
	_, _, err := message.CanonicalAuthority(h, "")
	return err == nil
}

// tlsConfig is for one endpoint on this host that speaks a protocol.
func (c *Config) tlsConfig(host, protocol string, roots *x509.CertPool) *tls.Config {
	name := c.ServerName
	if name == "" {
		name = strings.TrimSuffix(host, ".")
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         name,
		RootCAs:            roots,
		InsecureSkipVerify: c.InsecureSkipVerify,
		NextProtos:         []string{protocol},
		ClientSessionCache: tls.NewLRUClientSessionCache(16),
	}
}

// trust identifies how the certificates of servers are verified: two configurations that
// verify in the same way have the same.
func (c *Config) trust() string {
	return setting.Digest(struct {
		CA         setting.Path
		ServerName string
		Insecure   bool
	}{c.CA, c.ServerName, c.InsecureSkipVerify})
}

// roots reads the CA file; nil means the system's own certificates.
func (c *Config) roots() (*x509.CertPool, error) {
	if c.CA == "" {
		return nil, nil
	}
	file, err := os.Open(string(c.CA))
	if err != nil {
		return nil, fmt.Errorf("reading ca: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, setting.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading ca: %w", err)
	}
	if len(text) > setting.MaxFile { // more than Digest reads
		return nil, fmt.Errorf("reading ca %s: the file is larger than %d bytes", c.CA, setting.MaxFile)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading ca %s: %w", c.CA, errNoCertificate)
	}
	return pool, nil
}

var errNoCertificate = errors.New("no certificate in PEM form in it")
