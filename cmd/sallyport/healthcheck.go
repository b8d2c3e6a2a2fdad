package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

// healthTime bounds a healthcheck. It is shorter than the usual five seconds of probes, so
// that the command can still print the reason.
const healthTime = 4 * time.Second

func newHealthcheck() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use:   "healthcheck",
		Short: "Check whether the gateway on this machine is ready",
		Long: `Request /readyz from the gateway that serves this configuration on this machine, at
its listen.health. The exit status is 0 if it is ready and 1 if not. It is meant for
HEALTHCHECK in a container that has neither a shell nor curl.`,
		Example: `  sallyport healthcheck
  sallyport healthcheck -c /etc/sallyport/gateway.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			loaded, err := proxy.LoadConfig(config)
			if err != nil {
				return err
			}
			address := loaded.Listen.HealthAddr()
			if address == "" {
				return errors.New(`nothing to ask: listen.health is off; give it an address such as "127.0.0.1:9902"`)
			}
			ctx, cancel := context.WithTimeout(c.Context(), healthTime)
			defer cancel()
			if err := healthy(ctx, address); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "ready")
			return err
		},
	}
	configFlag(c, &config)
	return c
}

// healthy requests /readyz at a listen address. It returns nil only after a whole status
// line with status 200.
func healthy(ctx context.Context, address string) error {
	// Dial connects to this machine if the host is empty or unspecified.
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("asking the gateway: %w", err)
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return fmt.Errorf("asking the gateway: %w", err)
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(c, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return fmt.Errorf("asking the gateway: %w", err)
	}
	line, err := bufio.NewReader(io.LimitReader(c, 1<<10)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("asking the gateway: reading its answer: %w", err)
	}
	if !strings.HasPrefix(line, "HTTP/1.1 200 ") {
		return fmt.Errorf("the gateway is not ready: it answered %q", strings.TrimSpace(line))
	}
	return nil
}
