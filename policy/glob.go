package policy

import (
	"regexp"
	"strings"
)

// glob is a compiled pattern for the name of a model: * stands for any characters but /,
// and ** for any characters. All others stand for themselves.
type glob struct {
	exact string         // the pattern, if it has no star
	stars *regexp.Regexp // else; matches in time linear in the name
}

func newGlob(pattern string) glob {
	if !strings.Contains(pattern, "*") {
		return glob{exact: pattern}
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for pattern != "" {
		literal, rest, starred := strings.Cut(pattern, "*")
		b.WriteString(regexp.QuoteMeta(literal))
		if !starred {
			break
		}
		if pattern = strings.TrimLeft(rest, "*"); len(pattern) < len(rest) {
			b.WriteString(`.*`)
		} else {
			b.WriteString(`[^/]*`)
		}
	}
	b.WriteString(`\z`)
	return glob{stars: regexp.MustCompile(b.String())}
}

func (g *glob) match(name string) bool {
	if g.stars != nil {
		return g.stars.MatchString(name)
	}
	return g.exact == name
}
