package edge

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"sallyport/proxy/setting"
)

// View is what one configuration says of TLS: which hosts there are, and which source has
// the certificate of each. It is immutable, but for what its sources learn: they renew
// certificates. [Edge.Prepare] makes one.
type View struct {
	hosts   hostSet
	sources []source // in the order of preference
	files   *fileSource
	acme    *acmeSource // nil: none
	names   []string    // that acme is to have certificates for
	local   *localSource
	config  *tls.Config // for hosts that routes have
	unknown *tls.Config // has no certificate, which ends the handshake with unrecognized_name

	digests [3]string // of what files, acme and local were made from
}

// Prepare makes a view of a configuration for hosts. plainHTTP is as of
// [Options.PlainHTTP]. It reads the certificates, and makes the local authority where
// there is none; it asks nothing of the network, starts nothing, and changes nothing
// that serves. Sources of the view in force that are configured alike are used again.
//
// It returns an error if a file is missing or does not fit, or if a host has no
// certificate: nothing is left to be found out by a client.
func (e *Edge) Prepare(c Config, hosts []string, plainHTTP bool) (*View, error) {
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
	v := &View{hosts: newHostSet(o.Hosts)}
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

// addFiles adds the certificates in files.
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

// addACME adds the authorities for the hosts that files and the local authority leave.
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

// addLocal adds the local authority for the hosts that are left.
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

// Activate puts a view in force: handshakes that begin from now on go by it, names that
// it has besides are obtained, and those that it has no more are not renewed. Orders under
// way go on where the section acme is the same. Connections stay what they are.
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

// newTLSConfig makes the config for the hosts of views with this oldest version. It
// refers to no view: a connection keeps its config for as long as it lives, and must not
// keep a view that was replaced.
func (e *Edge) newTLSConfig(version uint16) *tls.Config {
	c := &tls.Config{
		MinVersion: version,
		Time:       e.options.Now,
		// For 1.2 only; those of 1.3 are all sound and not configurable.
		CipherSuites: cipherSuites(),
		// A set: crypto/tls chooses in this order whatever ours is, the hybrid
		// with ML-KEM first.
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384},
		NextProtos:       []string{"h2", "http/1.1"},
		// Large bodies go out in full records at once.
		DynamicRecordSizingDisabled: true,
		// crypto/tls has no early data (0-RTT), which could be replayed.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return e.view.Load().certificateFor(hello, e.log)
		},
	}
	bindTickets(c, e.config, e.options.Now)
	return c
}

// certificateFor is asked for names that a route has.
func (v *View) certificateFor(hello *tls.ClientHelloInfo, log *refusalLog) (*tls.Certificate, error) {
	name := askedFor(hello)
	for _, s := range v.sources {
		if c := s.certificate(name, hello); c != nil {
			return c, nil
		}
	}
	if v.acme != nil {
		log.missing(hello, name, v.acme.missing(name))
	}
	return nil, nil
}

// sourceOf is the source that has the certificate of a route's host; nil: none has.
// What ACME has to care for it covers before there is a certificate.
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

// Local says whether the certificate of a route's host is one of the local authority.
// Browsers must not be told to insist on those.
func (v *View) Local(host string) bool {
	s := v.sourceOf(host)
	return s != nil && v.local != nil && s == source(v.local)
}

// hostSet is a set of route hosts.
type hostSet struct {
	all      []string            // as given
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

// has says whether a name is one of the hosts or falls under one with a "*",
// which stands for one label.
func (s *hostSet) has(name string) bool {
	if _, ok := s.exact[name]; ok {
		return true
	}
	label, rest, _ := strings.Cut(name, ".")
	_, ok := s.wildcard[rest]
	return ok && label != "" && rest != "" && hostAddress(name) == nil
}
