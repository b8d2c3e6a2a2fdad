package auth

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/auth/fetch"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

const (
	defaultSkew     = time.Minute
	maxSkew         = 5 * time.Minute
	defaultRefresh  = 5 * time.Minute
	minRefresh      = 30 * time.Second
	maxRefresh      = time.Hour
	defaultMaxStale = 24 * time.Hour
	maxMaxStale     = 7 * 24 * time.Hour
)

// IssuerConfig is one entry of `issuers`: an issuer of bearer tokens, and the
// requirements on its tokens.
type IssuerConfig struct {
	// URL is the issuer's name. It is compared byte for byte with the claim iss and
	// with the discovery document: a trailing slash counts. {tenantid} in it stands for
	// one of tenants.
	URL string `yaml:"url"`
	// Tenants are the ids of the tenants of Entra whose tokens are taken. The caller's
	// name begins with its tenant, as in TENANT/NAME: each tenant chooses its own names.
	Tenants setting.List[string] `yaml:"tenants"`
	// Audience lists the gateway's names at the issuer. The claim aud of a token must
	// contain one of them. Routes may narrow the list.
	Audience setting.List[string] `yaml:"audience"`
	// AudienceClaim is the path of the claim that must contain one of audience instead of
	// aud, such as client_id for Amazon Cognito, whose access tokens have no aud. If a
	// token has aud too, both must. Default: aud.
	AudienceClaim string `yaml:"audience_claim"`

	// Discovery is the URL before /.well-known/openid-configuration, if the gateway
	// reaches the issuer at another address than URL. The document must still name URL
	// as its issuer.
	Discovery setting.URL `yaml:"discovery"`
	// JWKS is the URL of the keys. Default: jwks_uri of the discovery document.
	JWKS setting.URL `yaml:"jwks"`
	// JWKSFile is a file with the keys, as a JSON Web Key Set, for gateways that cannot
	// reach the issuer. Nothing is fetched then. It is read again when it changes.
	JWKSFile setting.Path `yaml:"jwks_file"`
	// CA is a PEM file with the root certificates that the gateway trusts for the
	// issuer. Default: those of the system.
	CA setting.Path `yaml:"ca"`
	// TokenFile is a file with a bearer token to fetch discovery and keys with, as the API
	// server of Kubernetes demands. It is read again for each fetch, and sent over https to
	// the hosts that url, discovery and jwks name, never to one that a document names.
	TokenFile setting.Place `yaml:"token_file"`
	// Proxy is the HTTP proxy through which the gateway reaches the issuer. The proxy must
	// allow CONNECT. Default: none, also if the environment names one.
	Proxy ProxyConfig `yaml:"proxy"`
	// TokenFrom says which field has the tokens of this issuer, if a proxy in front of the
	// gateway adds them. Default: Authorization, from anybody.
	TokenFrom *TokenFromConfig `yaml:"token_from"`
	// InsecureHTTP allows http to the issuer at addresses other than loopback.
	InsecureHTTP bool `yaml:"insecure_http"`
	// Refresh is how often the keys are fetched. A withdrawn key stays usable for up to
	// this time and a tenth. Default: 5m.
	Refresh setting.Duration `yaml:"refresh"`
	// MaxStale is how long keys stay usable while the issuer is unreachable. Default:
	// 24h.
	MaxStale setting.Duration `yaml:"max_stale"`

	// Algorithms are the accepted signature algorithms; each must also fit the key.
	// Default: all of RS*, PS*, ES* and EdDSA.
	Algorithms setting.List[string] `yaml:"algorithms"`
	// Typ are the accepted values of the header typ, letter case aside; "absent"
	// accepts tokens without one. Default: JWT, at+jwt and absent.
	Typ setting.List[string] `yaml:"typ"`
	// Skew is how far the issuer's clock may be off, at most 5m. Default: 60s.
	Skew setting.Duration `yaml:"skew"`
	// MaxLifetime bounds the time between iat and exp, which makes iat mandatory.
	// Default: no bound.
	MaxLifetime setting.Duration `yaml:"max_lifetime"`
	// Require names claims by path, each with the values of which it must have at
	// least one; "*" is any value. Default: none.
	Require map[string]setting.List[ClaimValue] `yaml:"require"`

	// Principal is the path of the claim with the caller's name. Default: sub.
	Principal string `yaml:"principal"`
	// Groups is the path of the claim with the caller's groups, such as
	// realm_access.roles. Some tokens leave them to another source (_claim_names or
	// hasgroups, as Entra's of people with more than 200): then every deny rule about a
	// group covers the caller, and no allow rule does. Default: none.
	Groups string `yaml:"groups"`

	// ACR says by which claim the issuer tells how people proved who they are, and how it is asked for a
	// second factor, where that is not the claim acr and the parameter acr_values. Default: those.
	ACR *ACRConfig `yaml:"acr"`

	// BoundTokens says whether tokens that are bound to a client certificate (RFC 8705) are
	// taken: off refuses them, accept takes them from the client with that certificate, and
	// require takes no others. Hosts of routes that list such an issuer ask for certificates, by
	// client_certificates. Default: off.
	BoundTokens string `yaml:"bound_tokens"`

	// Introspection is how the gateway asks the issuer about tokens that are not JWTs.
	// Default: it takes none of those.
	Introspection *IntrospectionConfig `yaml:"introspection"`
}

