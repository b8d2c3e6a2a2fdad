package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"sallyport/proxy/edge"
	"sallyport/proxy/exchange"
	"sallyport/proxy/limit"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/socket"
)

// Certificate tells of one certificate of a configuration.
type Certificate = edge.CertificateStatus

// Certificates are those of a configuration, worked with by commands, beside a
// gateway that may be running with the same configuration.
type Certificates struct {
	config  *Config
	options Options
	edge    *edge.Edge
}

// OpenCertificates opens the certificates of a configuration that [LoadConfig]
// found right. It asks nothing of the network and changes nothing.
func OpenCertificates(cfg *Config, o Options) (*Certificates, error) {
	return openCertificates(cfg, o, "")
}

func openCertificates(cfg *Config, o Options, challenges string) (*Certificates, error) {
	c := &Certificates{config: cfg, options: o.withDefaults()}
	var err error
	c.edge, err = edge.New(cfg.TLS, edge.Options{
		Hosts: cfg.TLSHosts(), PlainHTTP: len(cfg.Listen.HTTPAddrs()) > 0, Log: c.options.Log, Now: c.options.Now, Inspect: true, Challenges: challenges,
	})
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

// List tells of all certificates.
func (c *Certificates) List() []Certificate { return c.edge.Certificates() }

// Export returns the certificate by ACME of a host with its chain, and its key.
func (c *Certificates) Export(host string) (chain, key []byte, err error) { return c.edge.Export(host) }

// Obtain obtains by ACME what is missing of the named certificates, of all if none
// is named; with force also what there is. Where a gateway is running with the
// configuration, it answers the authority; where none is, the addresses of its
// listeners are listened on meanwhile. The error names what each name needs.
func (c *Certificates) Obtain(ctx context.Context, names []string, force bool) error {
	stop := c.answer()
	defer stop()
	return c.edge.Obtain(ctx, names, force)
}

// TryOut obtains certificates as Obtain would and throws them away: by the
// directory that is given, the staging one of Let's Encrypt if it is "".
func (c *Certificates) TryOut(ctx context.Context, names []string, directory string) error {
	if c.config.TLS.ACME == nil {
		return errors.New("there is no tls.acme in the configuration")
	}
	dir, err := os.MkdirTemp("", "sallyport-dry-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	trial := *c.config
	acme := *trial.TLS.ACME
	trial.TLS.ACME = &acme
	shared := string(acme.Storage)
	if directory == "" {
		directory = "letsencrypt-staging"
	}
	acme.Issuers, acme.Directory, acme.EAB, acme.Storage = nil, directory, nil, setting.Place(dir)
	second, err := openCertificates(&trial, c.options, shared)
	if err != nil {
		return err
	}
	return second.Obtain(ctx, names, false)
}

// answer answers challenges on the listeners' addresses, as far as they are free.
func (c *Certificates) answer() (stop func()) {
	limits := c.config.Limits.WithDefaults()
	bounds := edge.Limits{Conns: limit.NewConns(limit.ConnsConfig{Total: limits.Connections, PerAddress: limits.ConnectionsPerAddress}), HandshakeTime: limits.HeadTime.D(), Log: c.options.Log}
	var wg sync.WaitGroup
	var ends []io.Closer
	open := func(addr string) net.Listener {
		l, err := c.options.Listen("tcp", addr)
		if err != nil {
			// Most likely the gateway itself, which answers then.
			c.options.Log.Debug("not listening", "addr", addr, "error", err)
			return nil
		}
		return socket.Listen(l)
	}
	for _, addr := range c.config.Listen.HTTPSAddrs() {
		if l := open(addr); l != nil {
			secure := c.edge.Listen(l, bounds)
			ends = append(ends, secure)
			wg.Go(func() { closeAll(secure) })
		}
	}
	for _, addr := range c.config.Listen.HTTPAddrs() {
		if l := open(addr); l != nil {
			s := h1.NewServer(c.answerOne, wire.ServerOptions{HeadBytes: int(limits.HeadBytes), HeadTime: limits.HeadTime.D(), IdleTime: limits.KeepAlive.D()})
			plain := edge.Plain(l, bounds)
			ends = append(ends, s, plain)
			wg.Go(func() { _ = s.Serve(plain) })
		}
	}
	return func() {
		for _, x := range ends {
			_ = x.Close()
		}
		wg.Wait()
	}
}

// closeAll closes every connection that comes: whoever came for a challenge has
// seen its certificate in the handshake.
func closeAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// answerOne answers a request over plain HTTP: with what an authority wants to
// see, or 404.
func (c *Certificates) answerOne(s wire.Stream) {
	head, text, found := s.Head(), "", false
	if head.Settle() == nil && head.Method == http.MethodGet {
		text, found = c.edge.ChallengeAnswer(head.Host, head.Path)
	}
	answer := exchange.ChallengeAnswer(text)
	if !found {
		answer.Status = http.StatusNotFound
	}
	s.CloseAfter()
	_, _ = exchange.WriteAnswer(s, answer, []byte(text)) // the authority notices
}

// announcedCertificates bounds how many are logged at the start.
const announcedCertificates = 100

// announceCertificates logs which certificates there are at the start, and which
// are still to be obtained. Later changes are logged where they are made.
func (g *Gateway) announceCertificates() {
	for i, c := range g.memory.edge.Certificates() {
		if i == announcedCertificates {
			g.memory.Log.Info("there are more certificates; see /readyz, or sallyport cert list")
			return
		}
		if c.NotAfter.IsZero() {
			g.memory.Log.Info("certificate missing; it is being obtained", "hosts", c.Hosts, "source", c.Source)
			continue
		}
		facts := []any{"hosts", c.Hosts, "source", c.Source, "issuer", c.Issuer, "not_after", c.NotAfter}
		if !c.NextRenewal.IsZero() {
			facts = append(facts, "next_renewal", c.NextRenewal)
		}
		g.memory.Log.Info("certificate", facts...)
	}
}
