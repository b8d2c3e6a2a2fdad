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

// curl is one signed call, as the command line has it.
type curl struct {
	toSign
	output, ca, responseKey                      string
	include, insecure, verbose, fail, unsignedOK bool
	maxTime                                      float64 // seconds; 0: no bound

	stdout, stderr io.Writer
}

func newCurl() *cobra.Command {
	var c curl
	command := &cobra.Command{
		Use:   "curl --key-id ID --secret FILE URL",
		Short: "Call with a signed request, and verify the answer",
		Long: `Sign a request, send it, and verify that the answer is what the gateway signed for
it. Flags are those of curl, as far as there are any.

An answer that has the digest of its content in the head is printed once it is
verified, and not at all if it is not. A stream is printed as it comes; whether it
was what the gateway signed is known at its end, and told on standard error: do not
act on it before. A file named with --output appears only when all is verified.

The exit status is 1 if the answer is not verified and, with --fail, if its status
is 400 or more. Why a gateway refuses is told on standard error, in words.`,
		Example: `  sallyport curl --key-id acme-2026-11 --secret acme-2026-11.secret \
      -d @body.json https://models.example.com/v1/models/half:predict
  sallyport curl --key-id acme-2026-11 --secret acme-2026-11.private.pem \
      --response-key gateway-keys.json https://models.example.com/v1/models/half`,
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
	f.StringVar(&c.keyID, "key-id", "", "the id of the key (needed)")
	f.StringVar(&c.secret, "secret", "", "the file that holds the key, or env:NAME (needed)")
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
	f.BoolVar(&c.insecure, "insecure", false, "take any certificate; the signature of the answer is verified all the same")
	f.Float64Var(&c.maxTime, "max-time", 0, "seconds that the whole may take (default: no bound)")
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
		if err := ask(request, key); err != nil {
			return err
		}
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return w.inWords(err)
	}
	defer response.Body.Close()
	return c.take(response, w)
}

func (c *curl) check() error {
	for _, flag := range []struct{ name, value string }{{"key-id", c.keyID}, {"secret", c.secret}} {
		if flag.value == "" {
			return usageError{fmt.Errorf("--%s is needed", flag.name)}
		}
	}
	if c.maxTime < 0 || c.maxTime > 1e6 || math.IsNaN(c.maxTime) {
		return usageError{fmt.Errorf("--max-time %g: want seconds, at most a million", c.maxTime)}
	}
	return nil
}

// request is what is to be signed, with the names of the fields that are to be
// signed besides those that always are.
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
		case "content-digest": // made anew
			continue
		case "content-type", "content-encoding": // signed anyway
		default:
			cover = append(cover, name)
		}
		r.Header.Set(line.Name, line.Value)
	}
	return r, cover, nil
}

// ask asks for a signature by the gateway's own key, where the usual one would be
// by the caller's.
func ask(r *http.Request, own *httpsig.Key) error {
	if own.Algorithm() != httpsig.HMACSHA256 || r.Header.Get("Accept-Signature") != "" {
		return nil
	}
	// Without components: what the gateway always covers depends on what it answers.
	value, err := httpsig.FormatAcceptSignature(httpsig.Wanted{Label: "sp", Created: true, Alg: string(httpsig.Ed25519), Tag: httpsig.TagResponse})
	if err != nil {
		return err
	}
	r.Header.Set("Accept-Signature", value)
	return nil
}

// responseKeys finds the keys of answers: our own secret, and those of a file.
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
