package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/proxy/clientpolicy"
	"sallyport/proxy/config"
	"sallyport/proxy/credential"
	"sallyport/proxy/edge"
	"sallyport/proxy/exchange"
	"sallyport/proxy/expiry"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/pages"
	"sallyport/proxy/ratelog"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/upstream"
)

// snapshot is a compiled configuration. It is immutable, except for the revocations, and holds no
// state that must survive a reload.
type snapshot struct {
	exchange.Snapshot
	config  *Config
	outline config.Outline

	ends      []expiry.End // when keys and certificates of the configuration expire, except the gateway's own certificates
	tls       *edge.View
	auth      *auth.Auth
	certs     *clientcert.Hosts
	apiKeys   *auth.APIKeys
	upstreams []*upstream.Upstream
	// credentials are what the gateway itself shows to upstreams.
	credentials []*credential.Credential
	counts      *limit.Lease

	revokedAlone bool // revocations were replaced since; guarded by Gateway.reloading

	// Listeners read these fields for each connection.
	plainFrom, forwardAuthFrom []netip.Prefix
	balancers                  edge.Balancers
	h2c                        bool
	handshakeTime              time.Duration
}

// build compiles a checked configuration. It opens the files that the configuration names. It uses
// no network and starts no goroutine.
func build(cfg *Config, m *memory) (_ *snapshot, err error) {
	s := &snapshot{config: cfg, outline: config.OutlineOf(cfg), counts: m.counts.Lease()}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	s.addListening(&cfg.Listen)
	s.ends = cfg.Ends(true, m.options.Now())
	s.Proxies = config.Prefixes(cfg.TrustedProxies)
	s.BodyRate = int64(cfg.Limits.WithDefaults().BodyRate)
	s.PublicHTTPS = cfg.PublicHTTPS
	s.Durable = cfg.Audit.Durable
	if s.certs, err = clientcert.New(cfg.ClientCertificates, m.certs, m.options.Now); err != nil {
		return nil, err
	}
	if s.auth, s.apiKeys, err = newAuth(cfg, m.auth, s.certs); err != nil {
		return nil, err
	}
	s.Own = make(map[string]*limit.Own, len(s.apiKeys.Limits()))
	for name, l := range s.apiKeys.Limits() {
		s.Own[name] = s.counts.Own(name, limit.OwnConfig{Rate: l.Rate.Limit, Burst: l.Rate.Burst, InFlight: l.InFlight})
	}
	var clients edge.ClientPolicies
	if p := clientpolicy.New(cfg, s.certs); p != nil {
		clients, s.CheckConn, s.CheckBalanced = p.Of, p.CheckConn, p.CheckBalanced
		s.CertificateField, s.Outdated = p.CertificateField, p.Outdated
	}
	if s.tls, err = m.edge.Prepare(cfg.TLS, cfg.TLSHosts(), len(cfg.Listen.HTTPAddrs()) > 0, clients); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if s.Signers, err = seal.NewSigners(s.auth, cfg.Integrity.Publish, m.options.Now); err != nil {
		return nil, err
	}
	s.Assertions = credential.NewKeySet(s.auth.Keys(), m.options.Now)
	if err := s.addRoutes(m); err != nil {
		return nil, err
	}
	if err := s.addLogins(); err != nil {
		return nil, err
	}
	return s, nil
}

// newAuth returns the part of a configuration that proves callers, and its API keys. It reads the
// files with credentials.
func newAuth(cfg *Config, m *auth.Memory, certs *clientcert.Hosts) (*auth.Auth, *auth.APIKeys, error) {
	keys, err := auth.ReadSigningKeys(cfg.SigningKeys)
	if err != nil {
		return nil, nil, err
	}
	apiKeys, err := auth.ReadAPIKeys(cfg.APIKeys, cfg.APIKeyFile)
	if err != nil {
		return nil, nil, err
	}
	revoked, err := auth.ReadRevocations(cfg.Revoked)
	if err != nil {
		return nil, nil, fmt.Errorf("revoked: %w", err)
	}
	passwords, err := auth.ReadAllPasswords(cfg.Basic)
	if err != nil {
		return nil, nil, err
	}
	logins, err := cfg.ReadLogins()
	if err != nil {
		return nil, nil, err
	}
	integrity := cfg.Integrity.WithDefaults()
	a, err := auth.New(auth.Config{
		Issuers: cfg.Issuers, Keys: keys, APIKeys: apiKeys, Passwords: passwords, Logins: logins, Revoked: revoked, ClientCerts: certs, Aliases: cfg.Aliases(),
		MaxAge: integrity.MaxAge.D(), Skew: integrity.Skew.D(),
	}, m)
	return a, apiKeys, err
}

