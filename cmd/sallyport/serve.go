package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"sallyport/cmd/sallyport/systemd"
	"sallyport/proxy"
)

func newServe() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or Ctrl-C, then let requests in flight finish; a second
signal cuts them. SIGHUP reloads the configuration, as does a change of the file unless
it has reload: {watch: false}. SIGUSR1 reopens the audit file, for logrotate.

Under systemd it uses the sockets of a socket unit, reports its state (Type=notify)
and notifies the watchdog while it works; deploy/systemd has both units.

Audit records go to standard output unless the configuration names a file. The log
goes to standard error: as text on a terminal, otherwise as JSON.`,
		Example: `  sallyport serve
  sallyport serve -c /etc/sallyport/gateway.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			return serve(c.Context(), config, c.OutOrStdout(), newLog(c.ErrOrStderr()))
		},
	}
	configFlag(c, &config)
	return c
}

func serve(ctx context.Context, path string, records io.Writer, log *slog.Logger) error {
	config, err := proxy.LoadConfig(path)
	if err != nil {
		return err
	}
	service, err := systemd.Take(log)
	if err != nil {
		return err
	}
	g, err := proxy.New(config, proxy.Options{Log: log, Stdout: records, Version: version(), Sockets: service.Sockets, Manager: service, MemoryBudget: limitMemory})
	if err != nil {
		// CheckFiles reports faults of files with their lines in the configuration.
		return errors.Join(config.CheckFiles(), err)
	}
	// The background work must continue while the gateway drains after ctx has ended.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	work.Go(func() { collectWhenQuiet(background) })
	work.Go(func() { service.Watch(background, g.Alive) })
	work.Go(func() { handleSignals(background, ctx, g, log) })
	defer work.Wait()
	defer cancel()
	return g.Run(ctx)
}

// handleSignals handles signals until ctx ends. SIGHUP reloads the configuration, and
// SIGUSR1 reopens the audit file. The first SIGTERM or SIGINT ends the context stopping.
// After that, a second one cuts the requests in flight, and a third ends the process.
func handleSignals(ctx, stopping context.Context, g *proxy.Gateway, log *slog.Logger) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, reopenSignal)
	defer signal.Stop(signals)
	again := make(chan os.Signal, 1)
	stopped := stopping.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-stopped:
			stopped = nil
			signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
		case <-again:
			log.Warn("second signal: cutting the requests in flight")
			signal.Stop(again)
			g.Kill()
		case s := <-signals:
			if s == syscall.SIGHUP {
				g.Reload(ctx)
			} else if err := g.Reopen(); err != nil {
				log.Error("the audit file was not reopened", "error", err)
			}
		}
	}
}

// newLog returns a logger that writes text to a terminal and JSON to other writers.
func newLog(w io.Writer) *slog.Logger {
	if terminal(w) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
