package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/auth/httpsig"
)

// toVerify is one captured request and what it is to be compared with.
type toVerify struct {
	secret, head, scheme, tag, at, base string
	explain                             bool
}

func newVerify() *cobra.Command {
	var v toVerify
	c := &cobra.Command{
		Use:   "verify --secret FILE < REQUEST",
		Short: "Verify a captured request, and explain why its signature does not match",
		Long: `Verify the signature of a request as it was sent: request line, headers, and after
an empty line the content, if it is to be compared with its digest. Output of
curl -v is understood too.

With --explain it shows the signature base as the gateway computes it. If that is
not what was signed, it shows what was, and where the two part: taken from --base,
which many libraries can print, or found among common mistakes.`,
		Example: `  sallyport verify --secret alice.key --explain < request.txt
  curl -v -H @headers https://models.example.com/ 2>&1 | sallyport verify --secret alice.key --explain`,
		RunE: func(c *cobra.Command, _ []string) error { return v.run(c.InOrStdin(), c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&v.secret, "secret", "", "the file that holds the key, or env:NAME (needed)")
	f.StringVar(&v.head, "head", "", "the file that holds the request; standard input if empty")
	f.StringVar(&v.scheme, "scheme", "https", "how the client reached the gateway")
	f.StringVar(&v.tag, "tag", httpsig.TagRequest, "what the signature is for")
	f.StringVar(&v.at, "at", "", "when it arrived, such as 2026-11-24T12:00:00Z; now if empty")
	f.StringVar(&v.base, "base", "", "the file that holds what the client signed")
	f.BoolVar(&v.explain, "explain", false, "show both signature bases and where they part")
	return c
}

func (v *toVerify) run(stdin io.Reader, out io.Writer) error {
	if v.secret == "" {
		return usageError{errors.New("--secret is needed")}
	}
	if v.scheme != "https" && v.scheme != "http" {
		return usageError{fmt.Errorf("--scheme %q: want https or http", v.scheme)}
	}
	now := time.Now()
	if v.at != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, v.at); err != nil {
			return usageError{fmt.Errorf("--at %q: want such as 2026-11-24T12:00:00Z", v.at)}
		}
	}
	m, content, err := v.read(stdin)
	if err != nil {
		return err
	}
	var text strings.Builder
	failed := v.verify(&text, m, content, now)
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return failed
}

// verify says what a gateway would, and more.
func (v *toVerify) verify(out *strings.Builder, m *httpsig.Message, content *string, now time.Time) error {
	var key *httpsig.Key
	var fault error
	policy := httpsig.RequestPolicy()
	policy.Tag = v.tag
	policy.Algorithms = []httpsig.Algorithm{httpsig.HMACSHA256, httpsig.Ed25519}
	lookup := func(id string) *httpsig.Key {
		if key == nil && fault == nil {
			key, fault = readKey(id, v.secret)
		}
		return key
	}
	verifier, err := httpsig.NewVerifier(policy, httpsig.VerifierOptions{
		Key:       lookup,
		Authority: func(string) bool { return true },
		Now:       func() time.Time { return now },
	})
	if err != nil {
		return usageError{err}
	}
	s, refused := verifier.Verify(m)
	if fault != nil {
		return fault
	}
	if refused == nil {
		refused = matches(m, content)
	}
	if refused == nil {
		fmt.Fprintf(out, "good: signed by %s, %s, covering %s\n", s.Key.ID(), s.Key.Algorithm(), strings.Join(s.Components(), " "))
	}
	if v.explain {
		if err := v.explainBase(out, m, lookup); err != nil && refused == nil {
			return err
		}
		if fault != nil {
			return fault
		}
	}
	if refused != nil {
		return fmt.Errorf("refused: %w", refused)
	}
	return nil
}

// matches compares the content, if it was given, with its digest.
func matches(m *httpsig.Message, content *string) error {
	digests, err := httpsig.ParseContentDigest(m.Fields)
	if err != nil || content == nil {
		return err
	}
	return digests.Match([]byte(*content))
}

// read reads a request. The content is nil if none was given.
func (v *toVerify) read(stdin io.Reader) (*httpsig.Message, *string, error) {
	var text []byte
	var err error
	if v.head == "" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(v.head)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the request: %w", err)
	}
	head, rest, whole := strings.Cut(strings.ReplaceAll(sent(string(text)), "\r\n", "\n"), "\n\n")
	first, fields, _ := strings.Cut(strings.TrimLeft(head, "\n"), "\n")
	words := strings.Fields(first)
	if len(words) < 2 || !strings.HasPrefix(words[1], "/") {
		return nil, nil, errors.New(`reading the request: want it to begin such as "POST /v1/models HTTP/1.1"`)
	}
	m := &httpsig.Message{Method: words[0], Scheme: v.scheme}
	m.Path, m.Query, m.HasQuery = strings.Cut(words[1], "?")
	var lines httpsig.Lines
	for line := range strings.Lines(fields) {
		name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), ":")
		if !ok {
			return nil, nil, fmt.Errorf("reading the request: %q is no header", strings.TrimSpace(line))
		}
		lines = append(lines, httpsig.Line{Name: name, Value: strings.Trim(value, " \t")})
	}
	m.Fields = lines
	if m.Authority, _ = lines.Line("host", 0); m.Authority == "" {
		return nil, nil, errors.New("reading the request: it has no Host")
	}
	if !whole {
		return m, nil, nil
	}
	content := rest
	if _, after, ok := strings.Cut(string(text), "\r\n\r\n"); ok {
		content = after // byte for byte
	}
	return m, &content, nil
}

// sent gives what curl -v says that it sent, or all of another text.
func sent(text string) string {
	if !strings.Contains("\n"+text, "\n> ") {
		return text
	}
	var lines []string
	for line := range strings.Lines(text) {
		after, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n "), ">")
		switch {
		case ok && after == "":
			return strings.Join(lines, "\n") // the first request of several
		case ok:
			lines = append(lines, strings.TrimPrefix(after, " "))
		}
	}
	return strings.Join(lines, "\n")
}
