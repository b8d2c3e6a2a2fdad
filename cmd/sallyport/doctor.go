package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sallyport/cmd/sallyport/doctor"
	"sallyport/proxy"
)

// errFailing means that some finding is a failure, which the output names.
var errFailing = errors.New("something does not work, or is open: see what failed")

func newDoctor() *cobra.Command {
	var o doctor.Options
	var output string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out why the gateway, an issuer, an upstream or a token does not work",
		Long: `Check what the configuration needs, from this machine: DNS, the clock, the files, the
certificates that clients get, the discovery documents and keys of issuers, the clients
of people's logins, ACME directories and ports, upstreams and the tokens for them. Also
check whether an upstream can be asked without the gateway. Each finding comes with its
cure. The gateway may run or not; run doctor on its machine and as its user.

A login is tried without a person: the issuer is asked to send a browser back to each
redirect URI (prompt=none), and to redeem a made-up code, with the client's secret and
with a made-up one. The findings say what that proves.

With --token-file the command says what is wrong with a token or an API key, and which
routes take it. The exit status is 0 if all is well, and 1 if something does not work
or no route takes the token. The command changes nothing, orders no certificate and
prints no secret. The output is a table on a terminal and JSON on a pipe.`,
		Example: `  sallyport doctor
  sallyport doctor -c /etc/sallyport/gateway.yaml | jq '.findings[] | select(.state == "fail")'
  sallyport doctor --token-file token.txt --route models.example.com/v1`,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			output, err := outputForm(w, output)
			if err != nil {
				return err
			}
			if o.Route != "" && o.Token == "" {
				return usageError{errors.New("--route says what the token is for: give --token-file")}
			}
			o.Socket, _ = proxy.ControlSocket(o.Config) // faults of the file are findings
			report, err := doctor.Run(c.Context(), o)
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(w, report)
			} else if _, err = io.WriteString(w, doctorText(report, painter(terminal(w) && os.Getenv("NO_COLOR") == ""))); err != nil {
				err = fmt.Errorf("writing: %w", err)
			}
			if err == nil && !report.OK {
				return errFailing
			}
			return err
		},
	}
	configFlag(c, &o.Config)
	c.Flags().StringVar(&o.Token, "token-file", "", "the file with a token or an API key to judge")
	c.Flags().StringVar(&o.Route, "route", "", "the route that the token is for: its name, or HOST/PATH (default: all)")
	c.Flags().StringVarP(&output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	return c
}

// doctorText formats a report as a table. A cure stands below its finding.
func doctorText(r *doctor.Report, p painter) string {
	rows := [][]string{{"STATE", "CHECK", "OF", "FINDING"}}
	colors := map[doctor.State]string{doctor.OK: green, doctor.Warn: yellow, doctor.Fail: red}
	for _, f := range r.Findings {
		state := string(f.State)
		if f.State == doctor.Fail {
			state = "FAIL"
		}
		rows = append(rows, []string{state, clean(f.Check), clean(f.Subject), clean(f.Text)})
	}
	const most = 44 // of a column: longer subjects push their own line only
	widths := make([]int, 3)
	for _, row := range rows {
		for i := range widths {
			if n := utf8.RuneCountInString(row[i]); n <= most {
				widths[i] = max(widths[i], n)
			}
		}
	}
	var b strings.Builder
	indent := strings.Repeat(" ", widths[0]+widths[1]+widths[2]+6)
	for n, row := range rows {
		for i, cell := range row {
			if i == len(row)-1 {
				if n == 0 {
					cell = p.paint(bold, cell)
				}
				b.WriteString(cell + "\n")
				continue
			}
			gap := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))+2)
			switch {
			case n == 0:
				cell = p.paint(bold, cell)
			case i == 0 && colors[r.Findings[n-1].State] != "":
				cell = p.paint(colors[r.Findings[n-1].State], cell)
			}
			b.WriteString(cell + gap)
		}
		if n > 0 && r.Findings[n-1].Cure != "" {
			b.WriteString(indent + p.paint(bold, "> ") + clean(r.Findings[n-1].Cure) + "\n")
		}
	}
	return b.String()
}
