package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/auth/httpsig"
)

// toSign holds the flags of `sign`: the request to sign.
type toSign struct {
	keyID, secret, url, method, data, tag string
	headers                               []string
	base                                  bool
}

func newSign() *cobra.Command {
	var s toSign
	c := &cobra.Command{
		Use:   "sign --key-id ID --secret FILE --url URL",
		Short: "Sign a request and print its headers for curl",
		Long: `Sign a request (RFC 9421) and print the headers to send with it. The signature is
valid for one minute and for one request. Headers given with --header are printed
and signed too.

The secret is base64, in a file or in a variable of the environment: env:NAME. A
file that holds an Ed25519 private key in PEM makes an ed25519 signature.`,
		Example: `  sallyport sign --key-id alice --secret alice.key \
      --url https://models.example.com/v1/models/half:predict -d @body.json > headers
  curl -H @headers --data-binary @body.json https://models.example.com/v1/models/half:predict`,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.print(c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&s.keyID, "key-id", "", "the id of the key (required)")
	f.StringVar(&s.secret, "secret", "", "the file that holds the key, or env:NAME (required)")
	f.StringVar(&s.url, "url", "", "what is asked for, as curl gets it (required)")
	f.StringVarP(&s.method, "method", "X", "", "the method; POST with data, else GET")
	f.StringVarP(&s.data, "data", "d", "", "the content, @FILE, or @- for standard input")
	f.StringArrayVarP(&s.headers, "header", "H", nil, `a further header, such as "Content-Type: application/json"`)
	f.StringVar(&s.tag, "tag", httpsig.TagRequest, "what the signature is for")
	f.BoolVar(&s.base, "base", false, "show what was signed, on standard error, for sallyport verify --base")
	return c
}

func (s *toSign) print(stdin io.Reader, stdout, stderr io.Writer) error {
	for _, flag := range []struct{ name, value string }{{"key-id", s.keyID}, {"secret", s.secret}, {"url", s.url}} {
		if flag.value == "" {
			return usageError{fmt.Errorf("--%s is required", flag.name)}
		}
	}
	key, err := readKey(s.keyID, s.secret)
	if err != nil {
		return err
	}
	m, _, err := s.message(stdin)
	if err != nil {
		return err
	}
	fields := m.Fields.(httpsig.Lines)
	profile := httpsig.RequestProfile()
	profile.Tag = s.tag
	for _, line := range fields {
		if name := strings.ToLower(line.Name); name != "content-digest" && name != "content-type" && name != "content-encoding" {
			profile.Cover = append(profile.Cover, name)
		}
	}
	signer, err := httpsig.NewSigner(profile, nil)
	if err != nil {
		return usageError{err}
	}
	signed, err := signer.Sign(key, m, "")
	if err != nil {
		return err
	}
	fields = append(fields, httpsig.Line{Name: "Signature-Input", Value: signed.Input}, httpsig.Line{Name: "Signature", Value: signed.Signature})
	if s.base {
		base, err := httpsig.Base(m, strings.TrimPrefix(signed.Input, "sp="))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(stderr, "%s\n", base); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	for _, line := range fields {
		if _, err := fmt.Fprintf(stdout, "%s: %s\n", line.Name, line.Value); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	return nil
}

// message returns the request without its signature, and its content.
func (s *toSign) message(stdin io.Reader) (*httpsig.Message, []byte, error) {
	u, err := parseTarget("URL", s.url)
	if err != nil {
		return nil, nil, usageError{err}
	}
	content, err := readData(s.data, stdin)
	if err != nil {
		return nil, nil, err
	}
	m := &httpsig.Message{Method: s.method, Scheme: u.Scheme, Authority: u.Host}
	if m.Method == "" {
		m.Method = "GET"
		if s.data != "" {
			m.Method = "POST"
		}
	}
	m.Path, m.Query, m.HasQuery = strings.Cut(u.RequestURI(), "?")
	lines, err := s.lines()
	if err != nil {
		return nil, nil, err
	}
	if _, ok := lines.Line("content-type", 0); !ok && s.data != "" {
		// Otherwise curl would add one that is not signed.
		kind := "application/octet-stream"
		if json.Valid(content) {
			kind = "application/json"
		}
		lines = append(lines, httpsig.Line{Name: "Content-Type", Value: kind})
	}
	m.Fields = append(lines, httpsig.Line{Name: "Content-Digest", Value: httpsig.ContentDigest(content)})
	return m, content, nil
}

// parseTarget parses the URL of a request. It refuses URLs that clients change.
func parseTarget(flag, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%s %q: want such as https://models.example.com/v1/models", flag, text)
	}
	if u.User != nil {
		// Do not quote the text: it may contain a password.
		return nil, fmt.Errorf("%s: a user in it would be sent as another credential, and not be signed", flag)
	}
	for part := range strings.SplitSeq(u.EscapedPath(), "/") {
		if part == "." || part == ".." {
			return nil, fmt.Errorf("%s %q: curl removes dot segments, and what was signed would not be what is sent", flag, text)
		}
	}
	return u, nil
}

// lines returns the given headers. It refuses those that this command makes or that
// intermediaries change, since they cannot be signed.
func (s *toSign) lines() (httpsig.Lines, error) {
	var lines httpsig.Lines
	for _, h := range s.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" || strings.ContainsAny(h, "\r\n") {
			return nil, usageError{fmt.Errorf(`--header %q: want such as "Accept: application/json"`, h)}
		}
		switch strings.ToLower(name) {
		case "content-digest", "signature", "signature-input", "host", "connection", "te", "transfer-encoding", "via", "forwarded", "date":
			return nil, usageError{fmt.Errorf("--header %q: sallyport sets it or intermediaries change it, so it cannot be signed", name)}
		}
		if _, twice := lines.Line(name, 0); twice {
			return nil, usageError{fmt.Errorf("--header %q: given twice", name)}
		}
		lines = append(lines, httpsig.Line{Name: name, Value: strings.Trim(value, " \t")})
	}
	return lines, nil
}

// readData reads content, written as for curl's --data-binary.
func readData(data string, stdin io.Reader) ([]byte, error) {
	name, file := strings.CutPrefix(data, "@")
	switch {
	case !file:
		return []byte(data), nil
	case name == "-":
		content, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("reading the content: %w", err)
		}
		return content, nil
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the content: %w", err)
	}
	return content, nil
}
