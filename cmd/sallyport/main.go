// Command sallyport is the guarded passage in front of model servers: TLS, proof
// of who calls, and rules about who may ask what, from one YAML file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sallyport/cmd/sallyport/demo"
	"sallyport/proxy"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // a refused configuration, or a failure at run time
	exitUsage  = 2 // a command line that cannot be understood
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// run is the whole program but for the process around it.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once; a gateway that serves takes it as the wish
	// to cut what is in flight.
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	explain(stderr, err)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailed
}

// explain writes an error, one line for each thing that is wrong.
func explain(w io.Writer, err error) {
	if err == nil {
		return
	}
	prefix := "sallyport: "
	var faults proxy.Faults
	if errors.As(err, &faults) {
		prefix, err = "", faults // each names file and line
	}
	text := err.Error()
	var usage usageError
	if errors.As(err, &usage) && !strings.Contains(text, "\n") {
		text += `; see "sallyport --help"`
	}
	for line := range strings.Lines(text) {
		fmt.Fprintln(w, prefix+strings.TrimRight(line, "\n"))
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "A security gateway in front of model servers",
		Long: `sallyport stands in front of model servers that know nothing of TLS or
authentication. It proves who is calling, decides whether they may ask this of
that model, and hands the request on. One YAML file says all: gateway.yaml.`,
		Example: `  sallyport demo                       try it, on a machine that has nothing else
  sallyport init --host models.example.com --issuer https://login.example.com \
      --upstream http://127.0.0.1:8000 > gateway.yaml
  sallyport check                      what does gateway.yaml mean, and is it right?
  sallyport serve`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				_ = c.Help()
				return nil
			}
			err := fmt.Errorf("unknown command %q", args[0])
			c.SuggestionsMinimumDistance = 2
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
			}
			return usageError{err}
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	// The root runs only to refuse what is no command; its usage shows commands alone.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newServe(), newInit(), newCheck(), newCert(), demo.Command(), newHealthcheck(), newKeygen(), newReload(), newSign(), newStatus(), newVerify(), newVersion())
	for _, c := range root.Commands() {
		if !c.HasSubCommands() {
			c.Args = noArgs
		}
	}
	root.AddCommand(newCurl()) // which takes an argument
	return root
}

// noArgs refuses arguments: nearly all of our commands take flags alone.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, found %q", c.Name(), args[0])}
	}
	return nil
}

// configFlag adds the flag that names the configuration.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "gateway.yaml", "the configuration")
}

// terminal says whether a writer is a terminal, for people, rather than a pipe or
// file, for programs.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
