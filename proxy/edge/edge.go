// Package edge terminates TLS. It chooses the certificate for the server name that a client
// asks for. It refuses unknown names, outdated TLS versions and connections above the limit,
// all before a byte of HTTP is read.
//
// A host may ask its clients for certificates ([ClientPolicy]). A required one is verified in the
// handshake; all others are up to whoever serves the request.
//
// Certificates come from sources: files, ACME authorities, and a local authority for
// development. If a source fails after startup, it goes on serving its last good certificate.
// ACME certificates are obtained in the background; handshakes for their names fail until then.
//
// Clients that dial an IP address send no server name (RFC 6066, section 3). For them the edge
// uses the local address of the connection. A route serves it only if it lists that address as
// a host:
//
//	host: [localhost, 127.0.0.1, "[::1]"]
//
// There is no default route for addresses. A scanner that walks an address range therefore
// learns no host names from certificates.
package edge

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure an [Edge].
type Options struct {
	// Hosts are the hosts of all routes: exact names, "*.example.com", or addresses (IPv6 in
	// brackets), in the form of [message.CanonicalHost]. Handshakes for other names are refused.
	// See the package comment for clients that dial an address.
	Hosts []string
	// PlainHTTP says that a plain HTTP listener serves [Edge.ChallengeAnswer], so http-01
	// challenges can be answered.
	PlainHTTP bool
	// Inspect makes an Edge for inspection, or for obtaining certificates beside a running
	// gateway. Hosts without a certificate are then no error, and no local authority is created.
	Inspect bool
	// Challenges is the folder through which processes share pending ACME challenges; "" means
	// the folder of the certificates.
	Challenges string
	Log        *slog.Logger     // discarded if nil
	Now        func() time.Time // time.Now if nil
}

// source provides certificates.
type source interface {
	// certificate returns the certificate for the client's server name, or nil.
	certificate(name string, hello *tls.ClientHelloInfo) *tls.Certificate
	// covers reports whether the source has a certificate for a route's host.
	covers(host string) bool
	// status describes all certificates of the source.
	status() []CertificateStatus
	// look reloads files that changed and renews certificates that expire soon.
	look()
}

// Edge is the TLS state of a process. It outlives configurations: each configuration becomes
// a [View], and one view is active at a time. Listeners, session ticket keys and pending ACME
// orders carry over from one view to the next. It is safe for concurrent use.
type Edge struct {
	options Options
	view    atomic.Pointer[View]
	config  *tls.Config            // used at the start of every handshake; owns the ticket keys
	configs map[uint16]*tls.Config // for hosts of routes, by minimum version; immutable after New
	// failures are the handshakes that failed on all listeners.
	failures *failures

	mu      sync.Mutex      // guards the fields below
	running context.Context // the context of Run; nil before Run
	orders  sync.WaitGroup  // runs the ACME source of the active view
	stop    func()          // cancels that source
}

// CertificateStatus describes one certificate.
type CertificateStatus struct {
	Hosts  []string // names in the certificate
	Source string   // "files", "acme" or "local"
	Issuer string   // common name of the issuer; "" if there is no certificate yet
	// NotBefore and NotAfter are the certificate's validity; zero if there is none yet.
	NotBefore, NotAfter time.Time
	// NextRenewal is the time of the next renewal attempt. It is zero for files, which the
	// operator renews.
	NextRenewal time.Time
	// LastError says why the latest certificate is not in use and how to fix that; "" if it is
	// in use.
	LastError string
}

// New returns an Edge whose first view serves c for o.Hosts. Its errors are those of
// [Edge.Prepare].
func New(c Config, o Options) (*Edge, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Edge{options: o, stop: func() {}}
	e.failures = newFailures(o, e.rootOf)
	e.config = &tls.Config{Time: o.Now, GetConfigForClient: e.configFor}
	e.configs = map[uint16]*tls.Config{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		e.configs[version] = e.newTLSConfig(version, "")
	}
	v, err := e.Prepare(c, o.Hosts, o.PlainHTTP, nil)
	if err != nil {
		return nil, err
	}
	e.Activate(v)
	return e, nil
}

