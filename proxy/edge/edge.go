// Package edge answers who we are to a client that connects: it chooses the
// certificate for the name that the client asks for, and refuses names that no
// route has, versions that are too old and connections that are too many, before
// a byte of HTTP is read.
//
// Certificates come from sources: files, authorities that speak ACME, and a local
// authority for development. A source that fails later than at the start keeps
// what it had; what ACME has yet to obtain, it obtains in the background, and the
// name is refused until then.
//
// Clients that dial an address instead of a name send no name (RFC 6066, section
// 3). They ask for the address that they reached, that is, the local address of
// the connection, and it serves if a route lists just that address as its host:
//
//	host: [localhost, 127.0.0.1, "[::1]"]
//
// No route does so by itself, so a scanner that walks through addresses learns
// from its handshakes no name that is served here.
package edge

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what an [Edge] takes from its surroundings.
type Options struct {
	// Hosts are the routes' hosts: exact names, "*.example.com", or addresses (IPv6
	// in brackets), as [message.CanonicalHost] gives them. Others are refused in
	// the handshake. See the package's comment on clients that dial an address.
	Hosts []string
	// PlainHTTP says that requests over plain HTTP are answered by what
	// [Edge.ChallengeAnswer] says, so that certificates can be had that way.
	PlainHTTP bool
	// Inspect makes an Edge to look at, or to obtain certificates with, beside one
	// that serves: a host without a certificate is no error, and no local authority
	// is made.
	Inspect bool
	// Challenges is the folder in which processes tell each other what authorities
	// are going to ask; "" for that of the certificates.
	Challenges string
	Log        *slog.Logger     // discarded if nil
	Now        func() time.Time // time.Now if nil
}

// source is a kind of place where certificates come from.
type source interface {
	// certificate returns the one for the client's name, nil if there is none.
	certificate(name string, hello *tls.ClientHelloInfo) *tls.Certificate
	// covers says whether there is one for a host as routes have it.
	covers(host string) bool
	// status tells of all certificates.
	status() []CertificateStatus
	// look renews what has changed on disk or is about to expire.
	look()
}

// Edge is the TLS of a process. It outlives configurations: what one of them says is a
// [View], and one view is in force at a time. Listeners, session tickets and what ACME has
// under way go on from one view to the next. It is safe for concurrent use.
type Edge struct {
	options Options
	view    atomic.Pointer[View]
	config  *tls.Config            // that every handshake begins with; it keeps the keys of tickets
	configs map[uint16]*tls.Config // for hosts that routes have, by oldest version; not changed after New
	log     *refusalLog

	mu      sync.Mutex      // guards what follows
	running context.Context // of Run; nil before it
	orders  sync.WaitGroup  // the source that obtains certificates for the view in force
	stop    func()          // ends that
}

// CertificateStatus tells of one certificate.
type CertificateStatus struct {
	Hosts    []string  // the names that it is for
	Source   string    // "files", "acme" or "local"
	Issuer   string    // the common name of who signed it; "" if there is none yet
	NotAfter time.Time // zero if there is none yet
	// NextRenewal is when it will be renewed, or tried to be; zero for files, which
	// are renewed by others.
	NextRenewal time.Time
	// LastError is why it is not the newest that there is, in words and with what
	// would do; "" if it is.
	LastError string
}

// New makes an Edge whose first view is a configuration for o.Hosts; see [Edge.Prepare]
// for its errors.
func New(c Config, o Options) (*Edge, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Edge{options: o, log: &refusalLog{log: o.Log, lines: pace{now: o.Now}}, stop: func() {}}
	e.config = &tls.Config{Time: o.Now, GetConfigForClient: e.configFor}
	e.configs = map[uint16]*tls.Config{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		e.configs[version] = e.newTLSConfig(version)
	}
	v, err := e.Prepare(c, o.Hosts, o.PlainHTTP)
	if err != nil {
		return nil, err
	}
	e.Activate(v)
	return e, nil
}

// cipherSuites are what is left of TLS 1.2: authenticated encryption, with keys
// that the certificate's key cannot give away later.
func cipherSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// configFor refuses, with words in the log, clients that the handshake is going to fail
// for. The view in force decides.
func (e *Edge) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	v, name := e.view.Load(), askedFor(hello)
	if v.acme != nil && isValidation(hello) {
		if cert := v.acme.challenges.certificate(name); cert != nil {
			return validationConfig(cert), nil
		}
		e.log.noOrder(hello, name)
		return v.unknown, nil
	}
	if !v.hosts.has(name) {
		e.log.noRoute(hello, canonicalName(hello.ServerName), v.hosts.all)
		return v.unknown, nil
	}
	e.log.unserved(hello, name, v.config)
	return v.config, nil
}

// Certificates tells of all certificates, for health checks and metrics.
func (e *Edge) Certificates() []CertificateStatus {
	var all []CertificateStatus
	for _, s := range e.view.Load().sources {
		all = append(all, s.status()...)
	}
	return all
}

