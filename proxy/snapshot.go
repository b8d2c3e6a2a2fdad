package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// snapshot is what a configuration becomes: all that an exchange decides by. It
// is immutable, so one request sees one configuration.
type snapshot struct {
	routes    routeTable
	guard     guard
	proxies   []netip.Prefix // whose X-Forwarded-For is believed
	upstreams []*upstream.Upstream
	names     []string // of the routes, in the order of the file
}

// timeouts bound an exchange; zero is no bound.
type timeouts struct{ connect, head, idle, total time.Duration }

func (t *timeouts) upstream() upstream.Timeouts {
	return upstream.Timeouts{Connect: t.connect, Head: t.head, Idle: t.idle, Total: t.total}
}

func newTimeouts(c TimeoutsConfig) timeouts {
	bound := func(t setting.Timeout) time.Duration {
		if t == setting.Never {
			return 0
		}
		return t.D()
	}
	return timeouts{connect: c.Connect.D(), head: bound(c.Head), idle: bound(c.Idle), total: bound(c.Total)}
}

// newSnapshot builds what a checked configuration says. It uses no network.
// local says whether a host's certificate is one of the development authority.
func newSnapshot(cfg *Config, a *auth.Auth, o *Options, local func(host string) bool) (*snapshot, error) {
	s := &snapshot{}
	for _, c := range cfg.TrustedProxies {
		s.proxies = append(s.proxies, c.Prefix)
	}
	var own, covered []string
	owned := ownedFields(cfg)
	byName := map[string]*upstream.Upstream{}
	for i := range cfg.Routes {
		rc := &cfg.Routes[i]
		r, err := newRoute(cfg, rc, a, o.Now)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", rc.Name, err)
		}
		r.toUpstream = newEdits(&rc.Headers.Request, owned[rc.Upstream])
		if rc.Upstream != "" {
			if r.upstream, err = s.upstream(cfg, rc, byName, o); err != nil {
				return nil, fmt.Errorf("route %s: %w", r.name, err)
			}
		}
		own = append(own, r.identity.principal, r.identity.scopes, r.identity.requestID)
		covered = append(covered, rc.Integrity.Cover...)
		s.names = append(s.names, r.name)
		for _, h := range rc.Host {
			onHost := *r
			onHost.security = securityFields(rc.SecurityHeaders, local(h))
			s.routes.add(h, rc.Path, &onHost)
		}
	}
	s.guard = newGuard(slices.DeleteFunc(own, func(n string) bool { return n == "" }), covered)
	return s, nil
}

// newRoute builds a route but for its upstream and what depends on the host.
func newRoute(cfg *Config, c *RouteConfig, a *auth.Auth, now func() time.Time) (*route, error) {
	_, up, err := cfg.UpstreamOf(c)
	if err != nil {
		return nil, err
	}
	r := &route{
		name:          c.Name,
		methods:       slices.Clone(c.Methods),
		dialect:       cfg.dialectOf(c),
		timeouts:      newTimeouts(cfg.TimeoutsOf(c)),
		access:        newAccess(c),
		toClient:      newEdits(&c.Headers.Response, nil),
		fixed:         newFixed(c.Respond),
		cors:          newCORS(c),
		compression:   newCompression(&c.Compress),
		websocket:     c.Websocket,
		authorization: c.ForwardAuthorization,
		keepServer:    c.KeepServer,
		limits: routeLimits{
			body:     c.Limits.BodyBytes(),
			rates:    limit.NewRates(c.Limits.Rate, now),
			inFlight: limit.NewInFlight(c.Limits.InFlight),
		},
	}
	r.identity.principal, r.identity.scopes, r.identity.requestID = c.Identity.Names()
	r.integrity = newRouteIntegrity(cfg, c, r.dialect)
	if r.upstreamLeg, err = newUpstreamLeg(&up.Integrity, r.identity, a, now); err != nil {
		return nil, err
	}
	if r.rewriting, err = newRewriting(c); err != nil {
		return nil, err
	}
	if r.chain, err = a.Route(demandOf(cfg, c)); err != nil {
		return nil, err
	}
	rules := cfg.RulesOf(c)
	if r.fixed != nil && len(rules) == 0 {
		rules = everyone()
	}
	if r.policy, err = policy.New(r.dialect, rules); err != nil {
		return nil, err
	}
	return r, nil
}

// demandOf is what a route wants of callers.
func demandOf(cfg *Config, c *RouteConfig) auth.Demand {
	return auth.Demand{
		Callers: c.Callers.Names(), All: len(c.Callers.All) > 0, Independent: c.Callers.Bind == bindIndependent,
		Audience: c.Audience, Signatures: signatureDemand(cfg, c),
	}
}

// upstream returns the upstream of a route, made once for all routes that name it.
func (s *snapshot) upstream(cfg *Config, c *RouteConfig, byName map[string]*upstream.Upstream, o *Options) (*upstream.Upstream, error) {
	name, uc, err := cfg.UpstreamOf(c)
	if err != nil {
		return nil, err
	}
	if u := byName[name]; u != nil {
		return u, nil
	}
	u, err := upstream.New(name, uc, upstream.Options{Now: o.Now, Clock: o.clock, Dial: o.Dial, Localhost: cfg.dialectOf(c).NeedsLocalhost()})
	if err != nil {
		return nil, err
	}
	byName[name] = u
	s.upstreams = append(s.upstreams, u)
	return u, nil
}

// securityFields are what every answer carries unless the upstream set its own:
// what Flask-Talisman sends, less the obsolete X-XSS-Protection. With a
// certificate of the development authority there is no HSTS, which would lock a
// browser out of a host whose next certificate it does not know.
func securityFields(set map[string]string, local bool) message.Fields {
	all := message.Fields{
		{Name: "x-frame-options", Value: "SAMEORIGIN"},
		{Name: "x-content-type-options", Value: "nosniff"},
		{Name: "content-security-policy", Value: "default-src 'self'; object-src 'none'"},
		{Name: "strict-transport-security", Value: "max-age=31556926; includeSubDomains"},
		{Name: "referrer-policy", Value: "strict-origin-when-cross-origin"},
	}
	for name, value := range set {
		name = strings.ToLower(name)
		if value == configOff {
			all.Del(name)
		} else {
			all.Set(name, value)
		}
	}
	if local {
		all.Del("strict-transport-security")
	}
	slices.SortFunc(all, func(a, b message.Field) int { return strings.Compare(a.Name, b.Name) })
	return all
}