// cipherSuites returns the accepted TLS 1.2 suites: those with forward secrecy and
// authenticated encryption.
func cipherSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// configFor returns the TLS config for a client, as the active view decides. It logs the
// reason if the handshake is going to fail.
func (e *Edge) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	v, name := e.view.Load(), askedFor(hello)
	findingsOf(hello).name = name
	if v.acme != nil && isValidation(hello) {
		if cert := v.acme.challenges.certificate(name); cert != nil {
			return validationConfig(cert), nil
		}
		e.failures.noOrder(hello, name)
		return v.unknown, nil
	}
	if !v.hosts.has(name) {
		e.failures.noRoute(hello, canonicalName(hello.ServerName), v.hosts.all)
		return v.unknown, nil
	}
	e.failures.unserved(hello, name, v.config)
	if p := v.clientPolicy(name); p != nil {
		return e.clientConfigFor(v, hello, name, p), nil
	}
	return v.config, nil
}

// Certificates describes all certificates, for health checks and metrics.
func (e *Edge) Certificates() []CertificateStatus {
	var all []CertificateStatus
	for _, s := range e.view.Load().sources {
		all = append(all, s.status()...)
	}
	return all
}

// Chain returns the certificates that a handshake for a route's host would send, the leaf first; none
// if there is no certificate. A star in the host stands for any label.
func (e *Edge) Chain(host string) [][]byte {
	v := e.view.Load()
	name := strings.Replace(host, "*", "any", 1)
	for _, s := range v.sources {
		if c := s.certificate(name, &tls.ClientHelloInfo{ServerName: name}); c != nil {
			return c.Certificate
		}
	}
	return nil
}

// LocalRoot returns the file with the root certificate that signs the certificate of a host; "" if it
// comes from another source than the local authority.
func (e *Edge) LocalRoot(host string) string { return e.rootOf(host) }

// RootPath is the file with the local authority's root certificate; "" if no host uses the
// local authority.
func (e *Edge) RootPath() string {
	l := e.view.Load().local
	if l == nil || len(l.hosts) == 0 {
		return ""
	}
	return l.rootPath
}

// rootOf returns the file with the local authority's root certificate; "" if the host's certificate
// comes from another source.
func (e *Edge) rootOf(host string) string {
	v := e.view.Load()
	if v.local == nil || v.sourceOf(host) != source(v.local) {
		return ""
	}
	return v.local.rootPath
}

// lookEvery is the polling interval for certificate files. Polling works on every file
// system and with every way of replacing a file; change notification does not.
const lookEvery = 2 * time.Second

// Run renews certificates and obtains missing ones until ctx ends. The listeners must be
// open by then, because authorities connect to them. Call it once.
func (e *Edge) Run(ctx context.Context) error {
	e.mu.Lock()
	e.running = ctx
	e.start(e.view.Load().acme)
	e.mu.Unlock()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			e.mu.Lock()
			defer e.mu.Unlock()
			e.stop()
			e.orders.Wait()
			return nil
		case <-t.C:
			for _, s := range e.view.Load().sources {
				s.look()
			}
		}
	}
}

// start runs s in the background while Run is active. A nil s does nothing. The caller
// holds mu.
func (e *Edge) start(s *acmeSource) {
	if e.running == nil || s == nil {
		return
	}
	ctx, cancel := context.WithCancel(e.running)
	e.stop = cancel
	e.orders.Go(func() { s.run(ctx) })
}

// canonicalName returns the client's server name in lower case and without a trailing dot.
// It returns "" if the name is empty or an address, which RFC 6066, section 3 forbids.
func canonicalName(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if hostAddress(name) != nil {
		return ""
	}
	return name
}

// askedFor returns the host that a client asks for. A client that dials an address sends
// no server name, or wrongly sends the address itself. Both mean the local address of the
// connection; the address in the message is not trusted.
func askedFor(hello *tls.ClientHelloInfo) string {
	var local netip.Addr
	if a, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
		local = a.AddrPort().Addr()
	}
	return HostOf(hello.ServerName, local)
}

// addressHost formats an address as routes do: IPv6 in brackets, IPv4-mapped addresses as
// IPv4, no zone.
func addressHost(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// hostAddress parses a host as an address; nil if it is a name.
func hostAddress(host string) net.IP {
	// ParseIP allocates an error for a name.
	if n := len(host); n == 0 || !strings.Contains(host, ":") && (host[n-1] < '0' || host[n-1] > '9') {
		return nil
	}
	return net.ParseIP(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// addressOf returns the address without its port.
func addressOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(a.String()); err == nil {
		return host
	}
	return a.String()
}

// short cuts s to at most n bytes.
func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
