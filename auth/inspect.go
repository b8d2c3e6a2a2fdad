package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	"sallyport/auth/fetch"
)

// IssuerReport is the outcome of fetching the documents of an issuer once.
type IssuerReport struct {
	Name, URL string
	// Document is the URL of the discovery document; "" without discovery.
	Document string
	// JWKS is the URL of the keys; "" if it is not known.
	JWKS string
	// Keys are the usable keys, each with its algorithms, as in "k1 (ES256)".
	Keys []string
	// Skipped are the keys that cannot be used, each with the reason.
	Skipped []string
	// Problem says why there are no keys, and Cure what to do; "" if there are.
	Problem, Cure string
	// Introspection is the outcome of asking the issuer about a random token; nil if the gateway does
	// not ask this issuer about tokens.
	Introspection *IntrospectionReport
}

// IntrospectionReport is the outcome of asking an issuer about a random token.
type IntrospectionReport struct {
	URL string // the endpoint; "" if it is not known
	// Problem says why the answer is of no use, and Cure what to do; "" if the issuer said that the
	// token is not active.
	Problem, Cure string
}

// inspections is the maximum number of issuers that are inspected at the same time.
const inspections = 8

// Inspect fetches the documents of all issuers as requests would cause it, and waits for them until
// ctx ends. It returns a report for each issuer, ordered by name. The Auth must be active.
func (a *Auth) Inspect(ctx context.Context) []IssuerReport {
	names := slices.Sorted(maps.Keys(a.issuers))
	all := make([]IssuerReport, len(names))
	slots := make(chan struct{}, inspections)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[i] = a.issuers[name].inspect(ctx)
		})
	}
	wg.Wait()
	return all
}

func (iss *issuer) inspect(ctx context.Context) IssuerReport {
	r := IssuerReport{Name: iss.name, URL: iss.url, JWKS: iss.keys.jwks}
	if iss.keys.discovery != "" {
		r.Document = discoveryURL(iss.keys.discovery)
	}
	im := iss.memory.Load()
	if im == nil {
		r.Problem = errNotActive.Error()
		return r
	}
	if im.introspector != nil {
		r.Introspection = im.introspector.inspect(ctx)
	}
	set, failed := im.keys.current.Load(), (*keysError)(nil)
	if iss.keys.fixed == nil {
		set, failed = im.keys.fetch(ctx)
	}
	r.Skipped = im.keys.status().Skipped
	im.keys.mu.Lock()
	if im.keys.found != "" {
		r.JWKS = im.keys.found
	}
	im.keys.mu.Unlock()
	if failed != nil {
		r.Problem, r.Cure = failed.Error(), iss.cureFetch(failed)
		return r
	}
	for _, k := range set.list {
		r.Keys = append(r.Keys, k.name()+" ("+strings.Join(k.algorithms, ", ")+")")
	}
	return r
}

// inspect asks the issuer about a random token.
func (in *introspector) inspect(ctx context.Context) *IntrospectionReport {
	random := in.prefix + rand.Text()
	_, why := in.lookUp(ctx, in.memory.digest(random), random, netip.Addr{}, nil)
	r := &IntrospectionReport{URL: in.url}
	in.discovering.Lock()
	r.URL = cmp.Or(r.URL, in.found)
	in.discovering.Unlock()
	in.mu.Lock()
	failed := in.failed
	in.mu.Unlock()
	switch {
	case why != nil && why.Reason == TokenInactive:
	case failed != nil:
		r.URL = cmp.Or(r.URL, failed.url)
		r.Problem, r.Cure = failed.Error(), in.issuer.cureLookUp(failed)
	case why != nil && why.Reason == IssuerUnavailable:
		r.Problem, r.Cure = causeOf(why), "try again"
	default:
		r.Problem, r.Cure = "it does not call a random token inactive", "is it an introspection endpoint (RFC 7662)? as it is, every text would be a token"
	}
	return r
}

