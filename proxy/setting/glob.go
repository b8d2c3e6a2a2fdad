package setting

import (
	"errors"
	"strings"
)

// Glob is a pattern for names. `*` matches any characters except "/", `**` matches any
// characters, and all others match themselves. The zero Glob matches nothing.
type Glob struct {
	text   string
	tokens []globToken // nil without stars
}

type globToken struct {
	kind globKind
	lit  byte
}

type globKind uint8

const (
	globLiteral globKind = iota
	globStar
	globDoubleStar
)

// maxGlob is the maximum length of a pattern in bytes, which bounds the cost of a match.
const maxGlob = 256

// ParseGlob parses a pattern.
func ParseGlob(s string) (Glob, error) {
	switch {
	case s == "":
		return Glob{}, errors.New(`an empty pattern; write "*" for every name, or one such as "bert-*"`)
	case len(s) > maxGlob:
		return Glob{}, errors.New("a pattern longer than 256 bytes; write a shorter one, or several")
	case strings.ContainsAny(s, `?[]{}\`):
		return Glob{}, errors.New(`a pattern with ? [ ] { } or \; only * (within a segment) and ** (across "/") are supported`)
	case strings.Contains(s, "***"):
		return Glob{}, errors.New(`three stars; write * (within a segment) or ** (across "/")`)
	}
	g := Glob{text: s}
	if !strings.Contains(s, "*") {
		return g, nil
	}
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "**"):
			g.tokens = append(g.tokens, globToken{kind: globDoubleStar})
			i++
		case s[i] == '*':
			g.tokens = append(g.tokens, globToken{kind: globStar})
		default:
			g.tokens = append(g.tokens, globToken{lit: s[i]})
		}
	}
	return g, nil
}

// Match reports whether the pattern matches the whole name. It does not allocate. Its cost is at
// most proportional to the product of both lengths.
func (g Glob) Match(name string) bool {
	if g.tokens == nil {
		return g.text != "" && g.text == name
	}
	// at holds the possible token positions after the bytes matched so far.
	var at globSet
	g.enter(&at, 0)
	for i := 0; i < len(name); i++ {
		var next globSet
		for t, token := range g.tokens {
			if !at.has(t) {
				continue
			}
			switch token.kind {
			case globDoubleStar:
				g.enter(&next, t)
			case globStar:
				if name[i] != '/' {
					g.enter(&next, t)
				}
			default:
				if name[i] == token.lit {
					g.enter(&next, t+1)
				}
			}
		}
		at = next
	}
	return at.has(len(g.tokens))
}

// enter adds token t, and its successors while stars may match nothing.
func (g Glob) enter(s *globSet, t int) {
	for ; ; t++ {
		s.add(t)
		if t == len(g.tokens) || g.tokens[t].kind == globLiteral {
			return
		}
	}
}

// globSet is a set of numbers from 0 to maxGlob.
type globSet [maxGlob/64 + 1]uint64

func (s *globSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *globSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// UnmarshalText parses a pattern.
func (g *Glob) UnmarshalText(text []byte) error {
	v, err := ParseGlob(string(text))
	*g = v
	return err
}

// MarshalText returns the text of the pattern.
func (g Glob) MarshalText() ([]byte, error) { return []byte(g.text), nil }

// String returns the pattern.
func (g Glob) String() string { return g.text }

// IsZero reports whether no pattern was given.
func (g Glob) IsZero() bool { return g.text == "" }
