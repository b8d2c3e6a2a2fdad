package edge

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sallyport/proxy/setting"
)

// View is the TLS part of one configuration: its hosts, and the source of each host's
// certificate. It is immutable, but its sources renew certificates. [Edge.Prepare] makes one.
type View struct {
	hosts   hostSet
	sources []source // in order of preference
	files   *fileSource
	acme    *acmeSource // nil if not configured
	names   []string    // names that acme obtains certificates for
	local   *localSource
	config  *tls.Config // for hosts of routes
	unknown *tls.Config // has no certificate, so the handshake ends with unrecognized_name

	digests [3]string // of the configuration of files, acme and local

	clients       ClientPolicies // nil: no host asks for certificates
	clientMu      sync.Mutex     // guards clientConfigs
	clientConfigs map[clientConfig]*tls.Config
}

// Prepare makes a view of a configuration for hosts. plainHTTP is as in
// [Options.PlainHTTP]; clients may be nil. It reads certificate files and creates the local authority if it is
// missing. It uses no network, starts nothing and does not affect the active view. Sources of
// the active view whose configuration did not change are reused.
//
// It returns an error if a file is missing or invalid, or if a host has no certificate. So the
// operator sees the fault before a client does.
func (e *Edge) Prepare(c Config, hosts []string, plainHTTP bool, clients ClientPolicies) (*View, error) {
	version, ok := c.minVersion()
	if !ok {
		return nil, fmt.Errorf("tls.min_version %q is not served", c.MinVersion)
	}
	o := e.options
	o.Hosts, o.PlainHTTP = slices.Clone(hosts), plainHTTP
	before := e.view.Load()
	if before == nil {
		before = &View{}
	}
	v := &View{hosts: newHostSet(o.Hosts), clients: clients}
	for _, add := range []func(*Config, Options, *View) error{v.addFiles, v.addACME, v.addLocal} {
		if err := add(&c, o, before); err != nil {
			return nil, err
		}
	}
	for _, host := range o.Hosts {
		if !v.covers(host) && !o.Inspect {
			return nil, fmt.Errorf("no certificate for host %s: %s", host, cureUncovered)
		}
	}
	v.unknown = &tls.Config{MinVersion: version, SessionTicketsDisabled: true, Time: o.Now}
	v.unknown.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	v.config = e.configs[version]
	return v, nil
}

func (v *View) addFiles(c *Config, o Options, before *View) error {
	if len(c.Files) == 0 {
		return nil
	}
	v.digests[0] = setting.Digest([]any{c.Files, o.Hosts})
	if v.files = before.files; v.files == nil || v.digests[0] != before.digests[0] {
		var err error
		if v.files, err = newFileSource(c.Files, o, before.files); err != nil {
			return err
		}
	}
	v.sources = append(v.sources, v.files)
	return nil
}

// addACME adds the ACME source, for hosts that neither files nor the local authority take.
func (v *View) addACME(c *Config, o Options, before *View) error {
	if c.ACME == nil {
		return nil
	}
	var mine []string
	for _, host := range o.Hosts {
		if v.covers(host) || c.Local != nil && c.Local.takes(host) {
			continue
		}
		if problem, cure := c.cannotProve(host, o.PlainHTTP); problem != "" {
			return fmt.Errorf("no certificate for host %s: %s; %s", host, problem, cure)
		}
		mine = append(mine, host)
	}
	v.names = acmeNames(c.ACME, mine)
	v.digests[1] = setting.Digest([]any{c.ACME, o.PlainHTTP})
	if v.acme = before.acme; v.acme == nil || v.digests[1] != before.digests[1] {
		var err error
		if v.acme, err = newACMESource(c.ACME, v.names, o); err != nil {
			return err
		}
		if before.acme != nil {
			v.acme.inherit(before.acme)
		}
	}
	v.sources = append(v.sources, v.acme)
	return nil
}

