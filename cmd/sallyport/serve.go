package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

func newServe() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or Ctrl-C, then let requests in flight finish.

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
		// What New found in files is told with lines, if the check finds it too.
		return errors.Join(config.CheckFiles(), err)
	}
	tuneMemory(config.MemoryBudget())
	ctx, cancel := context.WithCancel(ctx)
	var collector sync.WaitGroup
	collector.Go(func() { collectWhenQuiet(ctx) })
	defer collector.Wait()
	defer cancel()
	return g.Run(ctx)
}

// newLog writes text for people and JSON for programs.
func newLog(w io.Writer) *slog.Logger {
	if terminal(w) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
