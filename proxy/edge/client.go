package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ClientPolicy says how a host authenticates clients by their certificates. It is immutable
// and safe for concurrent use.
type ClientPolicy struct {
	// ID is not empty. It differs between policies that could decide differently about some
	// certificate. Session tickets are bound to it.
	ID string
	// Required makes the handshake fail without a certificate that Verify accepts. Otherwise
	// the handshake accepts every certificate, so that a refusal of the request can say what
	// is wrong with it.
	Required bool
	// Subjects are the names of the accepted authorities, as [x509.Certificate.RawSubject].
	// Clients choose their certificate by them.
	Subjects [][]byte
	// Verify returns why a certificate chain is refused, and nil if it is accepted. The
	// client's own certificate comes first, and the chain is never empty. The client may not
	// have proved yet that it holds the key.
	Verify func(chain []*x509.Certificate) error
	// Reason returns the reason for an error of Verify, such as certificate_expired. It is
	// counted under [failedClient] of that reason.
	Reason func(error) string
}

// ClientPolicies returns the policy of a host in the form of [HostOf]; nil if the host asks for
// no certificate. It must be fast and safe for concurrent use.
type ClientPolicies func(host string) *ClientPolicy

// maxSubjects bounds the authorities' names that are sent to clients, in bytes. With more, none
// is sent, and clients choose a certificate themselves (RFC 8446, section 4.2.4).
const maxSubjects = 16 << 10

const (
	// maxClientChain bounds what a client may send after its hello in a handshake that asks for a
	// certificate, in bytes. crypto/tls alone would parse chains of 256 KiB. The chain stays in
	// memory as long as the connection, where it takes ten times as much.
	maxClientChain = 32 << 10
	// maxClientNames bounds the names in a chain. A short URI takes forty times as much.
	maxClientNames = 256
)

var (
	errClientChain = errors.New("the client sent more than 32 KiB after its hello")
	errClientNames = errors.New("the certificates have more than 256 names")
)

// clientConfig identifies a TLS config for hosts that ask for client certificates.
type clientConfig struct {
	policy  string
	address string // the host, for clients that send no name; else ""
}

// clientConfigFor returns the TLS config for a host with a client policy.
func (e *Edge) clientConfigFor(v *View, hello *tls.ClientHelloInfo, name string, p *ClientPolicy) *tls.Config {
	f := findingsOf(hello)
	f.policy, f.left = p.ID, maxClientChain
	key := clientConfig{policy: p.ID}
	if canonicalName(hello.ServerName) == "" {
		key.address = name
	}
	v.clientMu.Lock()
	defer v.clientMu.Unlock()
	c := v.clientConfigs[key]
	if c == nil {
		c = e.newTLSConfig(v.config.MinVersion, p.ID)
		c.ClientCAs, c.ClientAuth = poolOf(p.Subjects), tls.RequestClientCert
		if p.Required {
			c.ClientAuth = tls.RequireAnyClientCert
		}
		c.VerifyConnection = func(s tls.ConnectionState) error { return e.verifyClient(key.address, &s) }
		if v.clientConfigs == nil {
			v.clientConfigs = map[clientConfig]*tls.Config{}
		}
		v.clientConfigs[key] = c
	}
	return c
}

// poolOf returns a pool with these subjects. crypto/tls sends them to clients. It verifies
// nothing by the pool, because ClientAuth demands that from none of our configs.
func poolOf(subjects [][]byte) *x509.CertPool {
	pool, size := x509.NewCertPool(), 0
	for _, s := range subjects {
		size += len(s) + 2
		pool.AddCert(&x509.Certificate{Raw: s, RawSubject: s})
	}
	if size > maxSubjects {
		return nil
	}
	return pool
}

// verifyClient verifies the client's certificate of a full or resumed handshake by the active
// view, which may have replaced the one that began the handshake.
func (e *Edge) verifyClient(address string, s *tls.ConnectionState) error {
	names := 0
	for _, c := range s.PeerCertificates {
		names += len(c.DNSNames) + len(c.EmailAddresses) + len(c.IPAddresses) + len(c.URIs)
	}
	if names > maxClientNames {
		return &clientError{reason: string(failedClientChain), err: errClientNames}
	}
	name := canonicalName(s.ServerName)
	if name == "" {
		name = address
	}
	p := e.view.Load().clientPolicy(name)
	if p == nil || !p.Required || len(s.PeerCertificates) == 0 {
		return nil // without a certificate, the policy has become required meanwhile: requests are refused
	}
	if err := p.Verify(s.PeerCertificates); err != nil {
		return &clientError{reason: failedClient(p.Reason(err)), err: err}
	}
	return nil
}

func (v *View) clientPolicy(host string) *ClientPolicy {
	if v.clients == nil {
		return nil
	}
	return v.clients(host)
}

// clientError is why a required client certificate was refused.
type clientError struct {
	reason string
	err    error
}

func (e *clientError) Error() string { return e.err.Error() }

// HostOf returns the host that a client has asked for in a handshake: the server name or, if it
// sent none, the local address of its connection. See the package comment.
func HostOf(serverName string, local netip.Addr) string {
	if name := canonicalName(serverName); name != "" {
		return name
	}
	return addressHost(local)
}

// failedClient returns the reason in [Edge.FailedHandshakes] for a client certificate that
// [ClientPolicy.Verify] refused with this reason.
func failedClient(reason string) string {
	if f := failure("client_" + reason); slices.Contains(clientFailures(), f) {
		return string(f)
	}
	return string(failedClientChain)
}

// clientFailures returns the reasons that concern the client's certificate.
func clientFailures() []failure {
	return []failure{
		failedClientMissing, failedClientCA, failedClientExpired, failedClientEarly, failedClientUsage,
		failedClientRevoked, failedClientUnknown, failedClientName, failedClientChain, failedClientKey,
	}
}

// aboutClient returns the failure and its cause for a handshake that failed because of the
// client's certificate; "" if it failed for another reason. It compares texts where crypto/tls
// has no types for errors.
func aboutClient(err error) (reason failure, cause string) {
	var refused *clientError
	text := strings.TrimPrefix(err.Error(), "tls: ")
	switch {
	case errors.As(err, &refused):
		return failure(refused.reason), refused.Error()
	case errors.Is(err, errClientChain):
		return failedClientChain, errClientChain.Error()
	case text == "client didn't provide a certificate":
		return failedClientMissing, "it sent none"
	case strings.HasPrefix(text, "failed to parse client certificate"),
		strings.HasPrefix(text, "client sent certificate containing RSA key larger"),
		strings.HasPrefix(text, "client certificate contains an unsupported public key"):
		return failedClientChain, text
	case strings.HasPrefix(text, "invalid signature by the client certificate"),
		strings.HasPrefix(text, "client certificate used with invalid signature algorithm"):
		return failedClientKey, text
	}
	return "", ""
}

// badClient logs a client whose certificate is missing or refused. Then it lets the client read
// the alert: with TLS 1.3 the client takes the handshake for complete and may have sent its
// first request.
func (f *failures) badClient(ctx context.Context, c *countedConn, reason failure, cause string) {
	words := fmt.Sprintf("the client certificate for %q is refused: %s", short(c.findings.name, 253), short(cause, 300))
	if reason == failedClientMissing {
		words = fmt.Sprintf("a client has no certificate for %q, which requires one: give it one, as with curl --cert, or set mode: optional", short(c.findings.name, 253))
	}
	f.lines.Warn(string(reason), words, "client", addressOf(c.RemoteAddr()))
	c.findings.left = 0 // what is discarded takes no memory
	sayLast(ctx, c, "")
}
