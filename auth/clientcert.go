package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/auth/clientcert"
	"sallyport/proxy/message"
)

// certificateReasons are the reasons of package clientcert.
func certificateReasons() []string {
	return []string{
		CertificateMissing, CertificateUnknownCA, CertificateExpired, CertificateNotYetValid, CertificateWrongUsage,
		CertificateRevoked, CertificateRevocationUnknown, CertificateName, CertificateChain,
	}
}

// aboutCertificate reports whether the error concerns a client certificate rather than a token.
func (e *Error) aboutCertificate() bool { return slices.Contains(certificateReasons(), e.Reason) }

// certificateOf returns the chain of a request's client certificate and the Trust of its host. field
// is the lower-case name of the field that carried it; "" for the connection. If there is none, it
// returns [ErrNoCredential]. It does not verify the chain.
//
// From a balancer that is listed for the host, only the field counts: the certificate of its
// connection is its own. From others only the connection counts.
func certificateOf(hosts *clientcert.Hosts, r *Request) (t *clientcert.Trust, chain []*x509.Certificate, field string, err error) {
	if t = hosts.For(r.Head.Host); t == nil {
		return nil, nil, "", ErrNoCredential
	}
	if field = t.HeaderFrom(r.Via); field == "" {
		if r.Conn == nil || len(r.Conn.PeerCertificates) == 0 {
			return nil, nil, "", ErrNoCredential
		}
		return t, r.Conn.PeerCertificates, "", nil
	}
	var linesArray, alongArray [2]string // saves allocations
	lines, along := linesOf(linesArray[:0], r.Head, field), linesOf(alongArray[:0], r.Head, clientcert.FieldClientCertChain)
	if len(lines) == 0 && (len(along) == 0 || field != clientcert.FieldClientCert) {
		return nil, nil, "", ErrNoCredential
	}
	if chain, err = t.FromHeader(lines, along); err != nil {
		return nil, nil, "", CertificateError(err)
	}
	return t, chain, field, nil
}

// CheckCertificate returns an [*Error] unless the request has a client certificate that verifies, from
// its connection or from the field of a balancer. The certificate may name no caller of any route.
func CheckCertificate(hosts *clientcert.Hosts, r *Request) error {
	trust, chain, _, err := certificateOf(hosts, r)
	switch {
	case errors.Is(err, ErrNoCredential):
		return &Error{Reason: CertificateMissing, Err: errRequired}
	case err != nil:
		return err
	}
	if _, err := trust.Verify(chain); err != nil {
		return CertificateError(err)
	}
	return nil
}

var errRequired = errors.New("the host requires a client certificate (mode: required), and the balancer has sent none")

// linesOf appends the lines of a field to all.
func linesOf(all []string, head *message.Head, name string) []string {
	for i := range head.Fields {
		if head.Fields[i].Name == name {
			all = append(all, head.Fields[i].Value)
		}
	}
	return all
}

// CertificateError returns an error of package clientcert as an [*Error].
func CertificateError(err error) *Error {
	var e *clientcert.Error
	if !errors.As(err, &e) {
		return &Error{Reason: CertificateChain, Err: err}
	}
	return &Error{Reason: e.Reason, Err: e.Err}
}

// certificates checks the client certificates of the callers that a route lists.
type certificates struct {
	memory *Memory
	hosts  *clientcert.Hosts
	names  []string // that are accepted; nil: any
}

// newCertificates makes the authenticator for callers that are all "cert/NAME" or "cert".
func (a *Auth) newCertificates(callers []string, _ *Demand) (Authenticator, error) {
	c := &certificates{memory: a.memory, hosts: a.clientCerts}
	if !slices.Contains(callers, "cert") {
		for _, caller := range callers {
			c.names = append(c.names, strings.TrimPrefix(caller, "cert/"))
		}
	}
	return c, nil
}

// Traits implements [Authenticator].
func (c *certificates) Traits() Traits { return Traits{Missing: CertificateMissing, Ambient: true} }

// Challenge implements [Authenticator]. A 401 response must have a challenge (RFC 9110, section
// 15.5.2), but no scheme is registered for the certificates of TLS: a client cannot send one in
// another request of the same connection. So the scheme of an expired draft, which all clients
// ignore, stands only where the chain has no other challenge.
func (c *certificates) Challenge(realm string, _ *Error) string {
	return "ClientCertificate realm=" + quoted(realm)
}

// Authenticate implements [Authenticator].
func (c *certificates) Authenticate(_ context.Context, r *Request) (Proof, error) {
	return c.prove(r, c.memory.budget)
}

// Recheck implements [Authenticator]: the chain is judged by the current configuration.
func (c *certificates) Recheck(_ context.Context, r *Request, _ Proof) (Proof, error) {
	return c.prove(r, nil)
}

// prove verifies the certificate of a request. Failures are charged to the budget, but a good
// certificate never depends on it: a stranger must not lock out callers behind the same address.
// The work for a bad one is bounded all the same, and its refusal is remembered.
func (c *certificates) prove(r *Request, budget *budget) (Proof, error) {
	trust, chain, field, err := certificateOf(c.hosts, r)
	if errors.Is(err, ErrNoCredential) {
		return Proof{}, err
	}
	var refused *Error
	if err != nil {
		refused = asError(err)
	} else if caller, err := trust.Verify(chain); err != nil {
		refused = CertificateError(err)
	} else if c.names == nil || slices.Contains(c.names, caller.Name) {
		return Proof{Caller: *caller, Field: field}, nil
	} else {
		refused = &Error{Reason: CertificateName, KeyID: caller.KeyID, Err: fmt.Errorf("the route does not list %s", caller.String())}
	}
	now := c.memory.now()
	if !budget.left(r.Peer, now) {
		return Proof{}, tooManyFailures(budget, r.Peer)
	}
	budget.charge(r.Peer, now)
	return Proof{}, refused
}
