package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"sallyport/proxy"
)

// writeTable writes the routes and the places of state as a table. A cell with several values
// has a line for each.
func writeTable(w io.Writer, c *checked) error {
	p := painter(terminal(w) && os.Getenv("NO_COLOR") == "")
	rows := [][][]string{{{"HOST"}, {"PATH"}, {"METHODS"}, {"UPSTREAM"}, {"CALLERS"}, {"RULES"}, {"LIMITS"}}}
	var notes strings.Builder
	for _, r := range c.Routes {
		rows = append(rows, rowOf(&r))
		for _, s := range r.Insecure {
			fmt.Fprintf(&notes, "%s%s:%d: route %s: %s\n", p.paint(red, "insecure: "), r.File, r.Line, r.Name, s)
		}
	}
	for _, s := range c.State {
		fmt.Fprintf(&notes, "state: %s: %s (%s)\n", s.What, s.Path, s.Setting)
	}
	for _, r := range c.Register {
		fmt.Fprintf(&notes, "register for client %s at issuers.%s:\n", r.ClientID, r.Issuer)
		for _, url := range r.Redirects {
			fmt.Fprintf(&notes, "  redirect URI             %s\n", url)
		}
		for _, url := range r.SignedOut {
			fmt.Fprintf(&notes, "  page after sign-out      %s\n", url)
		}
		if r.BackChannel != "" {
			fmt.Fprintf(&notes, "  back-channel logout URL  %s\n", r.BackChannel)
		}
		for _, host := range r.Wildcards {
			fmt.Fprintf(&notes, "  issuers register no wildcard such as %s: write logins.%s.session.cookie_domain and sign_in_host, the one host to register, or list each host in the route\n", host, r.Login)
		}
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			for _, line := range cell {
				widths[i] = max(widths[i], utf8.RuneCountInString(line))
			}
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for line := range height(row) {
			var cells strings.Builder
			for i, cell := range row {
				text := ""
				if line < len(cell) {
					text = cell[line]
				}
				gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+2)
				switch {
				case n == 0:
					text = p.paint(bold, text)
				case text == "anonymous":
					text = p.paint(yellow, text)
				}
				cells.WriteString(text + gap)
			}
			b.WriteString(strings.TrimRight(cells.String(), " ") + "\n")
		}
	}
	if _, err := io.WriteString(w, b.String()+notes.String()); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// rowOf returns the cells of a route.
func rowOf(r *proxy.RouteInfo) [][]string {
	upstream := []string{r.Upstream + " (" + r.Serves + ")"}
	for _, e := range r.Endpoints {
		if e != r.Upstream {
			upstream = append(upstream, "  "+e)
		}
	}
	for _, words := range r.Rewrite {
		upstream = append(upstream, "  "+words)
	}
	if r.Websocket {
		upstream = append(upstream, "  websocket")
		for _, form := range r.Tokens {
			upstream = append(upstream, "    token as of "+form)
		}
	}
	callers := slices.Clone(r.Callers)
	if r.StepUp != "" {
		callers = append(callers, "  "+r.StepUp)
	}
	path := []string{r.Path}
	for _, p := range r.Paths {
		path = append(path, "  "+p)
	}
	limits := []string{"body " + r.Body}
	if r.Batch > 0 {
		limits = append(limits, fmt.Sprintf("batch %d", r.Batch))
	}
	if r.Tensor != "" {
		limits = append(limits, "tensor "+r.Tensor)
	}
	limits = append(limits, r.Rate...)
	if r.InFlight > 0 {
		limits = append(limits, fmt.Sprintf("%d in flight", r.InFlight))
	}
	limits = append(limits, r.Places...)
	if r.Durable != "off" {
		limits = append(limits, "audit "+r.Durable)
	}
	rules := slices.Clone(r.Rules)
	for _, words := range r.Candidate {
		rules = append(rules, "candidate: "+words)
	}
	return [][]string{r.Host, path, {strings.Join(r.Methods, " ")}, upstream, callers, rules, limits}
}

// height returns the number of lines of a row.
func height(row [][]string) int {
	n := 0
	for _, cell := range row {
		n = max(n, len(cell))
	}
	return n
}

// painter adds colors to text if it is true.
type painter bool

// SGR parameters (ECMA-48, section 8.3.117).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (p painter) paint(color, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}