// ClaimValue is a claim's value as text: strings unchanged, numbers and booleans as in
// JSON.
type ClaimValue string

// UnmarshalText accepts any scalar, so that `email_verified: true` needs no quotes.
func (v *ClaimValue) UnmarshalText(text []byte) error {
	*v = ClaimValue(text)
	return nil
}

// algorithms are the supported signature algorithms of tokens: the asymmetric ones of
// RFC 7518, and EdDSA with Ed25519.
var algorithms = [...]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

func known(alg string) bool { return slices.Contains(algorithms[:], alg) }

// Check records every fault of the issuer, whose place in the configuration is path.
func (c *IssuerConfig) Check(path string, f *setting.Faults) {
	at := func(field string) string { return setting.Join(path, field) }
	c.checkAddresses(at, f)
	c.checkTenants(at, f)
	if len(c.Audience) == 0 {
		f.Add(at("audience"), "", "an issuer without an audience would accept tokens for other services", "name the audience that this gateway has at the issuer")
	}
	for _, a := range c.Audience {
		if a == "" || a == "*" {
			f.Add(at("audience"), a, "not an audience", "name the one that this gateway has at the issuer")
		}
	}
	for _, alg := range c.Algorithms {
		switch {
		case known(alg):
		case alg == "none" || strings.HasPrefix(alg, "HS"):
			f.Add(at("algorithms"), alg, "only signatures by a private key prove who issued a token", "use some of "+strings.Join(algorithms[:], ", "))
		default:
			f.Add(at("algorithms"), alg, "unknown algorithm", "use some of "+strings.Join(algorithms[:], ", "))
		}
	}
	for _, typ := range c.Typ {
		if mediaType(typ) == "" {
			f.Add(at("typ"), typ, "not a type", "write one such as at+jwt, or absent for tokens without")
		}
	}
	for claim, values := range c.Require {
		if claim == "" || len(values) == 0 {
			f.Add(setting.Join(at("require"), claim), "", "a required claim needs a name and a value", `write claim: value, or claim: "*" for any value`)
		}
	}
	switch c.BoundTokens {
	case "", BoundOff, BoundAccept, BoundRequire:
	default:
		f.Add(at("bound_tokens"), c.BoundTokens, "unknown value", "write off, accept or require")
	}
	c.checkTimes(at, f)
	if c.TokenFrom != nil {
		c.TokenFrom.check(at("token_from"), f)
	}
	if c.ACR != nil {
		c.ACR.check(at, f)
	}
	if c.Introspection != nil {
		c.Introspection.check(at("introspection"), c.discovers(), c.InsecureHTTP, f)
	}
}

