// Package obtain lists, exports and obtains the certificates of a configuration, for commands beside the
// gateway that serves them.
package obtain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"sallyport/proxy/config"
	"sallyport/proxy/edge"
	"sallyport/proxy/exchange"
	"sallyport/proxy/limit"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h1"
	"sallyport/proxy/wire/socket"
)

// Certificates manages the certificates of a configuration for commands. A gateway may run with the
// same configuration at the same time.
type Certificates struct {
	config  *config.Config
	options Options
	edge    *edge.Edge
}

// Options are what [Certificates] need besides a configuration.
type Options struct {
	Log *slog.Logger
	Now func() time.Time
	// Listen opens a listener for challenges.
	Listen func(network, addr string) (net.Listener, error)
}

// Open opens the certificates of a checked configuration. It uses no network and changes nothing.
func Open(cfg *config.Config, o Options) (*Certificates, error) { return open(cfg, o, "") }

// open is Open. challenges is the storage where a running gateway looks for challenges to answer; "" for
// that of the configuration.
func open(cfg *config.Config, o Options, challenges string) (*Certificates, error) {
	c := &Certificates{config: cfg, options: o}
	var err error
	c.edge, err = edge.New(cfg.TLS, edge.Options{
		Hosts: cfg.TLSHosts(), PlainHTTP: len(cfg.Listen.HTTPAddrs()) > 0, Log: c.options.Log, Now: c.options.Now, Inspect: true, Challenges: challenges,
	})
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

// Edge returns the edge that has the certificates. It serves nobody.
func (c *Certificates) Edge() *edge.Edge { return c.edge }

// List returns the status of all certificates.
func (c *Certificates) List() []edge.CertificateStatus { return c.edge.Certificates() }

// Export returns the ACME certificate of a host with its chain, and its key.
func (c *Certificates) Export(host string) (chain, key []byte, err error) { return c.edge.Export(host) }

// Obtain obtains the missing certificates for names by ACME, or for all hosts if names is empty.
// With force it also replaces existing ones. A gateway that runs with the configuration answers the
// challenges. Otherwise Obtain listens on the configured addresses meanwhile. The error lists the
// fault of each name.
func (c *Certificates) Obtain(ctx context.Context, names []string, force bool) error {
	stop := c.answer()
	defer stop()
	return c.edge.Obtain(ctx, names, force)
}

// TryOut obtains certificates as Obtain would, and discards them. It uses the given directory, or
// Let's Encrypt's staging directory if that is "".
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
	second, err := open(&trial, c.options, shared)
	if err != nil {
		return err
	}
	return second.Obtain(ctx, names, false)
}

// answer answers challenges on the listeners' addresses that are free.
func (c *Certificates) answer() (stop func()) {
	limits := c.config.Limits.WithDefaults()
	bounds := edge.Limits{Conns: limit.NewConns(limit.ConnsConfig{Total: limits.Connections, PerAddress: limits.ConnectionsPerAddress}), HandshakeTime: limits.HeadTime.D(), Log: c.options.Log}
	var wg sync.WaitGroup
	var ends []io.Closer
	listen := func(addr string) net.Listener {
		l, err := c.options.Listen("tcp", addr)
		if err != nil {
			// Most likely the running gateway has the address, and answers itself.
			c.options.Log.Debug("not listening", "addr", addr, "error", err)
			return nil
		}
		return socket.Listen(l)
	}
	for _, addr := range c.config.Listen.HTTPSAddrs() {
		if l := listen(addr); l != nil {
			secure := c.edge.Listen(l, bounds)
			ends = append(ends, secure)
			wg.Go(func() { closeAll(secure) })
		}
	}
	for _, addr := range c.config.Listen.HTTPAddrs() {
		if l := listen(addr); l != nil {
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

// closeAll closes every connection: a TLS challenge is answered by the handshake's certificate.
func closeAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// answerOne answers a plain HTTP request: with the response to an ACME challenge, or 404.
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
	_, _ = exchange.WriteAnswer(s, answer, []byte(text)) // the authority notices a failed write
}
