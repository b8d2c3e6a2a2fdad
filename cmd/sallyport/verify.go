package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/auth/httpsig"
)

// toVerify holds the flags of `verify`.
type toVerify struct {
	secret, public, head, response, vector, scheme, tag, at, base string
	explain                                                       bool
}

func newVerify() *cobra.Command {
	var v toVerify
	c := &cobra.Command{
		Use:   "verify --secret FILE < REQUEST",
		Short: "Verify a captured request or answer, and explain why its signature does not match",
		Long: `Verify the signature of a request as it was sent: request line, headers, and
optionally an empty line and the content, to compare it with its digest. The command
also reads the output of curl -v and of sallyport curl -v.

With --response it verifies the answer in that file, in the format of curl -i or -v;
the request is the one that it answers. With --vector it verifies a test vector of
sallyport keygen.

With --explain it prints the signature base as the gateway computes it. If the client
signed another base, it prints that one too and where they differ. It reads the
client's base from --base, which many libraries can print, or tries common mistakes.`,
		Example: `  sallyport verify --secret alice.key --explain < request.txt
  curl -v -H @headers https://models.example.com/ 2>&1 | sallyport verify --secret alice.key --explain
  sallyport verify --public-key gateway.pem --response answer.txt --at 2026-11-24T12:00:00Z < request.txt
  sallyport verify --secret acme-2026-11.secret --vector test-vector.json`,
		RunE: func(c *cobra.Command, _ []string) error { return v.run(c.InOrStdin(), c.OutOrStdout()) },
	}
	f := c.Flags()
	f.StringVar(&v.secret, "secret", "", "the file that holds the key, or env:NAME (required, or --public-key)")
	f.StringVar(&v.public, "public-key", "", "the file with the signer's public key, in PEM or as a gateway publishes it")
	f.StringVar(&v.head, "head", "", "the file that holds the request; standard input if empty")
	f.StringVar(&v.response, "response", "", "the file that holds the answer to be verified; may be the same")
	f.StringVar(&v.vector, "vector", "", "the file that holds a test vector")
	f.StringVar(&v.scheme, "scheme", "https", "how the client reached the gateway")
	f.StringVar(&v.tag, "tag", httpsig.TagRequest, "what the signature is for")
	f.StringVar(&v.at, "at", "", "when it arrived, such as 2026-11-24T12:00:00Z; now if empty")
	f.StringVar(&v.base, "base", "", "the file that holds what the client signed")
	f.BoolVar(&v.explain, "explain", false, "show both signature bases and where they differ")
	return c
}

func (v *toVerify) run(stdin io.Reader, out io.Writer) error {
	now, err := v.check()
	if err != nil {
		return err
	}
	subject := &captured{tag: v.tag, policy: httpsig.RequestPolicy()}
	if v.vector != "" {
		subject, now, err = v.readVector(subject)
	} else {
		subject.Message, subject.content, err = v.read(stdin)
	}
	if err == nil && v.response != "" {
		subject, err = v.readResponse(subject.Message)
	}
	if err != nil {
		return err
	}
	var text strings.Builder
	failed := v.verify(&text, subject, now)
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return failed
}

// check refuses missing and contradictory flags, and returns the time of verification.
func (v *toVerify) check() (now time.Time, err error) {
	now = time.Now()
	switch {
	case v.secret == "" && v.public == "":
		return now, usageError{errors.New("--secret or --public-key is required")}
	case v.secret != "" && v.public != "":
		return now, usageError{errors.New("--secret and --public-key exclude each other")}
	case v.vector != "" && (v.response != "" || v.head != "" || v.at != "" || v.base != ""):
		return now, usageError{errors.New("--vector holds request, time and base; leave the others out")}
	case v.scheme != "https" && v.scheme != "http":
		return now, usageError{fmt.Errorf("--scheme %q: want https or http", v.scheme)}
	}
	if v.at != "" {
		if now, err = time.Parse(time.RFC3339, v.at); err != nil {
			return now, usageError{fmt.Errorf("--at %q: want such as 2026-11-24T12:00:00Z", v.at)}
		}
	}
	return now, nil
}

// captured is a message to verify.
type captured struct {
	*httpsig.Message
	content *string // nil: not given
	tag     string
	policy  httpsig.Policy
	nonce   string // that a response must echo
	base    string // the signer's base, if the input has it
	note    string // printed if the signature is valid
}

// keys returns a look-up of the given key. It sets fault if the key cannot be read.
func (v *toVerify) keys(fault *error) func(id string) *httpsig.Key {
	return func(id string) *httpsig.Key {
		if *fault != nil {
			return nil
		}
		if v.public == "" {
			var key *httpsig.Key
			key, *fault = readKey(id, v.secret)
			return key
		}
		find, err := readPublic(v.public)
		if *fault = err; err != nil {
			return nil
		}
		return find(id)
	}
}

// verify verifies a message as its receiver would and writes the result.
func (v *toVerify) verify(out *strings.Builder, c *captured, now time.Time) error {
	var fault error
	lookup := v.keys(&fault)
	c.policy.Tag = c.tag
	c.policy.Algorithms = []httpsig.Algorithm{httpsig.HMACSHA256, httpsig.Ed25519}
	verifier, err := httpsig.NewVerifier(c.policy, httpsig.VerifierOptions{
		Key:       lookup,
		Authority: func(string) bool { return true },
		Now:       func() time.Time { return now },
	})
	if err != nil {
		return usageError{err}
	}
	var s *httpsig.Signature
	var refused error
	if c.Status != 0 {
		s, refused = verifier.VerifyResponse(c.Message, c.nonce, false)
	} else {
		s, refused = verifier.Verify(c.Message)
	}
	if fault != nil {
		return fault
	}
	if refused == nil && c.digested() {
		refused = matches(c.Message, c.content)
	}
	if refused == nil {
		fmt.Fprintf(out, "good: signed by %s, %s, covering %s\n%s", s.Key.ID(), s.Key.Algorithm(), strings.Join(s.Components(), " "), c.note)
	}
	if v.explain {
		if err := v.explainBase(out, c, lookup); err != nil && refused == nil {
			return err
		}
		if fault != nil {
			return fault
		}
	}
	var bad *httpsig.Error
	switch {
	case refused == nil:
		return nil
	case errors.As(refused, &bad) && bad.Code == httpsig.Stale && v.at == "":
		return fmt.Errorf("refused: %w; --at says when it arrived", refused)
	}
	return fmt.Errorf("refused: %w", refused)
}

// digested reports whether the signature must cover a digest of the content.
func (c *captured) digested() bool { return slices.Contains(c.policy.Require, "content-digest") }

// matches compares the content with its digest, if the content is given.
func matches(m *httpsig.Message, content *string) error {
	digests, err := httpsig.ParseContentDigest(m.Fields)
	if err != nil || content == nil {
		return err
	}
	return digests.Match([]byte(*content))
}