// discovers reports whether the issuer's discovery document is read.
func (c *IssuerConfig) discovers() bool {
	return c.JWKSFile == "" && c.JWKS.IsZero() || !c.Discovery.IsZero()
}

func (c *IssuerConfig) checkTimes(at func(string) string, f *setting.Faults) {
	bound := func(field string, d setting.Duration, low, high time.Duration) {
		if d != 0 && (d.D() < low || d.D() > high) {
			f.Add(at(field), d.String(), "out of bounds", "choose between "+low.String()+" and "+high.String())
		}
	}
	bound("skew", c.Skew, time.Millisecond, maxSkew)
	bound("refresh", c.Refresh, minRefresh, maxRefresh)
	bound("max_stale", c.MaxStale, time.Minute, maxMaxStale)
	bound("max_lifetime", c.MaxLifetime, time.Second, 10*365*24*time.Hour)
	if c.MaxStale != 0 && c.MaxStale.D() < c.Refresh.Or(defaultRefresh) {
		f.Add(at("max_stale"), c.MaxStale.String(), "keys would be stale before they are fetched again", "choose more than refresh")
	}
}

// issuer is a configured issuer at run time.
type issuer struct {
	name     string
	source   string // "issuer/" + name
	digest   string // of the issuer's name and configuration
	url      string
	tenants  []string // of an url with {tenantid}
	urls     []string // url, or that of each tenant, in the same order
	audience []string
	field    string         // with its tokens; "" for authorization
	from     []netip.Prefix // the peers whose field counts
	proxied  bool           // it is reached through a proxy alone
	rules    tokenRules
	contexts login.Contexts
	keys     keySource
	fetching fetch.Options // without the token of token_file

	introspect *introspectSource // nil if the issuer is not asked about tokens

	// memory is the shared state of this configuration; nil while the Auth is inactive.
	memory atomic.Pointer[issuerMemory]
}

// newIssuer returns an issuer. It reads the files of the configuration and starts no goroutine.
func newIssuer(name string, c IssuerConfig) (*issuer, error) {
	options := fetch.Options{InsecureHTTP: c.InsecureHTTP}
	if c.CA != "" {
		roots, err := fetch.Roots(string(c.CA))
		if err != nil {
			return nil, err
		}
		options.Roots = roots
	}
	iss := &issuer{
		proxied: !c.Proxy.URL.IsZero(),
		name:    name,
		source:  "issuer/" + name,
		// The digest includes the name, since cached tokens contain it in their principal.
		digest: setting.Digest(struct {
			Name   string
			Config IssuerConfig
		}{name, c}),
		url:      c.URL,
		tenants:  slices.Clone(c.Tenants),
		urls:     c.urls(),
		audience: slices.Clone(c.Audience),
		field:    c.TokenFrom.Field(),
		from:     c.TokenFrom.prefixes(),
		rules:    rulesOf(&c),
		contexts: c.contexts(),
	}
	if err := c.addProxy(&options); err != nil {
		return nil, err
	}
	iss.fetching = options
	if c.Introspection != nil {
		var err error
		if iss.introspect, err = newIntrospectSource(iss, c.Introspection, options); err != nil {
			return nil, err
		}
	}
	if c.JWKSFile != "" {
		fixed, err := readKeyFile(string(c.JWKSFile))
		iss.keys = keySource{issuer: c.URL, fixed: fixed}
		return iss, err
	}
	c.addToken(&options)
	client := fetch.New(options)
	iss.keys = keySource{
		issuer:    c.URL,
		discovery: c.discovery(),
		jwks:      c.JWKS.String(),
		insecure:  c.InsecureHTTP,
		refresh:   c.Refresh.Or(defaultRefresh),
		maxStale:  c.MaxStale.Or(defaultMaxStale),
		get:       client.JSON,
		cure:      iss.cureFetch,
		onDemand:  iss.introspect != nil && iss.introspect.jwt && !iss.introspect.signed,
	}
	iss.keys.discover = func(ctx context.Context) (discoveryDocument, error) {
		return discover(ctx, client, iss.keys.discovery, c.URL)
	}
	return iss, nil
}
