package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

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
	set, failed := im.keys.fetch(ctx)
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

// fetch waits for the running fetch of the keys, or for one that it starts.
func (s *keySet) fetch(ctx context.Context) (*keys, *keysError) {
	s.mu.Lock()
	done := s.fetching
	if done == nil {
		done = s.start()
	}
	s.mu.Unlock()
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
	case errors.As(e.err, new(*net.DNSError)):
		return "DNS does not know this name here: correct it, or add it to DNS or /etc/hosts"
	case strings.HasPrefix(e.what, string(fetch.Untrusted)):
		return "the server speaks no TLS there, or only an old version: is it another port?"
	case strings.HasPrefix(e.what, string(fetch.Unreachable)):
		return "start the issuer, or let this machine reach it: routes, firewall, and the port in the URL"
	case strings.HasPrefix(e.what, string(fetch.TimedOut)):
		return "is there a firewall between here and the issuer? issuers that only a proxy reaches need that proxy"
	case strings.HasPrefix(e.what, string(fetch.AddressRefused)):
		return "the name leads to an address that is never asked, such as that of a cloud's metadata: correct DNS"
	case strings.HasPrefix(e.what, string(fetch.BadStatus)):
		return "open the URL in a browser: it must answer 200 without a login, and without a redirect"
	case strings.HasPrefix(e.what, string(fetch.Garbage)), strings.HasPrefix(e.what, string(fetch.TooLarge)):
		return "open the URL in a browser: it must answer with the JSON document; does a proxy or a login page answer in its place?"
	case e.what == "no usable key", e.what == "too many keys":
		return "let the issuer publish the keys of its access tokens: RSA from 2048 bits, P-256, P-384, P-521 or Ed25519"
	case e.what == "the document has no acceptable jwks_uri":
		return "let the issuer publish an https jwks_uri, or name the URL of its keys in " + at + ".jwks"
	}
	return ""
}
