package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/auth/httpsig"
)

// curl holds the flags of `curl`.
type curl struct {
	toSign
	output, ca, responseKey                      string
	include, insecure, verbose, fail, unsignedOK bool
	maxTime                                      float64 // seconds; 0: no bound
	resolve                                      []string

	stdout, stderr io.Writer
}

func newCurl() *cobra.Command {
	var c curl
	command := &cobra.Command{
		Use:   "curl --key-id ID --secret FILE URL",
		Short: "Send a signed request, and verify the answer",
		Long: `Sign a request, send it, and verify the gateway's signature of the answer. The flags
have the same names as those of curl.

An answer with the digest of its content in the head is printed only if it verifies.
A stream is printed as it arrives. It can be verified only at its end; the result is
printed on standard error, so do not act on the content before. A file named with
--output is written only if the whole answer verifies.

The exit status is 1 if the answer does not verify and, with --fail, if its status is
400 or more. If the gateway refuses the request, standard error explains the reason.`,
		Example: `  sallyport curl --key-id acme-2026-11 --secret acme-2026-11.secret \
      -d @body.json https://models.example.com/v1/models/half:predict
  sallyport curl --key-id acme-2026-11 --secret acme-2026-11.private.pem \
      --response-key gateway-keys.json https://models.example.com/v1/models/half
  sallyport curl --key-id acme-2026-11 --secret acme-2026-11.secret \
      --cacert sallyport-ca/root.pem --resolve models.example.com:443:127.0.0.1 \
      https://models.example.com/v1/models/half`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("curl takes one URL, found %d", len(args))}
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error {
			c.url, c.stdout, c.stderr = args[0], command.OutOrStdout(), command.ErrOrStderr()
			return c.run(command.Context(), command.InOrStdin())
		},
	}
	f := command.Flags()
	f.StringVar(&c.keyID, "key-id", "", "the id of the key (required)")
	f.StringVar(&c.secret, "secret", "", "the file that holds the key, or env:NAME (required)")
	f.StringVar(&c.responseKey, "response-key", "", "the file with the gateway's public key, in PEM or as the gateway publishes it")
	f.BoolVar(&c.unsignedOK, "unsigned-ok", false, "take answers that are not signed, or whose head alone is")
	f.StringVarP(&c.method, "request", "X", "", "the method; POST with data, else GET")
	f.StringVarP(&c.data, "data", "d", "", "the content, @FILE, or @- for standard input; sent byte for byte")
	f.StringVar(&c.data, "data-binary", "", "the same as --data")
	f.StringArrayVarP(&c.headers, "header", "H", nil, `a further header, which is signed too, such as "Accept: application/json"`)
	f.BoolVarP(&c.include, "include", "i", false, "print the head of the answer too")
	f.StringVarP(&c.output, "output", "o", "", "the file for the answer (default: standard output)")
	f.BoolVarP(&c.fail, "fail", "f", false, "exit with 1, and print no content, if the status is 400 or more")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "show on standard error what is sent and what comes back, for sallyport verify")
	f.StringVar(&c.ca, "cacert", "", "the file with the authorities to trust (default: the system's)")
	f.StringArrayVar(&c.resolve, "resolve", nil, "the address of a host, such as models.example.com:443:127.0.0.1")
	f.BoolVar(&c.insecure, "insecure", false, "accept any certificate; the signature of the answer is still verified")
	f.Float64Var(&c.maxTime, "max-time", 0, "maximum seconds for the whole operation (default: no limit)")
	return command
}

func (c *curl) run(ctx context.Context, stdin io.Reader) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.maxTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.maxTime*float64(time.Second)))
		defer cancel()
	}
	key, err := readKey(c.keyID, c.secret)
	if err != nil {
		return err
	}
	request, cover, err := c.request(ctx, stdin)
	if err != nil {
		return err
	}
	w, err := c.newWire()
	if err != nil {
		return err
	}
	defer w.base.CloseIdleConnections()
	transport := &httpsig.Transport{Base: w, Key: key, Cover: cover, AcceptUnsigned: c.unsignedOK, AcceptHeadOnly: c.unsignedOK}
	if c.responseKey != "" {
		if transport.ResponseKey, err = responseKeys(key, c.responseKey); err != nil {
			return err
		}
		if err := acceptSignature(request, key); err != nil {
			return err
		}
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return w.explainError(err)
	}
	defer response.Body.Close()
	return c.printResponse(response, w)
}

func (c *curl) check() error {
	for _, flag := range []struct{ name, value string }{{"key-id", c.keyID}, {"secret", c.secret}} {
		if flag.value == "" {
			return usageError{fmt.Errorf("--%s is required", flag.name)}
		}
	}
	if c.maxTime < 0 || c.maxTime > 1e6 || math.IsNaN(c.maxTime) {
		return usageError{fmt.Errorf("--max-time %g: want seconds, at most a million", c.maxTime)}
	}
	return nil
}

// request returns the request to sign, and the names of the fields to sign besides those
// that are always signed.
func (c *curl) request(ctx context.Context, stdin io.Reader) (*http.Request, []string, error) {
	m, content, err := c.message(stdin)
	if err != nil {
		return nil, nil, err
	}
	var body io.Reader
	if c.data != "" {
		body = bytes.NewReader(content)
	}
	r, err := http.NewRequestWithContext(ctx, m.Method, c.url, body)
	if err != nil {
		return nil, nil, usageError{err}
	}
	var cover []string
	for _, line := range m.Fields.(httpsig.Lines) {
		switch name := strings.ToLower(line.Name); name {
		case "content-digest": // the transport sets it
			continue
		case "content-type", "content-encoding": // always signed
		default:
			cover = append(cover, name)
		}
		r.Header.Set(line.Name, line.Value)
	}
	return r, cover, nil
}

// acceptSignature adds Accept-Signature to ask for a signature with the gateway's own key.
// For callers with a secret, the gateway would otherwise sign with that.
func acceptSignature(r *http.Request, own *httpsig.Key) error {
	if own.Algorithm() != httpsig.HMACSHA256 || r.Header.Get("Accept-Signature") != "" {
		return nil
	}
	// List no components: those that the gateway covers depend on its response.
	value, err := httpsig.FormatAcceptSignature(httpsig.Wanted{Label: "sp", Created: true, Alg: string(httpsig.Ed25519), Tag: httpsig.TagResponse})
	if err != nil {
		return err
	}
	r.Header.Set("Accept-Signature", value)
	return nil
}

// responseKeys returns a look-up of keys for responses: our own secret, and the public
// keys of a file.
func responseKeys(own *httpsig.Key, name string) (func(id string) *httpsig.Key, error) {
	published, err := readPublic(name)
	if err != nil {
		return nil, err
	}
	return func(id string) *httpsig.Key {
		if own.Algorithm() == httpsig.HMACSHA256 && id == own.ID() {
			return own
		}
		return published(id)
	}, nil
}