// addListening sets the fields for listeners.
func (s *snapshot) addListening(c *config.ListenConfig) {
	s.handshakeTime = s.config.Limits.WithDefaults().HeadTime.D()
	if p := c.ProxyProtocol; p != nil {
		s.balancers = edge.Balancers{From: config.Prefixes(p.From), Optional: p.Optional, HeaderTime: s.handshakeTime}
	}
	if p := c.InsecurePlain; p != nil {
		s.plainFrom, s.h2c = config.Prefixes(p.From), p.H2C
	}
	if p := c.ForwardAuth; p != nil {
		s.ForwardAuth, s.ReplacesCookie, s.forwardAuthFrom = p.Dialect, p.ReplacesCookie, config.Prefixes(p.From)
	}
}

// activate applies the snapshot's settings to the process memory, just before the snapshot becomes
// current.
func (s *snapshot) activate(m *memory) {
	s.certs.Activate()
	s.auth.Activate()
	for _, c := range s.credentials {
		c.Activate()
	}
	m.edge.Activate(s.tls)
	m.setBounds(s.config)
	m.Metrics.SetRoutes(s.config.RouteNames())
	m.Metrics.SetModels(s.config.Metrics.Models)
	integrity := s.config.Integrity.WithDefaults()
	m.Held.Resize(int64(integrity.Memory))
	_ = m.replay.Adjust(nonceBounds(&integrity)) // already validated by the configuration check
}

// release releases the snapshot's share of the process memory. No exchange may use the snapshot any
// longer. A snapshot that was never current may be released too.
func (s *snapshot) release() {
	if s.auth != nil {
		s.auth.Close()
	}
	if s.certs != nil {
		s.certs.Close()
	}
	for _, u := range s.upstreams {
		u.Close()
	}
	for _, c := range s.credentials {
		c.Close()
	}
	s.counts.Release()
}

// addRoutes builds the routes, and the guard for the fields they set.
func (s *snapshot) addRoutes(m *memory) error {
	cfg := s.config
	var own, covered []string
	owned := route.OwnedFields(cfg.Routes, func(rc *route.Config) (servers []string) {
		for of := range cfg.EachUpstream(rc) {
			_, u, _ := cfg.UpstreamOf(of) // one that cannot be read is an error below
			servers = append(servers, u.Servers()...)
		}
		return servers
	})
	byName, credentials := map[string]*upstream.Upstream{}, map[string]*credential.Credential{}
	for i := range cfg.Routes {
		rc := &cfg.Routes[i]
		r, err := s.newRoute(rc, m)
		if err != nil {
			return fmt.Errorf("route %s: %w", rc.Name, err)
		}
		r.OwnsAuthorization = owned[i]["authorization"]
		for of := range cfg.EachUpstream(rc) {
			if field := cfg.CredentialField(of); field != "" {
				owned[i][message.Fold(field)] = true
			}
			b, err := s.backend(of, r.Identity.Fields(), byName, credentials, m)
			if err != nil {
				return fmt.Errorf("route %s: %w", r.Name, err)
			}
			r.Digests = r.Digests || b.Leg.Digests()
			r.AddBackend(of.Upstream, b, of == rc)
		}
		r.ToUpstream = route.NewEdits(&rc.Headers.Request, owned[i])
		own = append(own, r.Identity.Own()...)
		covered = append(covered, rc.Integrity.Cover...)
		for _, h := range rc.Host {
			onHost := *r
			onHost.Security = route.NewSecurity(&rc.SecurityHeaders, h, s.tls.Local(h))
			s.Routes.Add(h, rc.Path, &onHost)
		}
	}
	s.Guard = route.NewGuard(own, covered, cfg.TokenFields())
	return nil
}

