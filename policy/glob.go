package policy

import (
	"regexp"
	"strings"
)

// glob is a compiled pattern: * stands for any characters but /, and ** for any characters. All
// others stand for themselves.
type glob struct {
	shape          globShape
	prefix, suffix string         // of a pattern with one star or pair of stars; without a star, prefix is all
	stars          *regexp.Regexp // of any other pattern; matches in time linear in the name
}

type globShape uint8

const (
	noStar  globShape = iota
	oneStar           // prefix*suffix
	oneDeep           // prefix**suffix
	manyStars
)

func newGlob(pattern string) glob {
	prefix, rest, starred := strings.Cut(pattern, "*")
	if !starred {
		return glob{prefix: pattern}
	}
	suffix := strings.TrimLeft(rest, "*")
	switch {
	case strings.Contains(suffix, "*"):
		return glob{shape: manyStars, stars: starsOf(pattern)}
	case len(suffix) < len(rest):
		return glob{shape: oneDeep, prefix: prefix, suffix: suffix}
	}
	return glob{shape: oneStar, prefix: prefix, suffix: suffix}
}

// starsOf returns the regular expression of a pattern.
func starsOf(pattern string) *regexp.Regexp {
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
	return regexp.MustCompile(b.String())
}

func (g *glob) match(name string) bool {
	switch g.shape {
	case noStar:
		return g.prefix == name
	case manyStars:
		return g.stars.MatchString(name)
	}
	before, after := len(g.prefix), len(g.suffix)
	switch n := len(name); {
	case n < before+after:
		return false
	case before > 0 && name[before-1] != g.prefix[before-1], after > 0 && name[n-1] != g.suffix[after-1]:
		return false // most patterns end here, without a call to compare the rest
	case name[:before] != g.prefix || name[n-after:] != g.suffix:
		return false
	}
	return g.shape == oneDeep || strings.IndexByte(name[len(g.prefix):len(name)-len(g.suffix)], '/') < 0
}
