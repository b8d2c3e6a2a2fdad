package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/credential"
	"sallyport/proxy/edge"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/upstream"
)

// These describe what an [Examination] finds.
type (
	// IssuerReport is the outcome of fetching the documents of an issuer once.
	IssuerReport = auth.IssuerReport
	// IntrospectionReport is the outcome of asking an issuer about a random token.
	IntrospectionReport = auth.IntrospectionReport
	// ListStatus is the state of a list of revoked client certificates.
	ListStatus = clientcert.ListStatus
	// DirectoryReport describes an ACME authority of the configuration.
	DirectoryReport = edge.DirectoryReport
	// TokenFacts are what a token says about itself, not verified.
	TokenFacts = auth.TokenFacts
	// TokenFinding is a fault of a credential with its cure.
	TokenFinding = auth.Finding
	// LoginFinding is what was tried of a login, and how it ended.
	LoginFinding = auth.LoginFinding
	// LoginGrade says what a LoginFinding means.
	LoginGrade = auth.Grade
)

// The grades of a [LoginFinding].
const (
	LoginProven   = auth.Proven
	LoginUnproven = auth.Unproven
	LoginDoubtful = auth.Doubtful
	LoginFailing  = auth.Failing
)

// DescribeToken reads the facts of a token as the gateway reads them. It verifies nothing.
func DescribeToken(token string) TokenFacts { return auth.DescribeToken(token) }

// Examination looks at a configuration and at what it needs from others, as a gateway would. It works
// beside a running gateway, and changes nothing. It is safe for concurrent use.
type Examination struct {
	config *Config
	auth   *auth.Auth
	edge   *edge.Edge
	dial   upstream.Options

	clients *clientcert.Hosts
	lists   *clientcert.Memory
}

// Examine begins an examination of a configuration from [LoadConfig]. It reads the files that the
// configuration names and uses no network. Call [Examination.Close] at its end.
func Examine(cfg *Config, o Options) (*Examination, error) {
	o = o.withDefaults()
	certs, err := OpenCertificates(cfg, o)
	if err != nil {
		return nil, err
	}
	// The same token is checked for many routes; no budget may end that.
	memory := auth.NewMemory(auth.MemoryOptions{Now: o.Now, Budget: auth.Budget{Burst: math.MaxInt32, Every: time.Nanosecond}})
	lists := clientcert.NewMemory(clientcert.MemoryOptions{Now: o.Now})
	clients, err := clientcert.New(cfg.ClientCertificates, lists, o.Now)
	if err != nil {
		return nil, err
	}
	a, _, err := newAuth(withoutEnds(cfg), memory, clients)
	if err != nil {
		return nil, err
	}
	a.Activate()
	clients.Activate()
	return &Examination{config: cfg, auth: a, clients: clients, lists: lists, edge: certs.Edge(), dial: upstream.Options{Dial: o.Dial}}, nil
}

// withoutEnds returns the configuration with logins that keep no ends of sessions, because they would make
// the file, perhaps as another user than the gateway's.
func withoutEnds(cfg *Config) *Config {
	c := *cfg
	c.Logins = maps.Clone(c.Logins)
	for name, l := range c.Logins {
		l.Session.State = "off"
		c.Logins[name] = l
	}
	return &c
}

// Close ends the examination and what it has started.
func (x *Examination) Close() {
	x.auth.Close()
	x.clients.Close()
}

// RevocationLists fetches the lists of revoked client certificates that have a URL, and waits for them
// until ctx ends.
func (x *Examination) RevocationLists(ctx context.Context) []ListStatus { return x.lists.Fetch(ctx) }

// Issuers fetches the documents of all issuers, and waits for them until ctx ends.
func (x *Examination) Issuers(ctx context.Context) []IssuerReport { return x.auth.Inspect(ctx) }

// LoginOffers compares what the issuer of a login offers with what the login needs.
func (x *Examination) LoginOffers(ctx context.Context, name string) []LoginFinding {
	return x.auth.LoginOffers(ctx, name)
}