// addLocal adds the local authority, for the remaining hosts.
func (v *View) addLocal(c *Config, o Options, before *View) error {
	if c.Local == nil || o.Inspect && c.Local.missing() {
		return nil
	}
	var mine []string
	for _, host := range o.Hosts {
		if !v.covers(host) {
			mine = append(mine, host)
		}
	}
	v.digests[2] = setting.Digest([]any{c.Local.dir(), mine})
	if v.local = before.local; v.local == nil || v.digests[2] != before.digests[2] {
		var err error
		if v.local, err = newLocalSource(c.Local.dir(), mine, o); err != nil {
			return err
		}
	}
	v.sources = append(v.sources, v.local)
	return nil
}

// Activate makes v the active view. New handshakes use it, its new names are obtained, and
// names that it lacks are no longer renewed. Pending orders continue if the section acme did not
// change. Established connections are not affected.
func (e *Edge) Activate(v *View) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.view.Load()
	if v.acme != nil {
		v.acme.retarget(v.names)
	}
	e.view.Store(v)
	if before == nil || before.acme == v.acme {
		return
	}
	e.stop()
	e.stop = func() {}
	e.start(v.acme)
}

// newTLSConfig makes the config for hosts with this minimum version, and this client policy if it
// is not "". It must not refer to a view or a policy: a connection keeps its config for its whole
// life, which would retain replaced ones.
func (e *Edge) newTLSConfig(version uint16, policy string) *tls.Config {
	c := &tls.Config{
		MinVersion: version,
		Time:       e.options.Now,
		// For TLS 1.2 only: crypto/tls does not let us configure the suites of TLS 1.3.
		CipherSuites: cipherSuites(),
		// The order has no effect: crypto/tls uses its own, the hybrid with ML-KEM first.
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384},
		NextProtos:       []string{"h2", "http/1.1"},
		// Full-size records from the start, for large bodies.
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return e.view.Load().certificateFor(hello, e.failures)
		},
	}
	bindTickets(c, e.config, policy, e.options.Now)
	return c
}

// certificateFor returns the certificate for a host that a route has, or nil.
func (v *View) certificateFor(hello *tls.ClientHelloInfo, f *failures) (*tls.Certificate, error) {
	name := askedFor(hello)
	for _, s := range v.sources {
		if c := s.certificate(name, hello); c != nil {
			return c, nil
		}
	}
	if v.acme != nil {
		f.missing(hello, name, v.acme.missing(name))
	}
	return nil, nil
}

// sourceOf returns the source of the certificate for a route's host, or nil. The ACME source
// counts even before it has obtained the certificate.
func (v *View) sourceOf(host string) source {
	for _, s := range v.sources {
		if s == source(v.acme) && v.acme != nil {
			if coveredBy(host, v.names) {
				return s
			}
		} else if s.covers(host) {
			return s
		}
	}
	return nil
}

func (v *View) covers(host string) bool { return v.sourceOf(host) != nil }

// Local reports whether the local authority signs the certificate of a route's host. Do not
// send HSTS for such hosts: browsers would insist on a certificate that they may not trust.
func (v *View) Local(host string) bool {
	s := v.sourceOf(host)
	return s != nil && v.local != nil && s == source(v.local)
}

// hostSet is a set of route hosts.
type hostSet struct {
	all      []string            // as given to newHostSet
	exact    map[string]struct{} // "models.example.com"
	wildcard map[string]struct{} // "example.com" for "*.example.com"
}

func newHostSet(hosts []string) hostSet {
	s := hostSet{all: slices.Clone(hosts), exact: map[string]struct{}{}, wildcard: map[string]struct{}{}}
	for _, h := range hosts {
		if rest, ok := strings.CutPrefix(h, "*."); ok {
			s.wildcard[rest] = struct{}{}
		} else {
			s.exact[h] = struct{}{}
		}
	}
	return s
}

// has reports whether a name is one of the hosts or matches a wildcard host, whose "*" stands
// for one label.
func (s *hostSet) has(name string) bool {
	if _, ok := s.exact[name]; ok {
		return true
	}
	label, rest, _ := strings.Cut(name, ".")
	_, ok := s.wildcard[rest]
	return ok && label != "" && rest != "" && hostAddress(name) == nil
}
