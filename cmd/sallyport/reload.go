package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

func newReload() *cobra.Command {
	var config, socket string
	c := &cobra.Command{
		Use:   "reload",
		Short: "Make the running gateway reload its configuration",
		Long: `Make the gateway that serves this configuration reload it, wait for the result, and
print what changed. No request is lost: requests in flight finish, and new ones use
the new configuration. If the files have a fault, nothing changes; the command
prints the faults like check, and the exit status is 1.

The command finds the gateway by its control socket, listen.control. Its default is
the path of the configuration with the extension .sock.`,
		Example: `  sallyport reload
  sallyport reload -c /etc/sallyport/gateway.yaml
  sallyport reload --socket /run/sallyport/control.sock`,
		RunE: func(c *cobra.Command, _ []string) error {
			at, err := controlSocket(c, config, socket)
			if err != nil {
				return err
			}
			r, err := proxy.Reload(c.Context(), at)
			if err != nil {
				return unanswered(c.ErrOrStderr(), err, config, socket)
			}
			return printReload(c.OutOrStdout(), c.ErrOrStderr(), &r)
		},
	}
	configFlag(c, &config)
	socketFlag(c, &socket)
	return c
}

// socketFlag adds the flag that names the control socket.
func socketFlag(c *cobra.Command, socket *string) {
	c.Flags().StringVar(socket, "socket", "", "the control socket (default: that of the configuration)")
}

// controlSocket returns the given socket or, without one, that of the configuration.
func controlSocket(c *cobra.Command, config, socket string) (string, error) {
	switch {
	case socket == "":
		return proxy.ControlSocket(config)
	case c.Flags().Changed("config"):
		return "", usageError{errors.New("--socket and --config both say which gateway: give one of them")}
	}
	return socket, nil
}

// printReload prints the result of a reload. It returns an error if the reload was
// refused.
func printReload(stdout, stderr io.Writer, r *proxy.ReloadReport) error {
	if r.Result == proxy.ReloadRefused {
		if len(r.Faults) == 0 {
			return errors.New(clean(r.Summary))
		}
		explain(stderr, errors.New(clean(r.Summary+"; the gateway keeps config "+r.To)))
		return r.Faults
	}
	text := clean(r.Summary) + "\n"
	for _, change := range r.Changes {
		text += "  " + clean(change) + "\n"
	}
	if _, err := io.WriteString(stdout, text); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// unanswered returns the error to report when no gateway answers. If the configuration that names the
// socket has faults, it prints the error and returns those, as the probable cause.
func unanswered(stderr io.Writer, err error, config, socket string) error {
	var nobody *proxy.ControlError
	if socket == "" && errors.As(err, &nobody) {
		if _, faults := proxy.LoadConfig(config); faults != nil {
			explain(stderr, fmt.Errorf("%w; the configuration has faults, with which no gateway starts", err))
			return faults
		}
	}
	return err
}

// running reports whether a gateway with this configuration has its control socket open. One that
// only another user may ask counts as running.
func running(path string) bool {
	socket, err := proxy.ControlSocket(path)
	if err != nil {
		return false
	}
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	_ = conn.Close() // nothing was asked
	return true
}