// cureLookUp says what to do about a failed look-up; "" if the error says it itself.
func (iss *issuer) cureLookUp(e *keysError) string {
	at := "issuers." + iss.name + ".introspection"
	switch {
	case errors.Is(e, errClientRefused), strings.Contains(e.what, "write introspection.url"):
		return ""
	case e.step == "introspection" && strings.HasPrefix(e.what, string(fetch.BadStatus)+" 4"):
		return "correct " + at + ".url; if it is right, the issuer may want client_auth: post, or a certificate"
	case e.what == "unusable answer":
		return "the endpoint must answer as RFC 7662 says, or RFC 9701 with signed: true"
	}
	return iss.cureFetch(e)
}

// fetch waits for the running fetch of the keys, or for one that it starts.
func (s *keySet) fetch(ctx context.Context) (*keys, *keysError) {
	done := s.join()
	if done == nil {
		return nil, &keysError{step: "keys", url: s.issuer, what: errNotActive.Error()}
	}
	select {
	case <-done:
	case <-ctx.Done():
		return nil, &keysError{step: "keys", url: s.issuer, what: string(fetch.TimedOut)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.Load(), s.failed
}

// cureFetch says what to do about a failed fetch; "" if the error says it itself.
func (iss *issuer) cureFetch(e *keysError) string {
	at := "issuers." + iss.name
	switch {
	case errors.As(e.err, new(*anotherIssuer)), errors.Is(e.err, errNoDocument):
		return ""
	case errors.As(e.err, new(x509.UnknownAuthorityError)):
		return "name the file with the root certificate of the issuer's authority in " + at + ".ca"
	case errors.As(e.err, new(x509.HostnameError)):
		return "write the name that is in the issuer's certificate, in " + at + ".url or discovery"
	case errors.As(e.err, new(x509.CertificateInvalidError)):
		return "renew the issuer's certificate, or correct the clock of this machine"
	case iss.proxied && (strings.HasPrefix(e.what, string(fetch.Unreachable)) || strings.HasPrefix(e.what, string(fetch.TimedOut))):
		return "does the proxy in " + at + ".proxy run, and does it reach the issuer?"
	case strings.HasPrefix(e.what, string(fetch.ProxyRefused)):
		return "let the proxy in " + at + ".proxy pass connections to the issuer, or correct its credentials"
	case errors.As(e.err, new(*net.DNSError)):
		return "DNS does not know this name here: correct it, or add it to DNS or /etc/hosts"
	case strings.HasPrefix(e.url, "http:") && (e.what == string(fetch.BadStatus)+" 400" || e.what == string(fetch.Unreachable) && !errors.Is(e.err, syscall.ECONNREFUSED)):
		return "if the server speaks TLS at this port, write https:// in " + at + ".url"
	case strings.HasPrefix(e.what, string(fetch.Untrusted)):
		return "the server speaks no TLS there, or only an old version: is it another port?"
	case strings.HasPrefix(e.what, string(fetch.Unreachable)):
		return "start the issuer, or let this machine reach it: routes, firewall, and the port in the URL"
	case strings.HasPrefix(e.what, string(fetch.TimedOut)):
		return "is there a firewall between here and the issuer? issuers that only a proxy reaches need that proxy"
	case strings.HasPrefix(e.what, string(fetch.AddressRefused)):
		return "the name leads to an address that is never asked, such as that of a cloud's metadata: correct DNS"
	case strings.HasPrefix(e.what, string(fetch.BadStatus)+" 5"):
		return "the issuer, or a proxy before it, is in trouble: its log says more"
	case strings.HasPrefix(e.what, string(fetch.BadStatus)):
		return "open the URL in a browser: it must answer 200 without a login, and without a redirect"
	case strings.HasPrefix(e.what, string(fetch.Garbage)), strings.HasPrefix(e.what, string(fetch.TooLarge)):
		return "open the URL in a browser: it must answer with the JSON document; does a proxy or a login page answer in its place?"
	case e.what == "no usable key", e.what == "too many keys":
		return "let the issuer publish the keys of its access tokens: RSA from 2048 bits, P-256, P-384, P-521 or Ed25519"
	}
	return ""
}
