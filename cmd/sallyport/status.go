package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

func newStatus() *cobra.Command {
	var config, socket, output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the running gateway",
		Long: `Show the state of the gateway that serves this configuration: the active
configuration, the reason if the last reload was refused, listeners, requests in
flight, the ends of keys and certificates, certificates, keys of issuers, files
with ends of people's sessions, and endpoints of upstreams. Times are in UTC. The
output is a table on a terminal and JSON on a pipe. The exit status is 1 if no gateway answers.`,
		Example: `  sallyport status
  sallyport status -c /etc/sallyport/gateway.yaml
  sallyport status | jq .configuration.hash`,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			output, err := outputForm(w, output)
			if err != nil {
				return err
			}
			at, err := controlSocket(c, config, socket)
			if err != nil {
				return err
			}
			s, err := proxy.Status(c.Context(), at)
			if err != nil {
				return unanswered(c.ErrOrStderr(), err, config, socket)
			}
			if output == "json" {
				return writeJSON(w, s)
			}
			p := painter(terminal(w) && os.Getenv("NO_COLOR") == "")
			if _, err := io.WriteString(w, statusText(&s, p, time.Now())); err != nil {
				return fmt.Errorf("writing: %w", err)
			}
			return nil
		},
	}
	configFlag(c, &config)
	socketFlag(c, &socket)
	c.Flags().StringVarP(&output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	return c
}

// outputForm returns the requested output format; the default depends on the writer.
func outputForm(w io.Writer, asked string) (string, error) {
	switch asked {
	case "table", "json":
		return asked, nil
	case "":
		if terminal(w) {
			return "table", nil
		}
		return "json", nil
	}
	return "", usageError{fmt.Errorf("--output %q: want table or json", asked)}
}

// writeJSON writes a value as indented JSON.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// statusText formats a status: a summary, then one table each for listeners, ends,
// certificates, issuers, their introspection, files of sessions and upstreams. Ages are relative to now.
func statusText(s *proxy.StatusReport, p painter, now time.Time) string {
	var b strings.Builder
	state := "ready"
	switch {
	case s.Draining:
		state = p.paint(yellow, "draining")
	case !s.Ready:
		state = p.paint(red, "not ready")
	}
	fmt.Fprintf(&b, "%s  sallyport %s, pid %d, for %s\n", state, clean(s.Version), s.PID, age(s.Since, now))
	watched := "not watched"
	c := &s.Configuration
	if c.Watching {
		watched = "watched"
	}
	fmt.Fprintf(&b, "config %s  %s, loaded %s ago, %s\n", clean(c.Hash), clean(s.File), age(c.Loaded, now), watched)
	if c.LastError != "" {
		fmt.Fprintf(&b, "%s %s ago: %s\n", p.paint(red, "reload refused"), age(c.LastAttempt, now), clean(c.LastError))
	}
	fmt.Fprintf(&b, "routes: %d, requests in flight: %d, connections: %d, configurations in use: %d\n", s.Routes, s.InFlight, s.Connections, c.Snapshots)

	for _, rows := range [][][]string{listenerRows(s), endRows(s, now), certificateRows(s), issuerRows(s, now), introspectionRows(s), sessionRows(s), upstreamRows(s)} {
		if len(rows) > 1 {
			b.WriteString("\n" + aligned(rows, p))
		}
	}
	return b.String()
}

func listenerRows(s *proxy.StatusReport) [][]string {
	rows := [][]string{{"LISTENER", "ADDRESS"}}
	for _, l := range s.Listeners {
		rows = append(rows, []string{l.For, l.Addr})
	}
	return rows
}

