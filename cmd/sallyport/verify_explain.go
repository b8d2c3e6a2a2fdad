package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"sallyport/auth/httpsig"
)

// explainBase writes the signature base as the verifying side computes it, the one that
// was signed, and where they differ.
func (v *toVerify) explainBase(out *strings.Builder, c *captured, key func(id string) *httpsig.Key) error {
	e, err := httpsig.Explain(c.Message, c.tag)
	if err != nil {
		return err
	}
	verifier, signer := "gateway", "client"
	if c.Status != 0 {
		verifier, signer = signer, verifier
	}
	fmt.Fprintf(out, "the %s computes, for signature %s of key %s:\n", verifier, e.Label, e.KeyID)
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
	if c.base != "" || v.base != "" {
		text, err := c.signersBase(v.base)
		if err != nil {
			return err
		}
		theirs, why = strings.TrimSuffix(text, "\n"), "the "+signer+"'s base:"
		if !k.Signed(theirs, e.Signature) && !k.Signed(text, e.Signature) {
			why = "the " + signer + "'s base, which is not what was signed either; is the key the same on both sides?"
		}
	} else {
		guess := guesser{message: c.Message, key: k, signature: e.Signature, lines: strings.Split(e.Base, "\n")}
		theirs = guess.find()
	}
	if theirs == "" {
		fmt.Fprintln(out, "the signature is not that of this base, nor of one with common mistakes; compare the keys,\n"+
			"or have the "+signer+" print its signature base and give it with --base")
		return nil
	}
	fmt.Fprintln(out, why)
	number(out, theirs)
	diff(out, [2]string{verifier, signer}, e.Base, theirs)
	return nil
}

// signersBase returns the signer's base, from a file or from the input.
func (c *captured) signersBase(file string) (string, error) {
	if file == "" {
		return c.base, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the signature base: %w", err)
	}
	return string(text), nil
}

// number writes lines with their numbers. It quotes lines with invisible characters.
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

// diff writes where two bases differ, line by line. sides name who computed each.
func diff(out *strings.Builder, sides [2]string, ours, theirs string) {
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
		fmt.Fprintf(out, "the bases differ at line %d, byte %d:\n  %-7s  %s\n  %-7s  %s\n", i+1, n+1, sides[0], visible(mine), sides[1], visible(other))
	}
}

// maxGuesses bounds how many bases are tried.
const maxGuesses = 50_000

// guesser searches for the signed base among those that result from common mistakes.
type guesser struct {
	message   *httpsig.Message
	key       *httpsig.Key
	signature []byte
	lines     []string // of our own base
	tried     int
}

// find returns the base that was signed, "" if it is not found.
func (g *guesser) find() string {
	for changes := 1; changes <= 3; changes++ {
		if found := g.try(append([]string(nil), g.lines...), 0, changes); found != "" {
			return found
		}
	}
	return ""
}

// try changes the given number of lines, beginning at index from.
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
	for i := from; i < len(lines)-1 && g.tried < maxGuesses; i++ {
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
	if from == 0 && changes == 1 { // try a line break at the end as the only change
		return g.try(lines, 0, 0)
	}
	return ""
}

// others returns wrong values that signers commonly use for a component.
func (g *guesser) others(name, value string) []string {
	m := g.message
	if of, ok := strings.CutSuffix(name, `";req`); ok && m.Request != nil {
		name, m = of, m.Request
	}
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
