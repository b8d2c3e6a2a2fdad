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

	"sallyport/proxy"
)

func newServe() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or Ctrl-C, then let requests in flight finish; a second
signal cuts them. SIGHUP loads the configuration again, as does a change of the file
unless it says reload: {watch: false}. SIGUSR1 opens the audit file anew, for logrotate.

Records of requests go to standard output unless the configuration names a file;
everything else that is to be said goes to standard error: as JSON, or as text if
that is a terminal.`,
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
	g, err := proxy.New(config, proxy.Options{Log: log, Stdout: records, Version: version()})
	if err != nil {
		// The check reports the same faults of files with their lines.
		return errors.Join(config.CheckFiles(), err)
	}
	limitMemory(config.MemoryBudget())
	helping, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { collectWhenQuiet(helping) })
	helpers.Go(func() { obeySignals(helping, ctx, g, log) })
	defer helpers.Wait()
	defer cancel()
	return g.Run(ctx)
}

// obeySignals does what signals ask of a gateway, until ctx ends: SIGHUP loads the
// configuration again, SIGUSR1 opens the audit file anew. After stopping has ended, by
// the first SIGTERM or SIGINT, a second cuts what is in flight, and a third ends the
// process where it stands.
func obeySignals(ctx, stopping context.Context, g *proxy.Gateway, log *slog.Logger) {
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
			log.Warn("a second signal: what is in flight is cut")
			signal.Stop(again)
			g.Kill()
		case s := <-signals:
			if s == syscall.SIGHUP {
				g.Reload(ctx)
			} else if err := g.Reopen(); err != nil {
				log.Error("the audit file was not opened anew", "error", err)
			}
		}
	}
}

// newLog writes text for people and JSON for programs.
func newLog(w io.Writer) *slog.Logger {
	if terminal(w) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
