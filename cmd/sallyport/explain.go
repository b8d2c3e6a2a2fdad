package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

// maxExplained bounds the files that explain reads, in bytes.
const maxExplained = 64 << 20

func newExplain() *cobra.Command {
	e := &explainCommand{}
	c := &cobra.Command{
		Use:   "explain {--as PRINCIPAL | --token-file FILE} {METHOD URL | --grpc /PACKAGE.SERVICE/METHOD [URL]}",
		Short: "Say what the gateway decides on a request, and by which rule",
		Long: `Say what the gateway decides on a request, and why: the route, whether it admits the
client's address and the caller, what the request asks for, and what each rule says.
The decision is made by the gateway's own code from the configuration alone, offline:
no credential is verified, and no rate or signature is checked. Conditions (when) see
TLS 1.3, the address of --from and the fields of --header. step_up reads the claims
auth_time and acr (or the one that acr.claim of the issuer names).

Pages under /.sallyport/ are the gateway's own on hosts where people sign in: explain
says what each of them does. A person who has signed in is named by --as like one with a
token, and explain says whether that session counts where another proxy asks
(listen.forward_auth). --token-file is a token and no session: a route that lists logins
alone refuses it.

--as names the caller as audit records do. An API key has its groups of the
configuration, if their file can be read. Give other groups, scopes and claims with
--group, --scope and --claim. Or take the caller from a token, which is read and not
verified. If the body names the model, --data gives the body (for --grpc the message,
without frame), or --model what it names.

The exit status is 0 if the request is allowed, 1 if it is refused, and 2 if the
question cannot be answered. The answer is a table on a terminal, JSON on a pipe.`,
		Example: `  sallyport explain --as issuer/corp:alice --scope models.predict POST https://models.example.com/v1/models/m:predict
  sallyport explain --token-file token --grpc /tensorflow.serving.PredictionService/Predict --model m --version 3
  sallyport explain --as apikey:notebook GET https://models.example.com/v1/models/m
  sallyport explain --as key:batch --data body.json POST https://models.example.com/v1/chat/completions -o table
  sallyport explain --as anonymous GET https://mlflow.example.com/.sallyport/sign-in`,
		Args: func(_ *cobra.Command, args []string) error { return e.take(args) },
		RunE: func(c *cobra.Command, _ []string) error { return e.run(c.OutOrStdout()) },
	}
	f := c.Flags()
	configFlag(c, &e.config)
	f.StringVar(&e.as, "as", "", "the caller, such as issuer/corp:alice, key:acme, apikey:notebook or anonymous")
	f.StringVar(&e.tokenFile, "token-file", "", "the file with a token of the caller; - for standard input")
	f.StringArrayVar(&e.scopes, "scope", nil, "a scope of the caller")
	f.StringArrayVar(&e.groups, "group", nil, "a group of the caller")
	f.StringArrayVar(&e.claims, "claim", nil, "a claim of the caller, as PATH=VALUE")
	f.StringVar(&e.from, "from", "", "the client's address (default: left out of account)")
	f.StringArrayVarP(&e.headers, "header", "H", nil, "a field of the request, as NAME: VALUE")
	f.StringVar(&e.grpc, "grpc", "", "the gRPC method, as /PACKAGE.SERVICE/METHOD")
	f.StringVar(&e.model, "model", "", "the model that the body names")
	f.StringVar(&e.version, "version", "", "the version that the body names: a number, or label:NAME (default: latest)")
	f.StringVar(&e.signature, "signature", "", "the TensorFlow signature that the body names")
	f.StringVar(&e.data, "data", "", "the file with the body; - for standard input")
	f.StringVarP(&e.output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	return c
}

// explainCommand is one run of `sallyport explain`.
type explainCommand struct {
	config, output                  string
	as, tokenFile                   string
	scopes, groups, claims, headers []string
	from, grpc                      string
	model, version, signature, data string

	method, url string
}

// take takes the arguments.
func (e *explainCommand) take(args []string) error {
	switch {
	case e.grpc != "" && len(args) <= 1:
		if len(args) == 1 {
			e.url = args[0]
		}
		e.method = "POST"
		return nil
	case e.grpc == "" && len(args) == 2:
		e.method, e.url = args[0], args[1]
		return nil
	}
	return usageError{errors.New("explain takes METHOD and URL, or --grpc and at most a URL")}
}

func (e *explainCommand) run(w io.Writer) error {
	output, err := outputForm(w, e.output)
	if err != nil {
		return err
	}
	config, err := proxy.LoadConfig(e.config)
	if err != nil {
		return usageError{err}
	}
	x, err := proxy.NewExplainer(config)
	if err != nil {
		return usageError{err}
	}
	q, err := e.question(x)
	if err != nil {
		return usageError{err}
	}
	d, err := x.Explain(q)
	if proxy.DependsOnBody(err) {
		err = fmt.Errorf("%w: give it with --data FILE, or name the model with --model", err)
	}
	if err != nil {
		return usageError{err}
	}
	if output == "json" {
		err = writeJSON(w, d)
	} else {
		err = writeDecision(w, d)
		if err == nil && strings.HasPrefix(e.as, "issuer/") && len(e.scopes)+len(e.groups)+len(e.claims) == 0 && (d.Reason == "forbidden" || d.Reason == "insufficient_scope") {
			_, err = fmt.Fprintln(w, "Give the caller what a token or a sign-in would bring: --group, --scope, --claim.")
		}
	}
	if err == nil && !d.Allowed {
		return childStatus(exitFailed)
	}
	return err
}

// question puts the flags together.
func (e *explainCommand) question(x *proxy.Explainer) (*proxy.Question, error) {
	q := &proxy.Question{Method: e.method, URL: e.url, GRPC: e.grpc, At: time.Now()}
	q.Named.Model, q.Named.Version, q.Named.Signature = e.model, e.version, e.signature
	claims := map[string][]string{}
	for _, c := range e.claims {
		path, value, ok := strings.Cut(c, "=")
		if !ok {
			return nil, fmt.Errorf("--claim %q: want PATH=VALUE", c)
		}
		claims[path] = append(claims[path], value)
	}
	for _, h := range e.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, fmt.Errorf("--header %q: want NAME: VALUE", h)
		}
		q.AddField(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	var err error
	switch {
	case (e.as == "") == (e.tokenFile == ""):
		return nil, errors.New("give the caller with --as (such as anonymous) or --token-file")
	case e.tokenFile != "" && len(e.scopes)+len(e.groups)+len(e.claims) > 0:
		return nil, errors.New("--scope, --group and --claim are of the caller of --as; a token has its own")
	case e.data != "" && e.model != "":
		return nil, errors.New("--data and --model both say which model it is: give one of them")
	case e.tokenFile != "":
		token, err := readExplained(e.tokenFile)
		if err != nil {
			return nil, err
		}
		if q.Caller, err = x.Holder(strings.TrimSpace(string(token))); err != nil {
			return nil, err
		}
		q.Token = true
	default:
		if q.Caller, err = x.Caller(e.as, e.scopes, e.groups, claims); err != nil {
			return nil, fmt.Errorf("--as %w", err)
		}
	}
	if e.from != "" {
		if q.From, err = netip.ParseAddr(e.from); err != nil {
			return nil, fmt.Errorf("--from %q: want an address", e.from)
		}
	}
	if e.data != "" {
		if q.Body, err = readExplained(e.data); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// readExplained reads a file, or standard input.
func readExplained(name string) ([]byte, error) {
	var r io.Reader = os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxExplained+1))
	if err == nil && len(b) > maxExplained {
		err = fmt.Errorf("%s has more than %d bytes", name, maxExplained)
	}
	return b, err
}

// writeDecision writes a decision as a table, and below it the outcome.
func writeDecision(w io.Writer, d *proxy.Decision) error {
	p := painter(terminal(w) && os.Getenv("NO_COLOR") == "")
	rows := [][]string{{"CHECK", "RESULT", "PLACE", "WHY"}}
	for _, c := range d.Checks {
		place := ""
		if c.File != "" {
			place = fmt.Sprintf("%s:%d", c.File, c.Line)
		}
		rows = append(rows, []string{c.Of, c.Result, place, c.Why})
	}
	text := aligned(rows, p) + "\n"
	switch {
	case d.Page != "":
		text += p.paint(green, "answered") + " by the gateway itself: this " + d.Page + "\n"
	case d.Allowed:
		text += p.paint(green, "allowed") + " by " + decidedBy(d) + "\n"
	case d.Rule != "":
		text += fmt.Sprintf("%s by %s: %d %s: %s\n", p.paint(red, "refused"), decidedBy(d), d.Status, d.Reason, d.Cause)
	default:
		text += fmt.Sprintf("%s: %d %s: %s\n", p.paint(red, "refused"), d.Status, d.Reason, d.Cause)
	}
	if d.Candidate != "" {
		text += "candidate_rules: " + d.Candidate
		if d.CandidateRule != "" {
			text += " by " + d.CandidateRule
		}
		text += "\n"
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

func decidedBy(d *proxy.Decision) string {
	return fmt.Sprintf("%s (%s:%d)", d.Rule, d.RuleFile, d.RuleLine)
}