// RootPath is the file with the local authority's root certificate; "" if no host needs
// it.
func (e *Edge) RootPath() string {
	l := e.view.Load().local
	if l == nil || len(l.hosts) == 0 {
		return ""
	}
	return l.rootPath
}

// lookEvery is how often files are looked at. Looking, rather than being told,
// works on every file system and with every way of replacing a file.
const lookEvery = 2 * time.Second

// Run keeps the certificates fresh until ctx ends, and obtains those that are missing.
// Listeners must be open by then, for authorities call them. It is called once.
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

// start has a source obtain and renew, while Run goes on; nil: none does. The caller holds
// mu.
func (e *Edge) start(s *acmeSource) {
	if e.running == nil || s == nil {
		return
	}
	ctx, cancel := context.WithCancel(e.running)
	e.stop = cancel
	e.orders.Go(func() { s.run(ctx) })
}

// canonicalName is the name that a client asked for in lower case and without a
// dot at the end; "" for none, and for an address, which a name must not be
// (RFC 6066, section 3).
func canonicalName(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if hostAddress(name) != nil {
		return ""
	}
	return name
}

// askedFor is the host that a client asks for. One that dials an address sends
// no name, or against the rule the address as if it were one. Either means the
// address that it reached: what it wrote is not believed.
func askedFor(hello *tls.ClientHelloInfo) string {
	if name := canonicalName(hello.ServerName); name != "" {
		return name
	}
	if a, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
		return addressHost(a.AddrPort().Addr())
	}
	return ""
}

// addressHost writes an address as routes have it: IPv6 in brackets, IPv4 never
// as IPv6, and no zone.
func addressHost(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// hostAddress is the address that a host is; nil if it is a name.
func hostAddress(host string) net.IP {
	return net.ParseIP(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// refusalLog says in words why handshakes fail, without letting whoever scans
// us fill the disk.
type refusalLog struct {
	log   *slog.Logger
	lines pace
}

// noRoute tells of a client that asks for a name that no route has, or for none.
func (l *refusalLog) noRoute(hello *tls.ClientHelloInfo, name string, hosts []string) {
	asked, hint := name, "add a route for it, or call one of these hosts; try curl --resolve"
	if name == "" {
		// A client that dials an address sends no name. It means the address.
		asked, hint = addressOf(hello.Conn.LocalAddr()), "the client sent no name (SNI), as when the URL has an address; try curl --resolve"
		if hello.ServerName != "" {
			asked = hello.ServerName
		}
	}
	l.warn(fmt.Sprintf("no route for %q; hosts: %s; %s", short(asked, 253), short(strings.Join(hosts, ", "), 400), hint), hello)
}

// missing tells of a client that asks for a certificate that is not there yet.
func (l *refusalLog) missing(hello *tls.ClientHelloInfo, name, why string) {
	if why != "" {
		l.warn(fmt.Sprintf("no certificate for %q yet: %s", name, why), hello)
	}
}

// noOrder tells of a validator that nobody waits for.
func (l *refusalLog) noOrder(hello *tls.ClientHelloInfo, name string) {
	l.warn(fmt.Sprintf("TLS refused for %q: it asks for acme-tls/1, and no order is pending", short(name, 253)), hello)
}

// unserved tells of a client for which no version or cipher suite is left.
func (l *refusalLog) unserved(hello *tls.ClientHelloInfo, name string, c *tls.Config) {
	newest := uint16(0)
	for _, v := range hello.SupportedVersions {
		// Versions that do not exist are offered on purpose (GREASE, RFC 8701).
		if v <= tls.VersionTLS13 {
			newest = max(newest, v)
		}
	}
	switch {
	case newest == tls.VersionTLS12 && newest < c.MinVersion:
		l.warn(fmt.Sprintf("TLS refused for %q: the client offers at most TLS 1.2; update it, or set tls.min_version: \"1.2\"", name), hello)
	case newest < c.MinVersion:
		l.warn(fmt.Sprintf("TLS refused for %q: the client offers at most %s, which is not safe; update it", name, tls.VersionName(newest)), hello)
	case newest == tls.VersionTLS12 && !slices.ContainsFunc(hello.CipherSuites, func(id uint16) bool { return slices.Contains(c.CipherSuites, id) }):
		l.warn(fmt.Sprintf("TLS refused for %q: the client offers TLS 1.2 without any ECDHE suite with AES-GCM or ChaCha20; update it", name), hello)
	}
}

func (l *refusalLog) warn(words string, hello *tls.ClientHelloInfo) {
	quiet, silent := l.lines.line()
	if silent > 0 {
		l.log.Warn("TLS refusals were not logged", "refusals", silent)
	}
	if !quiet {
		l.log.Warn(words, "client", addressOf(hello.Conn.RemoteAddr()))
	}
}

// addressOf is the address without its port.
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
