package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

// revoke is the command that adds to the file of revocations.
type revoke struct {
	config, socket, before, until string
	list, prune                   bool
}

func newRevoke() *cobra.Command {
	r := &revoke{}
	c := &cobra.Command{
		Use:   "revoke KIND NAME",
		Short: "Refuse a credential from now on, although it verifies",
		Long: `Add a line to the file that gateway.yaml names in revoked. The gateway reads the file
again, refuses the credential with 401 revoked, and ends its streams.

KIND NAME is one of
  principal issuer/corp:alice      all that this caller got before now, or --before
  principal apikey:notebook        callers by keys are revoked as a whole
  jti issuer/corp ID               one token
  key ID                           a signing key; key issuer/corp ID: an issuer's key
  apikey NAME                      an API key; NAME:DIGITS as in key_id: one of its secrets
  certificate sha256:HEX           a client certificate by its fingerprint
  certificate SERIAL ISSUER        or by its serial number and issuer, such as 1f2a "CN=Lab CA"

--until says when the line may go, because what it revokes has then ended: --prune
removes such lines.`,
		Example: `  sallyport revoke principal issuer/corp:alice
  sallyport revoke jti issuer/corp 8f14e45f --until 2026-12-31
  sallyport revoke --list`,
		RunE: func(c *cobra.Command, args []string) error { return r.run(c, args, time.Now()) },
	}
	configFlag(c, &r.config)
	socketFlag(c, &r.socket)
	c.Flags().StringVar(&r.before, "before", "", "with principal: revoke what was issued before this time (default: now)")
	c.Flags().StringVar(&r.until, "until", "", "when the line may be removed")
	c.Flags().BoolVar(&r.list, "list", false, "list what is revoked")
	c.Flags().BoolVar(&r.prune, "prune", false, "remove the lines whose --until has passed")
	return c
}

func (r *revoke) run(c *cobra.Command, args []string, now time.Time) error {
	switch alone := r.list || r.prune; {
	case r.list && r.prune, alone && (len(args) > 0 || r.before != "" || r.until != ""):
		return usageError{errors.New("--list and --prune stand alone")}
	case !alone && len(args) < 2:
		return usageError{errors.New("want what to revoke, such as principal issuer/corp:alice")}
	}
	config, err := proxy.LoadConfig(r.config)
	if err != nil {
		return err
	}
	file, out := string(config.Revoked), c.OutOrStdout()
	if file == "" {
		return fmt.Errorf("%s names no file for this; add the line `revoked: revoked.txt`", r.config)
	}
	switch {
	case r.list:
		return listRevocations(out, file)
	case r.prune:
		n, err := proxy.PruneRevocations(file, now)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%d lines removed from %s\n", n, file)
		return err
	}
	line, err := r.line(args, now)
	if err != nil {
		return usageError{err}
	}
	added, err := proxy.Revoke(file, line)
	if err != nil {
		return err
	}
	what := "added to " + file + ": " + line.String()
	if !added {
		what = "already in " + file + ": " + line.String()
	}
	if _, err := fmt.Fprintln(out, what); err != nil {
		return err
	}
	if problem, cure := config.MissesAll(&line); problem != "" {
		if _, err := fmt.Fprintf(c.ErrOrStderr(), "warning: %s revokes nobody: %s; %s\n", line.String(), problem, cure); err != nil {
			return err
		}
	}
	return r.apply(c, config)
}

// line makes the revocation of a command line.
func (r *revoke) line(args []string, now time.Time) (line proxy.Revocation, err error) {
	words := slices.Clone(args)
	for i, word := range words {
		// The shell has removed the quotes of a name with spaces.
		if strings.Contains(word, " ") && words[0] != "certificate" && !strings.HasPrefix(word, `"`) {
			words[i] = strconv.Quote(word)
		}
	}
	if line, err = proxy.ParseRevocation(strings.Join(words, " ")); err != nil {
		return line, err
	}
	if r.before != "" {
		if err := line.Before.UnmarshalText([]byte(r.before)); err != nil {
			return line, fmt.Errorf("--before: %w", err)
		}
	} else if line.Kind == "principal" && line.Before.IsZero() {
		// Tokens say the second of their issue: this includes those of the current one.
		line.Before.Time = now.UTC().Truncate(time.Second).Add(time.Second)
	}
	if r.until != "" {
		if err := line.Until.UnmarshalText([]byte(r.until)); err != nil {
			return line, fmt.Errorf("--until: %w", err)
		}
	}
	return proxy.ParseRevocation(line.String())
}

// apply tells the running gateway to read the file again, and says what became of it.
func (r *revoke) apply(c *cobra.Command, config *proxy.Config) error {
	out := c.OutOrStdout()
	at, err := controlSocket(c, r.config, r.socket)
	if err != nil {
		return err
	}
	report, err := proxy.Reload(c.Context(), at)
	var nobody *proxy.ControlError
	if errors.As(err, &nobody) {
		when := "reads the file within seconds"
		if !config.Reload.Watches() {
			when = "reads the file once it reloads"
		}
		_, err = fmt.Fprintln(out, "no gateway answers at its control socket: one that runs elsewhere", when)
		return err
	}
	if err != nil {
		return err
	}
	return printReload(out, c.ErrOrStderr(), &report)
}

// listRevocations prints the file of revocations.
func listRevocations(out io.Writer, file string) error {
	all, err := proxy.Revocations(file)
	if err != nil {
		return err
	}
	for i := range all {
		if _, err := fmt.Fprintln(out, clean(all[i].String())); err != nil {
			return err
		}
	}
	return nil
}
