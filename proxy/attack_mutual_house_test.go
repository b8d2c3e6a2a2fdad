package proxy_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
)

// mutualRoutes are on a host that asks for certificates, one that requires one, one that trusts another
// CA, and one that asks for none.
const mutualRoutes = `
  - {host: models.test, path: /cert, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
  - {host: models.test, path: /alice, upstream: '%s', callers: 'cert/spiffe://lab/alice', rules: [{allow: "*"}]}
  - {host: models.test, path: /either, upstream: '%s', callers: [issuer/corp, cert], rules: [{allow: "*"}]}
  - {host: models.test, path: /tokens, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /a.B, upstream: calls, callers: cert, rules: [{allow: "*"}]}
  - {host: strict.test, path: /cert, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
  - {host: strict.test, path: /tokens, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: other.test, path: /cert, upstream: '%s', callers: cert, rules: [{allow: "*"}]}
  - {host: plain.test, path: /tokens, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`

const mutualEntries = `client_certificates:
  - {hosts: models.test, ca: lab.pem, crl: lab.crl}
  - {hosts: strict.test, ca: lab.pem, crl: lab.crl, mode: required}
  - {hosts: other.test, ca: partners.pem}
`

// mutualHouse is a house with two CAs, alice of the first, and mallory, whose certificate it has revoked.
type mutualHouse struct {
	*house
	lab, partners authtest.Cert
	revoked       authtest.Cert
	alice         tls.Certificate
	calls         *grpcServer
	log           *lines
}

func newMutualHouse(t *testing.T, p plan) *mutualHouse {
	h := &mutualHouse{lab: authtest.NewCA("lab", time.Now(), nil), partners: authtest.NewCA("partners", time.Now(), nil), calls: newGRPCServer(t), log: &lines{}}
	h.alice = h.lab.Client("alice", authtest.URIs("spiffe://lab/alice")).TLS()
	h.revoked = h.lab.Client("mallory", authtest.URIs("spiffe://lab/mallory"))
	p.routes = cmp.Or(p.routes, mutualRoutes)
	if !strings.Contains(p.more, "client_certificates:") {
		p.more += mutualEntries
	}
	p.more += fmt.Sprintf("upstreams: {calls: {grpc: 'h2c://%s'}}\n", h.calls.addr)
	files := map[string]string{"lab.pem": string(authtest.PEM(h.lab)), "partners.pem": string(authtest.PEM(h.partners)), "lab.crl": string(h.lab.Revoke(time.Now(), nil, h.revoked))}
	for name, text := range p.files {
		files[name] = text
	}
	p.files = files
	p.options.Log = slog.New(slog.NewTextHandler(h.log, nil))
	h.house = build(t, p)
	return h
}

// write replaces a file beside gateway.yaml.
func (h *house) write(name string, text []byte) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(h.file), name), text, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// certClient is a client with a certificate, if it is not nil. change may alter its TLS config.
func (h *house) certClient(h2 bool, c *tls.Certificate, change func(*tls.Config)) *http.Client {
	client := h.client(h2)
	config := client.Transport.(*http.Transport).TLSClientConfig
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if c == nil {
			return new(tls.Certificate), nil
		}
		return c, nil // although it may be of another CA than the gateway asks for
	}
	if change != nil {
		change(config)
	}
	return client
}

// certGet sends a request without other credentials than those in fields.
func (h *house) certGet(c *http.Client, url string, fields ...string) *reply {
	h.t.Helper()
	req, err := http.NewRequest("GET", "https://"+url, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	return h.send(c, req)
}

// certCall makes a gRPC call to models.test, and returns its status.
func (h *mutualHouse) certCall(c *http.Client) string {
	h.t.Helper()
	req, _ := http.NewRequestWithContext(h.t.Context(), "POST", "https://models.test/a.B/Echo", strings.NewReader(string(framedText("hello"))))
	req.Header = http.Header{"Content-Type": {"application/grpc+proto"}, "Te": {"trailers"}}
	res, err := c.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	_, status := finish(h.t, res)
	return status
}

// failedHandshakes waits until the metrics count n failed handshakes for a reason.
func (h *house) failedHandshakes(reason string, n int) {
	h.t.Helper()
	line := fmt.Sprintf("sallyport_tls_handshake_failures_total{reason=%q} %d\n", reason, n)
	h.until(line, func() bool { return strings.Contains(h.get("/metrics"), line) })
}

// namedDial makes every connection of a client one whose handshake asks for this host, whatever the
// URL says, as a client does that reuses a connection for the hosts of one certificate.
func (h *house) namedDial(c *http.Client, name string, h2 bool) {
	tr := c.Transport.(*http.Transport)
	config := tr.TLSClientConfig.Clone()
	config.ServerName = name
	config.NextProtos = []string{"http/1.1"}
	if h2 {
		config.NextProtos = []string{"h2"}
	}
	tr.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", h.addrs.HTTPS[0].String())
	}
}