// newRoute builds a route except for its upstream and the parts that depend on the host.
func (s *snapshot) newRoute(c *route.Config, m *memory) (*route.Route, error) {
	cfg := s.config
	r, err := cfg.DecidingRoute(c)
	if err != nil {
		return nil, err
	}
	r.Timeouts = route.NewTimeouts(cfg.TimeoutsOf(c))
	r.Calls = route.NewCallTimeouts(cfg.OwnTimeouts(c))
	r.ToClient = route.NewEdits(&c.Headers.Response, nil)
	r.Passed = route.NewPassed(c.PassIdentityFields)
	r.CORS = route.NewCORS(c)
	r.Compression = route.NewCompression(&c.Compress)
	r.UpgradeWarned = new(ratelog.Rarely)
	r.Identity = c.Identity.Names()
	r.KeepServer = c.KeepServer
	r.Durable = cfg.DurabilityOf(c)
	r.Integrity = seal.NewPolicy(&cfg.Integrity, &c.Integrity, cfg.DialectOf(c).ActsOnWhole())
	r.Limits.Rates = s.counts.Rates(c.Name, c.Limits.Rate)
	r.Limits.InFlight = s.counts.InFlight(c.Name, c.Limits.InFlight.Number)
	r.Limits.Places = s.counts.Places(c.Name, c.Limits.InFlight.Entries)
	r.Limits.Headers = c.Limits.Headers
	r.TakesPasswords = c.Callers.TakesPasswords()
	r.TakesAPIKeys = c.Callers.TakesAPIKeys()
	r.ForwardAuthorization = c.ForwardAuthorization
	if r.Chain, err = s.auth.Route(cfg.DemandOf(c)); err != nil {
		return nil, err
	}
	servers, bound := s.auth.AuthorizationServers(c.Callers.Names())
	r.Resource = route.NewResource(c.Path, servers, config.ScopesOf(cfg.RulesOf(c)), bound)
	return r, nil
}

// backend returns what a route needs to send requests to its upstream. identity are the fields with the
// caller's identity.
func (s *snapshot) backend(c *route.Config, identity seal.Identity, byName map[string]*upstream.Upstream, credentials map[string]*credential.Credential, m *memory) (b route.Backend, err error) {
	_, up, err := s.config.UpstreamOf(c)
	if err != nil {
		return b, err
	}
	if b.Leg, err = seal.NewLeg(&up.Integrity, identity, s.auth, m.options.Now); err != nil || c.Upstream == "" {
		return b, err
	}
	if b.Upstream, err = s.upstream(c, byName, m); err != nil {
		return b, err
	}
	b.Credential, err = s.credential(c, credentials, m)
	return b, err
}

// addLogins completes the doors of the hosts where people sign in.
func (s *snapshot) addLogins() error {
	if len(s.config.Logins) == 0 {
		return nil
	}
	p, err := pages.New(&s.config.Pages)
	if err != nil {
		return err
	}
	s.Logins = &exchange.Logins{Login: s.auth.Login, BackChannel: s.auth.BackChannel, Titles: map[string]string{}, Pages: p}
	for name, l := range s.config.Logins {
		s.Logins.Titles[name] = cmp.Or(l.Title, name)
	}
	return s.Routes.Doors(func(d *route.Door) error {
		var callers []string
		for _, name := range d.Logins {
			callers = append(callers, "login/"+name)
		}
		d.Chain, err = s.auth.Route(auth.Demand{Callers: callers})
		return err
	})
}

// upstream returns the upstream of a route. Routes that name the same one share it.
func (s *snapshot) upstream(c *route.Config, byName map[string]*upstream.Upstream, m *memory) (*upstream.Upstream, error) {
	name, uc, err := s.config.UpstreamOf(c)
	if err != nil {
		return nil, err
	}
	d := s.config.DialectOf(c)
	key := name + " " + d.Name() // several routes may use a URL, with different dialects
	if u := byName[key]; u != nil {
		return u, nil
	}
	u, err := m.pools.Open(name, uc, d.NeedsLocalhost())
	if err != nil {
		return nil, err
	}
	byName[key] = u
	s.upstreams = append(s.upstreams, u)
	return u, nil
}

// credential returns what the gateway shows to the upstream of a route; nil for nothing.
func (s *snapshot) credential(c *route.Config, byName map[string]*credential.Credential, m *memory) (*credential.Credential, error) {
	name, uc, err := s.config.UpstreamOf(c)
	if err != nil {
		return nil, err
	}
	known, found := byName[name]
	if found {
		return known, nil
	}
	shown, err := credential.Open(name, &uc.Credentials, s.auth.Key, m.credentials)
	if err != nil {
		return nil, err
	}
	if byName[name] = shown; shown != nil {
		s.credentials = append(s.credentials, shown)
	}
	return shown, nil
}
