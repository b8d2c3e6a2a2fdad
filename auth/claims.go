package auth

import (
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxPath = 256 // bytes of a claim's path; what lies deeper has no name
	maxName = 256 // bytes of a principal's name
)

// claim is the value at a path: one for a string, number or boolean, several
// for an array of those.
type claim struct {
	path   string
	values []string
	kind   valueKind // of all values
	array  bool
}

// valueKind is what the values of a claim are in JSON. Those of the empty array are
// text.
type valueKind uint8

const (
	mixed valueKind = iota // of several kinds, or booleans
	text
	number
)

func kindOf(t jsontext.Token) valueKind {
	switch t.Kind() {
	case jsontext.KindString:
		return text
	case jsontext.KindNumber:
		return number
	}
	return mixed
}

// claimSet is the claims of a token, sorted by path. Nothing in it is proved until the
// token's signature is verified. It is never modified, and safe for concurrent use.
type claimSet []claim

// claimReader flattens claims into memory that is reused for the next token.
type claimReader struct {
	claims claimSet
	words  []string // the values of claims
}

func (r *claimReader) release() {
	clear(r.claims)
	clear(r.words)
	r.claims, r.words = r.claims[:0], r.words[:0]
}

// set copies what was read into a sorted set. The names on the way to a value are
// joined by dots, and a name may itself hold dots, as namespaced claims do
// ("https://example.com/roles"). Where two claims share a path neither has it: which of
// them was meant is not ours to guess.
func (r *claimReader) set() claimSet {
	all := r.claims
	slices.SortFunc(all, func(a, b claim) int { return strings.Compare(a.path, b.path) })
	unique := make(claimSet, 0, len(all))
	words := make([]string, 0, len(r.words))
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && all[j].path == all[i].path {
			j++
		}
		if j == i+1 {
			c := all[i]
			from := len(words)
			words = append(words, c.values...)
			c.values = words[from:len(words):len(words)]
			unique = append(unique, c)
		}
		i = j
	}
	return unique
}

// read flattens the value at path.
func (r *claimReader) read(path string, d *jsontext.Decoder) error {
	if d.StackDepth() >= maxDepth || len(path) > maxPath {
		return skip(d)
	}
	switch d.PeekKind() {
	case jsontext.KindBeginObject:
		return r.readObject(path, d)
	case jsontext.KindBeginArray:
		return r.readArray(path, d)
	}
	t, err := d.ReadToken()
	if err != nil {
		return badJSON(err)
	}
	if t.Kind() != jsontext.KindNull {
		from := len(r.words)
		r.words = append(r.words, t.String())
		r.keep(path, from, kindOf(t), false)
	}
	return nil
}

// keep makes a claim of the words from an index on.
func (r *claimReader) keep(path string, from int, kind valueKind, array bool) {
	r.claims = append(r.claims, claim{path: path, values: r.words[from:len(r.words):len(r.words)], kind: kind, array: array})
}

func (r *claimReader) readObject(path string, d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return badJSON(err)
	}
	for d.PeekKind() != jsontext.KindEndObject {
		t, err := d.ReadToken()
		if err != nil {
			return badJSON(err)
		}
		if err := r.read(path+"."+t.String(), d); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

func (r *claimReader) readArray(path string, d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return badJSON(err)
	}
	from, kind, plain := len(r.words), text, true
	for d.PeekKind() != jsontext.KindEndArray {
		switch d.PeekKind() {
		case jsontext.KindBeginObject, jsontext.KindBeginArray, jsontext.KindNull:
			plain = false
			if err := skip(d); err != nil {
				return err
			}
			continue
		}
		t, err := d.ReadToken()
		if err != nil {
			return badJSON(err)
		}
		if kindOf(t) != text {
			kind = mixed
		}
		r.words = append(r.words, t.String())
	}
	if plain {
		r.keep(path, from, kind, true)
	}
	_, err := d.ReadToken()
	return err
}

func (s claimSet) find(path string) (claim, bool) {
	i, ok := slices.BinarySearchFunc(s, path, func(c claim, p string) int { return strings.Compare(c.path, p) })
	if !ok {
		return claim{}, false
	}
	return s[i], true
}

// Claim is the Claim function of a principal, see [identity.Principal].
func (s claimSet) Claim(path string) []string {
	c, _ := s.find(path)
	return c.values
}

// size is what the set holds in memory, in bytes, roughly.
func (s claimSet) size() int {
	n := 0
	for _, c := range s {
		n += 64 + len(c.path)
		for _, v := range c.values {
			n += 16 + len(v)
		}
	}
	return n
}

// principalName is the caller's name. It travels in headers and logs, so what
// would look there like another name, or like nothing, is none.
func (s claimSet) principalName(path string) (string, error) {
	c, ok := s.find(path)
	if !ok || c.kind != text || c.array {
		return "", errors.New("the claim of the principal is absent or not a string")
	}
	name := c.values[0]
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name || strings.IndexFunc(name, unseen) >= 0 {
		return "", errors.New("the claim of the principal is empty, too long, or has characters that do not show")
	}
	return name, nil
}

// unseen holds controls, and what changes the look of its neighbours without
// showing itself (directions, joiners, line separators).
func unseen(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) || r == unicode.ReplacementChar
}

// scopes are those of scope, else of scp. Each may be a string with spaces
// between scopes (RFC 8693, section 4.2) or an array, as products differ.
func (s claimSet) scopes() ([]string, error) {
	c, ok := s.find("scope")
	if !ok {
		c, ok = s.find("scp")
	}
	if !ok {
		return nil, nil
	}
	if c.kind != text {
		return nil, errors.New("scopes are not strings")
	}
	if !c.array {
		c.values = strings.Fields(c.values[0])
	}
	for _, v := range c.values {
		// One with a space would be two to whoever reads them joined.
		if v == "" || strings.IndexFunc(v, func(r rune) bool { return unicode.IsSpace(r) || unseen(r) }) >= 0 {
			return nil, errors.New("a scope with white space or control characters")
		}
	}
	return c.values, nil
}

// groups are the strings at path, none if path is "".
func (s claimSet) groups(path string) ([]string, error) {
	c, ok := s.find(path)
	if path == "" || !ok {
		return nil, nil
	}
	if c.kind != text {
		return nil, errors.New("groups are not strings")
	}
	return c.values, nil
}
