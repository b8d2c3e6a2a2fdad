package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

// checked is what `check` prints as JSON.
type checked struct {
	OK     bool              `json:"ok"`
	File   string            `json:"file"`
	Faults proxy.Faults      `json:"faults,omitempty"`
	Routes []proxy.RouteInfo `json:"routes,omitempty"`
}

func newCheck() *cobra.Command {
	var config, output string
	var offline bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Report every fault of the configuration, or show its routes",
		Long: `Report every fault of the configuration on standard error, one a line with file,
line, setting, value and what would do; the exit status is then 1. Without any,
show the routes with everything that was understood, defaults included: as a
table on a terminal, as JSON on a pipe.

The files that the configuration names (certificates, keys, authorities) are
opened and checked too, unless --offline is given. Nothing is asked of the network.`,
		Example: `  sallyport check
  sallyport check --offline -c deploy/gateway.yaml
  sallyport check | jq '.routes[].callers'`,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			if output == "" {
				output = "json"
				if terminal(w) {
					output = "table"
				}
			}
			if output != "json" && output != "table" {
				return usageError{fmt.Errorf("--output %q: want table or json", output)}
			}
			return check(w, config, output, offline)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&offline, "offline", false, "look at no file but the configuration")
	c.Flags().StringVarP(&output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	return c
}

func check(w io.Writer, path, output string, offline bool) error {
	config, err := proxy.LoadConfig(path)
	if err == nil && !offline {
		err = config.CheckFiles()
	}
	result := checked{OK: err == nil, File: path}
	if err == nil {
		result.Routes = config.Table()
	} else if !errors.As(err, &result.Faults) {
		return err
	}
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if writing := e.Encode(result); writing != nil {
			return fmt.Errorf("writing: %w", writing)
		}
		return err
	}
	if err != nil {
		return err
	}
	return writeTable(w, result.Routes)
}

// writeTable shows the routes to people.
func writeTable(w io.Writer, routes []proxy.RouteInfo) error {
	rows := [][]string{{"HOST", "PATH", "METHODS", "UPSTREAM", "CALLERS", "RULES", "LIMITS"}}
	var notes []string
	for _, r := range routes {
		upstream := r.Upstream
		if len(r.Endpoints) != 1 || r.Endpoints[0] != r.Upstream {
			upstream += " = " + strings.Join(r.Endpoints, " ")
		}
		limits := "body " + r.Body
		for _, rate := range r.Rate {
			limits += "; " + rate
		}
		if r.InFlight > 0 {
			limits += fmt.Sprintf("; %d in flight", r.InFlight)
		}
		if r.Websocket {
			upstream += " +websocket"
		}
		rows = append(rows, []string{
			strings.Join(r.Host, " "), r.Path, strings.Join(r.Methods, " "), upstream + " (" + r.Serves + ")",
			strings.Join(r.Callers, " "), strings.Join(r.Rules, "; "), limits,
		})
		for _, s := range r.Insecure {
			notes = append(notes, fmt.Sprintf("%s:%d: route %s: %s", r.File, r.Line, r.Name, s))
		}
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var b strings.Builder
	colour := terminal(w) && os.Getenv("NO_COLOR") == ""
	paint := func(code, s string) string {
		if !colour {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	for n, row := range rows {
		for i, cell := range row {
			if i < len(row)-1 {
				cell += strings.Repeat(" ", widths[i]-len(cell)+2)
			}
			switch {
			case n == 0:
				cell = paint("1", cell)
			case i == 4 && strings.TrimSpace(cell) == "anonymous":
				cell = paint("33", cell)
			}
			b.WriteString(cell)
		}
		b.WriteByte('\n')
	}
	for _, n := range notes {
		b.WriteString(paint("31", "insecure: ") + n + "\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}
