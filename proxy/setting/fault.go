package setting

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Redacted is shown instead of a secret.
const Redacted = "redacted"

// MaxFaults is the maximum number of reported faults.
const MaxFaults = 200

// apiKey matches API keys of the gateway, wherever somebody wrote one by mistake.
var apiKey = regexp.MustCompile(`sp_[0-9A-Za-z]{40,}`)

// maxShown is the maximum length, in bytes, of a value in a fault.
const maxShown = 80

// Fault is one fault of the configuration.
type Fault struct {
	File string `json:"file,omitempty"` // as given by the user
	Line int    `json:"line,omitempty"` // from 1; 0 if the fault concerns the whole file
	Path string `json:"path,omitempty"` // such as "routes[2].limits.body"
	// Value is the written value; "" if there is none, [Redacted] for secrets.
	Value   string `json:"value,omitempty"`
	Problem string `json:"problem"`        // what is wrong
	Cure    string `json:"cure,omitempty"` // how to fix it
}

// Error returns the fault as one line, such as
//
//	gateway.yaml:41: routes[2].limits.body: "64m": not a size; write a number and B, KiB, MiB, GiB, KB, MB or GB, such as 64MiB
func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(f.Line))
		}
		b.WriteString(": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	switch f.Value {
	case "":
	case Redacted, `""`:
		b.WriteString(f.Value + ": ")
	default:
		b.WriteString(strconv.Quote(f.Value) + ": ")
	}
	b.WriteString(f.Problem)
	if f.Cure != "" {
		b.WriteString("; " + f.Cure)
	}
	return oneLine(b.String())
}

// oneLine replaces control characters, so that a quoted value cannot start a new line on a
// terminal or in a log.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Faults are all faults of a configuration. As an error, each fault is one line.
type Faults []Fault

// Error joins the faults, one per line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns f as an error; nil if there is no fault.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Add records a fault. path is its location, such as "routes[2].limits.rate"; the loader adds
// file and line. value is the written value: "" if there is none, [Redacted] if it may be a
// secret. Faults beyond [MaxFaults] are dropped.
func (f *Faults) Add(path, value, problem, cure string) {
	f.add(Fault{Path: path, Value: shown(value), Problem: problem, Cure: cure})
}

func (f *Faults) add(n Fault) {
	if len(*f) < MaxFaults {
		for _, text := range []*string{&n.Path, &n.Value, &n.Problem, &n.Cure} {
			*text = apiKey.ReplaceAllString(*text, Redacted)
		}
		*f = append(*f, n)
	}
}

// Sort sorts the faults by file (in order of first appearance) and line.
func (f Faults) Sort() {
	order := map[string]int{}
	for i := range f {
		if _, seen := order[f[i].File]; !seen {
			order[f[i].File] = len(order)
		}
	}
	slices.SortStableFunc(f, func(a, b Fault) int {
		if d := order[a.File] - order[b.File]; d != 0 {
			return d
		}
		return a.Line - b.Line
	})
}

// shown returns a value as a fault may show it: truncated, and redacted if it is a URL that may
// contain a password.
func shown(v string) string {
	if _, rest, ok := strings.Cut(v, "://"); ok && strings.Contains(rest, "@") {
		return Redacted
	}
	if len(v) <= maxShown {
		return v
	}
	v = v[:maxShown]
	for len(v) > 0 && !utf8.ValidString(v) {
		v = v[:len(v)-1]
	}
	return v + "..."
}

// Index returns the path of a list item: Index("routes", 2) is "routes[2]".
func Index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// Join returns the path of a field: Join("listen", "http") is "listen.http".
func Join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