// TryRedirect asks the issuer of a login, as a browser without cookies, to send it back to a redirect URI.
func (x *Examination) TryRedirect(ctx context.Context, name, redirect string) LoginFinding {
	return x.auth.TryRedirect(ctx, name, redirect)
}

// TryClient shows the client's secret and a made-up code to the issuer of a login. origin is that of a
// redirect URI.
func (x *Examination) TryClient(ctx context.Context, name, origin string) LoginFinding {
	return x.auth.TryClient(ctx, name, origin)
}

// Directories asks each ACME authority for its directory; none without tls.acme.
func (x *Examination) Directories(ctx context.Context) []DirectoryReport {
	return x.edge.Directories(ctx)
}

// ChallengePorts returns the ports at which ACME authorities connect to prove a host's name; none if
// no connection proves it.
func (x *Examination) ChallengePorts(host string) []string { return x.edge.ChallengePorts(host) }

// Chain returns the certificates that the gateway would send for a host, the leaf first; none if it
// has no certificate. root is the file with the root of the local authority, if that has signed them.
func (x *Examination) Chain(host string) (chain [][]byte, root string) {
	return x.edge.Chain(host), x.edge.LocalRoot(host)
}

// Verdict is what a route decides about a credential.
type Verdict struct {
	Route, Host, Path string // Host is the first of the route
	// Caller is who the credential proves; "" if the route refuses it.
	Caller string
	Reason string // of the refusal; "" without one
	// Findings are the faults of the credential. An accepted one may have findings too.
	Findings []TokenFinding
	// Forbidden says why no rule of the route can allow anything to the caller; "" if one can.
	Forbidden string
}

// Judge lets every route decide about a credential in Authorization: Bearer, without a request. at
// selects one route, by its name or by HOST/PATH; "" selects all. Routes for everybody are left out.
func (x *Examination) Judge(ctx context.Context, credential, at string) ([]Verdict, error) {
	routes, err := x.config.RoutesAt(at)
	if err != nil {
		return nil, err
	}
	var all []Verdict
	for _, c := range routes {
		chain, err := x.auth.Route(x.config.DemandOf(c))
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", c.Name, err)
		}
		if chain.Anonymous() && at == "" {
			continue
		}
		rules, _, err := x.config.PoliciesOf(c)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", c.Name, err)
		}
		head := &message.Head{Method: http.MethodGet, Scheme: "https", Authority: c.Host[0], Host: c.Host[0], Path: pathOf(c)}
		e := x.auth.Explain(ctx, chain, chain.Present(head, credential))
		v := Verdict{Route: c.Name, Host: c.Host[0], Path: pathOf(c), Caller: e.Caller.String(), Reason: e.Reason, Findings: e.Findings}
		var refused *policy.Refusal
		if v.Caller != "" && errors.As(rules.Screen(&e.Caller, model.Call{}), &refused) {
			v.Forbidden = refused.Cause
		}
		all = append(all, v)
	}
	return all, nil
}

func pathOf(c *route.Config) string { return cmp.Or(strings.TrimPrefix(c.Path, "="), "/") }

// Reach opens a connection to an endpoint, named by its URL, of an upstream as a request would, and
// closes it. The upstream goes by its name or, where it stands in a route, by its URL.
func (x *Examination) Reach(ctx context.Context, name, url string) error {
	if u, ok := x.config.Upstreams[name]; ok {
		return u.Reach(ctx, url, x.dial)
	}
	_, u, err := x.config.UpstreamOf(&route.Config{Upstream: name})
	if err != nil {
		return err
	}
	return u.Reach(ctx, url, x.dial)
}

// Credential fetches the token that the gateway shows to an upstream's servers. It reports whether there
// is one to fetch, why that failed, and what to do.
func (x *Examination) Credential(ctx context.Context, name string) (fetched bool, cure string, err error) {
	c := x.config.Upstreams[name].Credentials.OAuth2
	if c == nil {
		return false, "", nil
	}
	err = credential.Try(ctx, c)
	return true, credential.Cure(err), err
}
