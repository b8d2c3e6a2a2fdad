package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"sallyport/auth/httpsig"
)

// explainBase shows the signature base that the gateway computes, and where it
// parts from what was signed.
func (v *toVerify) explainBase(out *strings.Builder, m *httpsig.Message, key func(id string) *httpsig.Key) error {
	e, err := httpsig.Explain(m, v.tag)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "the gateway computes, for signature %s of key %s:\n", e.Label, e.KeyID)
	number(out, e.Base)
	k := key(e.KeyID)
	if k == nil {
		return nil
	}
	if k.Signed(e.Base, e.Signature) {
		fmt.Fprintln(out, "the signature is that of this base")
		return nil
	}
	theirs, why := "", "what was signed, found by trying common mistakes:"
	if v.base != "" {
		text, err := os.ReadFile(v.base)
		if err != nil {
			return fmt.Errorf("reading the client's base: %w", err)
		}
		theirs, why = strings.TrimSuffix(string(text), "\n"), "the client's base:"
		if !k.Signed(theirs, e.Signature) && !k.Signed(string(text), e.Signature) {
			why = "the client's base, which is not what was signed either; is the key the same on both sides?"
		}
	} else {
		guess := guesser{message: m, key: k, signature: e.Signature, lines: strings.Split(e.Base, "\n")}
		theirs = guess.find()
	}
	if theirs == "" {
		fmt.Fprintln(out, "the signature is not that of this base, nor of one with common mistakes; compare the keys,\n"+
			"or have the client print its signature base and give it with --base")
		return nil
	}
	fmt.Fprintln(out, why)
	number(out, theirs)
	part(out, e.Base, theirs)
	return nil
}

// number writes lines with their numbers, quoted where they hold what cannot be seen.
func number(out *strings.Builder, base string) {
	for i, line := range strings.Split(base, "\n") {
		fmt.Fprintf(out, "%4d  %s\n", i+1, visible(line))
	}
}

func visible(line string) string {
	quoted := fmt.Sprintf("%q", line)
	if quoted == `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(line)+`"` && strings.TrimRight(line, " ") == line {
		return line
	}
	return quoted
}

// part says where two bases differ, line by line.
func part(out *strings.Builder, ours, theirs string) {
	if ours == theirs {
		fmt.Fprintln(out, "they are the same")
	}
	a, b := strings.Split(ours, "\n"), strings.Split(theirs, "\n")
	for i := range max(len(a), len(b)) {
		mine, other := "", ""
		if i < len(a) {
			mine = a[i]
		}
		if i < len(b) {
			other = b[i]
		}
		if i < len(a) && i < len(b) && mine == other {
			continue
		}
		n := 0
		for n < len(mine) && n < len(other) && mine[n] == other[n] {
			n++
		}
		fmt.Fprintf(out, "they part at line %d, byte %d:\n  gateway  %s\n  client   %s\n", i+1, n+1, visible(mine), visible(other))
	}
}

// mostGuesses bounds how many bases are tried.
const mostGuesses = 50_000

// guesser looks for the base that was signed among those that common mistakes make.
type guesser struct {
	message   *httpsig.Message
	key       *httpsig.Key
	signature []byte
	lines     []string // of our own base
	tried     int
}

// find returns the base that was signed, "" if it is none of those.
func (g *guesser) find() string {
	for changes := 1; changes <= 3; changes++ {
		if found := g.try(append([]string(nil), g.lines...), 0, changes); found != "" {
			return found
		}
	}
	return ""
}

// try changes so many lines, from one on.
func (g *guesser) try(lines []string, from, changes int) string {
	if changes == 0 {
		for _, end := range []string{"", "\n"} {
			g.tried++
			if base := strings.Join(lines, "\n") + end; g.key.Signed(base, g.signature) {
				return base
			}
		}
		return ""
	}
	for i := from; i < len(lines)-1 && g.tried < mostGuesses; i++ {
		name, value, _ := strings.Cut(lines[i], ": ")
		kept := lines[i]
		for _, other := range g.others(strings.Trim(name, `"`), value) {
			lines[i] = name + ": " + other
			if found := g.try(lines, i+1, changes-1); found != "" {
				return found
			}
		}
		lines[i] = kept
	}
	if from == 0 && changes == 1 { // nothing but the line break at the end
		return g.try(lines, 0, 0)
	}
	return ""
}

// others are values that careless signers give to a component.
func (g *guesser) others(name, value string) []string {
	m := g.message
	host, _, _ := strings.Cut(value, ":")
	path, err := url.PathUnescape(m.Path)
	if err != nil {
		path = m.Path
	}
	switch name {
	case "@method":
		return []string{strings.ToLower(value), strings.ToUpper(value)}
	case "@authority":
		return []string{m.Authority, value + ":443", value + ":80", host, "localhost", "127.0.0.1"}
	case "@scheme":
		return []string{"http", "https"}
	case "@path":
		return []string{path, m.Path + "?" + m.Query, strings.TrimSuffix(m.Path, "/"), m.Path + "/", strings.ToLower(m.Path)}
	case "@query":
		query, err := url.QueryUnescape(m.Query)
		if err != nil {
			query = m.Query
		}
		return []string{m.Query, "", "?" + query, query}
	case "@target-uri":
		without, _, _ := strings.Cut(value, "?")
		return []string{without, strings.Replace(value, "https://", "http://", 1), strings.Replace(value, "http://", "https://", 1), m.Path}
	case "content-type":
		kind, _, _ := strings.Cut(value, ";")
		return []string{kind, kind + "; charset=utf-8", kind + ";charset=UTF-8", "application/json", "text/plain", ""}
	}
	return []string{strings.ToLower(value), ""}
}