// endRows lists the ends of keys and certificates, the earliest first.
func endRows(s *proxy.StatusReport, now time.Time) [][]string {
	rows := [][]string{{"ENDS", "KIND", "NAME", "NOT AFTER", "LEFT"}}
	for _, e := range s.Ends {
		when, at := "none yet", "-"
		if !e.NotAfter.IsZero() {
			at = e.NotAfter.UTC().Format("2006-01-02 15:04:05Z")
			if when = "in " + age(now, e.NotAfter); !e.NotAfter.After(now) {
				when = age(e.NotAfter, now) + " ago"
			}
		}
		left := e.Left
		if left == "third" || left == "tenth" {
			left = "less than a " + left
		}
		rows = append(rows, []string{when, e.Kind, e.Name, at, left})
	}
	return rows
}

func certificateRows(s *proxy.StatusReport) [][]string {
	rows := [][]string{{"CERTIFICATE", "SOURCE", "RENEWAL", "PROBLEM"}}
	for _, c := range s.Certificates {
		renewal := "by hand"
		if !c.NextRenewal.IsZero() {
			renewal = c.NextRenewal.UTC().Format("2006-01-02 15:04:05Z")
		}
		rows = append(rows, []string{strings.Join(c.Hosts, " "), c.Source, renewal, c.LastError})
	}
	return rows
}

func issuerRows(s *proxy.StatusReport, now time.Time) [][]string {
	rows := [][]string{{"ISSUER", "KEYS", "FETCHED", "PROBLEM"}}
	for _, i := range s.Issuers {
		fetched := "never"
		if !i.Fetched.IsZero() {
			fetched = age(i.Fetched, now) + " ago"
		}
		problem := strings.Join(i.Skipped, "; ")
		if i.LastError != "" {
			problem = i.LastError
		}
		rows = append(rows, []string{i.Name, fmt.Sprint(i.Keys), fetched, problem})
	}
	return rows
}

// introspectionRows counts look-ups of tokens at issuers. Those spared are requests whose token was
// known.
func introspectionRows(s *proxy.StatusReport) [][]string {
	rows := [][]string{{"INTROSPECTION", "ACTIVE", "REFUSED", "FAILED", "SPARED", "PROBLEM"}}
	for _, i := range s.Issuers {
		if n := i.Introspection; n != nil {
			rows = append(rows, []string{i.Name, fmt.Sprint(n.Active), fmt.Sprint(n.Inactive + n.Refused), fmt.Sprint(n.Failed + n.Skipped), fmt.Sprint(n.CachedActive + n.CachedRefused), n.LastError})
		}
	}
	return rows
}

// sessionRows lists the files with ends of people's sessions.
func sessionRows(s *proxy.StatusReport) [][]string {
	rows := [][]string{{"ENDED SESSIONS", "LINES", "NOT ON DISK", "FAILURES", "PROBLEM"}}
	for _, f := range s.SessionFiles {
		rows = append(rows, []string{f.Path, fmt.Sprint(f.Lines), fmt.Sprint(f.Unsaved), fmt.Sprint(f.Failures), f.LastError})
	}
	return rows
}

func upstreamRows(s *proxy.StatusReport) [][]string {
	rows := [][]string{{"UPSTREAM", "ENDPOINT", "STATE", "ACTIVE", "IDLE", "PROBLEM"}}
	for _, u := range s.Upstreams {
		for _, e := range u.Endpoints {
			state := "healthy"
			if !e.Healthy {
				state = "out of use"
			}
			rows = append(rows, []string{u.Name, e.URL, state, fmt.Sprint(e.Active), fmt.Sprint(e.Idle), e.LastError})
		}
	}
	return rows
}

// aligned formats rows in columns. The first row has the headings.
func aligned(rows [][]string, p painter) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = clean(cmp.Or(cell, "-"))
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // into memory
	head, rest, _ := strings.Cut(b.String(), "\n")
	return p.paint(bold, head) + "\n" + rest
}

// clean replaces control characters in text from elsewhere, so that it cannot move the
// cursor or begin a new line.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// age formats the time between two moments in its two largest units, such as 3d4h or
// 12m5s.
func age(from, to time.Time) string {
	d := max(0, to.Sub(from).Truncate(time.Second))
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm%ds", minutes, int(d.Seconds())%60)
	}
	return d.String()
}
