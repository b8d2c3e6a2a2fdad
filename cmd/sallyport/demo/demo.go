package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

// The demonstration has two clients: one may request predictions, and one only the
// model's status.
const (
	defaultListen = "127.0.0.1:8443"
	host          = "localhost" // clients resolve it themselves, and send it as SNI
	audience      = "models"
	clientID      = "demo"
	scopePredict  = "models.predict"
	scopeStatus   = "models.status"
	tokenLifetime = time.Hour // long enough for the printed line to be tried
	predictPath   = "/v1/models/" + ModelName + ":predict"
	predictBody   = `{"instances": [1.0, 2.0, 5.0]}`
)

// Command is `sallyport demo`. It serves until its context ends.
func Command() *cobra.Command {
	d := &demo{}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run the gateway on loopback with an issuer and a model server to try it on",
		Long: `Run a small OpenID issuer, a model server with TensorFlow Serving's REST API, and the
gateway in front of it, with a certificate of a local authority. All run in one
process and listen only on loopback. The command prints lines to paste: a call with a
token, one without, and a signed one. Ctrl-C ends it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d.listenGiven = c.Flags().Changed("listen")
			d.out, d.log = c.OutOrStdout(), c.ErrOrStderr()
			return d.run(c.Context())
		},
	}
	c.Flags().BoolVar(&d.check, "check", false, "make good and bad calls, print the results, and exit")
	c.Flags().StringVar(&d.listen, "listen", defaultListen, "address of the gateway; if the default port is in use, the command chooses another")
	c.Flags().StringVar(&d.dir, "dir", "", "folder that keeps the local authority and the configuration (default: a temporary one, removed at the end)")
	return c
}

// demo is one run of the command.
type demo struct {
	check       bool
	listen      string
	listenGiven bool
	dir         string
	out, log    io.Writer

	front, issuerAt, modelsAt net.Listener
	issuer                    *Issuer
	models                    *ModelServer
	secret                    string       // of the client
	key                       *httpsig.Key // of the partner
	config                    string       // path of the gateway's configuration
	gateway                   *proxy.Gateway
	root                      string // path of the local authority's certificate
}

// run runs the demonstration. Everything that it starts has ended when it returns.
func (d *demo) run(ctx context.Context) (err error) {
	remove, err := d.openDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	defer d.closeListeners()
	if err := d.openListeners(); err != nil {
		return err
	}
	if err := d.build(); err != nil {
		return err
	}

	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	front, stopFront := context.WithCancel(ctx)
	var behind sync.WaitGroup
	defer behind.Wait()
	defer stopBase() // after the gateway, which uses both
	defer stopFront()
	behind.Go(func() { serve(base, d.issuerAt, d.issuer) })
	behind.Go(func() { serve(base, d.modelsAt, d.models) })
	ended := make(chan error, 1)
	go func() { ended <- d.gateway.Run(front) }()
	select {
	case err := <-ended:
		return err
	case <-d.gateway.Ready():
	}
	if d.check {
		err = d.callAll(front)
		stopFront()
		return errors.Join(err, <-ended)
	}
	if err := d.explain(); err != nil {
		stopFront()
		return errors.Join(err, <-ended)
	}
	return <-ended
}

// openDir makes the folder for the authority and the configuration. remove deletes it,
// unless the user chose it.
func (d *demo) openDir() (remove func() error, err error) {
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "sallyport-demo-"); err != nil {
			return nil, fmt.Errorf("making a folder: %w", err)
		}
		return func() error { return os.RemoveAll(d.dir) }, nil
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil { // curl may be run elsewhere
		return nil, fmt.Errorf("finding the folder: %w", err)
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder: %w", err)
	}
	return func() error { return nil }, nil
}

// openListeners opens the three listeners first, since the configuration contains their
// ports.
func (d *demo) openListeners() (err error) {
	d.front, err = net.Listen("tcp", d.listen)
	if errors.Is(err, syscall.EADDRINUSE) && !d.listenGiven {
		fmt.Fprintf(d.out, "%s is in use; the gateway takes another port.\n\n", d.listen)
		d.front, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return fmt.Errorf("opening the gateway's port: %w", err)
	}
	if d.issuerAt, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("opening the issuer's port: %w", err)
	}
	if d.modelsAt, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return fmt.Errorf("opening the model server's port: %w", err)
	}
	return nil
}

// closeListeners closes the listeners; those of a server are closed already.
func (d *demo) closeListeners() {
	for _, l := range []net.Listener{d.front, d.issuerAt, d.modelsAt} {
		if l != nil {
			_ = l.Close() // closed twice where a server did
		}
	}
}

// build makes the issuer, the model server and the gateway. It writes the gateway's
// configuration to a file and loads it, like `sallyport serve`.
func (d *demo) build() (err error) {
	d.secret = rand.Text()
	d.models = NewModelServer()
	if err := d.newIssuer(); err != nil {
		return err
	}
	if err := d.newKey(); err != nil {
		return err
	}
	d.config = filepath.Join(d.dir, "demo-gateway.yaml")
	if err := os.WriteFile(d.config, d.gatewayYAML(), 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	config, err := proxy.LoadConfig(d.config)
	if err != nil {
		return err
	}
	audit := d.out // a record of each call, below the lines to paste
	if d.check {
		audit = io.Discard
	}
	d.gateway, err = proxy.New(config, proxy.Options{
		Log:    slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Stdout: audit,
		Listen: d.listenAs,
	})
	if err != nil {
		return err
	}
	d.root = d.gateway.RootPath()
	return nil
}

// newIssuer makes the issuer, whose address is issuerAt.
func (d *demo) newIssuer() (err error) {
	d.issuer, err = NewIssuer(IssuerConfig{
		URL:      "http://" + d.issuerAt.Addr().String(),
		Audience: audience,
		Clients:  map[string]Client{clientID: {Secret: d.secret, Scopes: []string{scopePredict, scopeStatus}}},
		Lifetime: tokenLifetime,
	})
	return err
}

// gatewayYAML returns the configuration of the gateway.
func (d *demo) gatewayYAML() []byte {
	return fmt.Appendf(nil, `# Written by sallyport demo.
listen: {https: %q, http: off, health: "127.0.0.1:0"}
tls: {local: {dir: %q}}
drain: 5s

issuers:
  demo: {url: %q, audience: %s}

signing_keys:
  %s: {principal: %s, secret: {file: %q}}
integrity: {state: %q}

upstreams:
  tf: {serves: tensorflow, rest: %q}

routes:
  - host: %s
    upstream: tf
    callers: [issuer/demo, key/%s]    # a token, or a signed request
    rules:
      - {allow: [inference, metadata], models: "*", who: {scope: %s}}
      - {allow: [inference, metadata], models: "*", who: {principal: "key:%s"}}
`, d.front.Addr(), filepath.Join(d.dir, "ca"), "http://"+d.issuerAt.Addr().String(), audience, partnerID, partner, d.keyFile(), d.nonceFile(),
		"http://"+d.modelsAt.Addr().String(), host, partner, scopePredict, partner)
}

// listenAs gives the gateway the open listener instead of a new one.
func (d *demo) listenAs(network, addr string) (net.Listener, error) {
	if addr == d.front.Addr().String() {
		return d.front, nil
	}
	return net.Listen(network, addr)
}

// serve runs a server on l until ctx ends, then lets requests in flight finish.
// Its clients are the gateway and the user's own: an error means that the
// listener was closed, which ends the run elsewhere too.
func serve(ctx context.Context, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	var closing sync.WaitGroup
	closing.Go(func() {
		<-ctx.Done()
		fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if s.Shutdown(fresh) != nil {
			_ = s.Close()
		}
	})
	_ = s.Serve(l)
	closing.Wait()
}

// url returns the URL of the gateway.
func (d *demo) url() string {
	_, port, err := net.SplitHostPort(d.front.Addr().String())
	if err != nil {
		return ""
	}
	return "https://" + net.JoinHostPort(host, port)
}

// explain prints the addresses and the lines to paste.
func (d *demo) explain() error {
	token, err := d.issuer.Sign(d.issuer.Claims(clientID, scopePredict))
	if err != nil {
		return err
	}
	own, err := os.Executable()
	if err != nil {
		own = "sallyport"
	}
	curl := "curl -i --cacert " + shell(d.root)
	call := "-d " + shell(predictBody) + " " + d.url() + predictPath
	_, err = fmt.Fprintf(d.out, `All of this runs in one process, on loopback:

  gateway       %s, configured by %s
  issuer        http://%s
  model server  http://%s, without TLS and authentication of its own
  health        http://%s/readyz and /metrics

With a token, good for an hour: 200 and predictions

  %s -H 'Authorization: Bearer %s' %s

Without one: 401

  %s %s

Signed by a partner's key in the place of a token: 200, and the answer is verified

  %s %s --key-id %s --secret %s %s

Another token:

  curl -u %s:%s -d grant_type=client_credentials %s

Records of your calls follow; Ctrl-C ends the demo.

`, d.url(), d.config, d.issuerAt.Addr(), d.modelsAt.Addr(), d.gateway.Addrs().Health,
		curl, token, call, curl, call, shell(own), curl, partnerID, shell(d.keyFile()), call, clientID, d.secret, d.issuer.TokenURL())
	return err
}

// shell quotes a word for a POSIX shell.
func shell(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
