// Command sallyport is a security gateway in front of model servers. It terminates TLS,
// authenticates callers and applies rules, all from one YAML file.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sallyport/cmd/sallyport/ca"
	"sallyport/cmd/sallyport/demo"
	"sallyport/proxy"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // an invalid configuration, or a failure at run time
	exitUsage  = 2 // an invalid command line
)

// usageError reports an invalid command line.
type usageError struct{ error }

// run executes a command line and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// After the first signal, restore the default: a second one ends the process. serve
	// handles it itself and cuts the requests in flight.
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	var unknown error
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		// With --help, nobody else looks at the arguments.
		if c.HasSubCommands() {
			unknown = commandNamed(c, c.Flags().Args())
		}
		if unknown == nil {
			help(c, args)
		}
	})
	command, err := root.ExecuteContextC(ctx)
	err = cmp.Or(err, unknown)
	var usage usageError
	if errors.As(err, &usage) && !strings.Contains(err.Error(), "\n") {
		err = fmt.Errorf("%w; see \"%s --help\"", err, command.CommandPath())
	}
	var child childStatus
	if errors.As(err, &child) {
		return int(child) // it has said itself what is wrong
	}
	explain(stderr, err)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailed
}

// explain writes an error, one line for each fault.
func explain(w io.Writer, err error) {
	if err == nil {
		return
	}
	prefix := "sallyport: "
	var faults proxy.Faults
	if errors.As(err, &faults) {
		prefix, err = "", faults // each names file and line
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(w, prefix+strings.TrimRight(line, "\n"))
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "A security gateway in front of model servers",
		Long: `sallyport protects model servers that have no TLS and no authentication of their
own. It authenticates the caller, decides whether they may make the request, and
forwards it. It is configured by one YAML file, gateway.yaml.`,
		Example: `  sallyport demo                       try it, without installing anything else
  sallyport init --host models.example.com --issuer https://login.example.com \
      --upstream http://127.0.0.1:8000 > gateway.yaml
  sallyport check                      report faults of gateway.yaml, or show its routes
  sallyport serve`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.Version = version()
	root.SetVersionTemplate(versionLine() + "\n")
	// The root command runs only to refuse unknown commands, so its usage must not list it.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newServe(), newInit(), newCheck(), newCert(), demo.Command(), newDoctor(), newHealthcheck(), newKeygen(), newReload(), newSign(), newStatus(), newVerify(), newVersion())
	for _, c := range root.Commands() {
		if !c.HasSubCommands() {
			c.Args = noArgs
		}
	}
	root.AddCommand(newCurl(), newExplain(), newRevoke(), newToken(), newCA()) // take arguments
	addCompletions(root)
	root.InitDefaultHelpCmd()
	root.Args = commandNamed
	for _, c := range root.Commands() {
		switch {
		case c.HasSubCommands():
			c.Args = commandNamed
		case c.Name() == "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				named, rest, err := root.Find(args)
				if err == nil && named.HasSubCommands() {
					err = commandNamed(named, rest)
				}
				return err
			}
		}
	}
	return root
}

// commandNamed refuses the arguments of a command that only has others: they name none of them.
func commandNamed(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	name := strings.TrimPrefix(c.CommandPath()+" "+args[0], c.Root().Name()+" ")
	err := fmt.Errorf("unknown command %q", name)
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
	}
	return usageError{err}
}

func newCA() *cobra.Command {
	return ca.Command(ca.Shell{
		Usage:  func(err error) error { return usageError{err} },
		NoArgs: noArgs,
		Output: outputForm,
		JSON:   writeJSON,
		Table: func(w io.Writer, rows [][]string) string {
			return aligned(rows, painter(terminal(w) && os.Getenv("NO_COLOR") == ""))
		},
	})
}

// noArgs refuses arguments, for commands that take only flags.
func noArgs(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case c.Flags().Lookup("config") != nil && (strings.HasSuffix(args[0], ".yaml") || strings.HasSuffix(args[0], ".yml")):
		return usageError{fmt.Errorf("%s takes no argument, found %q; the configuration is named by -c FILE", c.Name(), args[0])}
	}
	return usageError{fmt.Errorf("%s takes no argument, found %q", c.Name(), args[0])}
}

// configFlag adds the flag that names the configuration.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "gateway.yaml", "the configuration")
}

// terminal reports whether a writer is a terminal, and not a pipe or file.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
