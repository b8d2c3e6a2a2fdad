package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

// checked is the JSON output of `check`.
type checked struct {
	OK     bool         `json:"ok"`
	File   string       `json:"file"`
	Faults proxy.Faults `json:"faults,omitempty"`
	// Warnings do not keep the gateway from serving.
	Warnings proxy.Faults `json:"warnings,omitempty"`
	// State lists where the gateway keeps what must survive a restart.
	State  []proxy.StatePlace `json:"state,omitempty"`
	Routes []proxy.RouteInfo  `json:"routes,omitempty"`
	// Register lists what to register at the issuers of logins.
	Register []proxy.Registration `json:"register,omitempty"`
}

func newCheck() *cobra.Command {
	var config, output string
	var offline bool
	var log string
	c := &cobra.Command{
		Use:   "check",
		Short: "Report every fault of the configuration, or show its routes",
		Long: `Report every fault of the configuration on standard error, one per line with file,
line, setting, value and a correction; the exit status is then 1. Warnings also go
there, but do not change the exit status: unused sections, callers whom no rule can
allow, an allow_from that includes a balancer, and keys and certificates that have
ended or are in the last tenth of their lifetime. If there is no fault, show the routes
with all settings, defaults included, where the gateway keeps its state, and what to
register at the issuers of people's logins: as a table on a terminal, as JSON on a pipe.

The command also opens and checks the files that the configuration names
(certificates, keys, authorities). It checks whether this user may write where the
gateway keeps state and records, and may listen on its addresses: run it as the
gateway's user. A port in use is a warning, unless this gateway runs. It locks the file
with ends of sessions for a moment; where there is none yet, it makes another one beside
and removes it. --offline omits all these checks. The command does not use the network.

--against reads an audit log instead, and says which requests that were allowed then
would now be refused by the configuration, and the reverse: by caller, model, verb and
rule. It does not compare candidate_rules. Claims, and headers that conditions ask for,
are not in the log; requests whose decision depends on them are listed apart. The exit
status is 0 whatever differs.`,
		Example: `  sallyport check
  sallyport check --offline -c deploy/gateway.yaml
  sallyport check | jq '.routes[].callers'
  sallyport check --against audit.log -c new.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			output, err := outputForm(w, output)
			if err != nil {
				return err
			}
			if log != "" {
				return checkAgainst(w, config, log, output)
			}
			return check(w, c.ErrOrStderr(), config, output, offline)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&offline, "offline", false, "read only the configuration, and nothing else of this machine")
	c.Flags().StringVar(&log, "against", "", "the audit log to compare decisions with; - for standard input")
	c.Flags().StringVarP(&output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	return c
}

func check(w, warnings io.Writer, path, output string, offline bool) error {
	config, err := proxy.LoadConfig(path)
	if err == nil && !offline {
		err = checkMachine(config)
	}
	result := checked{OK: err == nil, File: path}
	if err == nil {
		result.Warnings, result.State, result.Routes, result.Register = config.Warnings(), config.StatePlaces(), config.Table(), config.Registrations()
		result.Warnings = append(result.Warnings, proxy.EndWarnings(config, offline, time.Now())...)
	} else if !errors.As(err, &result.Faults) {
		return err
	}
	if err == nil && !offline {
		result.Warnings = append(result.Warnings, config.RevokedWarnings()...)
	}
	if err == nil && !offline && !running(path) {
		result.Warnings = append(result.Warnings, config.BusyListeners()...)
	}
	for i := range result.Warnings {
		if _, err := fmt.Fprintf(warnings, "warning: %v\n", result.Warnings[i]); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	if output == "json" {
		return cmp.Or(writeJSON(w, result), err)
	}
	if err != nil {
		return err
	}
	return writeTable(w, &result)
}

// checkMachine returns the faults of files and addresses on this machine that would keep the gateway
// from starting.
func checkMachine(config *proxy.Config) error {
	var all proxy.Faults
	for _, err := range []error{config.CheckFiles(), config.CheckListeners()} {
		var faults proxy.Faults
		if errors.As(err, &faults) {
			all = append(all, faults...)
		}
	}
	all.Sort()
	return all.Err()
}
