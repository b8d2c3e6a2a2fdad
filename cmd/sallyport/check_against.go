package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"sallyport/proxy"
)

// checkAgainst writes how the decisions of a configuration differ from those of an audit log.
func checkAgainst(w io.Writer, path, log, output string) error {
	config, err := proxy.LoadConfig(path)
	if err != nil {
		return err
	}
	x, err := proxy.NewExplainer(config)
	if err != nil {
		return err
	}
	var r io.Reader = os.Stdin
	if log != "-" {
		f, err := os.Open(log)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	c, err := x.Compare(r)
	if err != nil {
		return err
	}
	if output == "json" {
		return writeJSON(w, c)
	}
	p := painter(terminal(w) && os.Getenv("NO_COLOR") == "")
	text := ""
	for _, part := range []struct {
		title, color string
		all          []proxy.Difference
	}{
		{"were allowed and would be refused", red, c.Refused},
		{"were refused and would be allowed", yellow, c.Allowed},
		{"the log does not tell enough", "", c.Untold},
	} {
		if len(part.all) == 0 {
			continue
		}
		rows := [][]string{{"COUNT", "PRINCIPAL", "ROUTE", "VERB", "MODEL", "VERSION", "RULE", "WHY"}}
		for _, d := range part.all {
			rows = append(rows, []string{strconv.Itoa(d.Count), d.Principal, d.Route, d.Verb, d.Model, d.Version, d.Rule, d.Why})
		}
		title := part.title + ":"
		if part.color != "" {
			title = p.paint(part.color, title)
		}
		text += title + "\n" + aligned(rows, p) + "\n"
	}
	text += fmt.Sprintf("%d requests, %d decided alike; %d more were refused before the rules, %d lines are no records\n", c.Requests, c.Same, c.Earlier, c.Unread)
	if c.More > 0 {
		text += fmt.Sprintf("%d requests of further kinds are not shown\n", c.More)
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}
