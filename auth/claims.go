package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxPath = 256 // bytes of a claim's path; claims with a longer one are ignored
	maxName = 256 // bytes of a principal's name
)

// claim is the claim at a path. It has one value for a string, number or boolean, and
// several for an array of those.
type claim struct {
	path   string
	values []string
	kind   valueKind // of all values
	array  bool
}

// valueKind is the JSON type of the values of a claim. It is text for the empty array.
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

// claimSet is the claims of a token, sorted by path, not verified. It is immutable.
type claimSet []claim

// claimReader flattens claims into buffers that are reused for the next token.
type claimReader struct {
	claims claimSet
	words  []string // the values of claims
}

func (r *claimReader) release() {
	clear(r.claims)
	clear(r.words)
	r.claims, r.words = r.claims[:0], r.words[:0]
}

// set copies the claims that were read into a sorted set. A path joins names with dots,
// and a name may itself contain dots, such as "https://example.com/roles". If two claims
// have the same path, set drops both, since either could be meant.
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
		r.add(path, from, kindOf(t), false)
	}
	return nil
}

// add adds a claim whose values are the words from an index on.
func (r *claimReader) add(path string, from int, kind valueKind, array bool) {
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
		r.add(path, from, kind, true)
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

// Claim implements the field Claim of [identity.Principal].
func (s claimSet) Claim(path string) []string {
	c, _ := s.find(path)
	return c.values
}

// IsList implements the field IsList of [identity.Principal].
func (s claimSet) IsList(path string) bool {
	c, _ := s.find(path)
	return c.array
}

// size returns the approximate size of the set in bytes.
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

// principalName returns the caller's name. The gateway writes it to headers and logs, so
// names are refused that could look there like another name or like none.
func (s claimSet) principalName(path string) (string, error) {
	c, ok := s.find(path)
	if !ok || c.kind != text || c.array {
		return "", fmt.Errorf("the claim of the principal is absent or not a string: %s", path)
	}
	name := c.values[0]
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name || strings.IndexFunc(name, invisible) >= 0 {
		return "", fmt.Errorf("the claim of the principal is empty, too long, or has invisible characters: %s", path)
	}
	return name, nil
}

// id returns the claim jti; "" if the token has none that is a string.
func (s claimSet) id() string {
	c, ok := s.find("jti")
	if !ok || c.kind != text || c.array {
		return ""
	}
	return c.values[0]
}

// invisible reports whether r is a control character, or an invisible character that
// changes how its neighbours look: a bidirectional mark, joiner or line separator.
func invisible(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) || r == unicode.ReplacementChar
}

// scopes returns the scopes in the claim scope or, without that, scp. Depending on the
// product, the claim is a string with spaces between scopes (RFC 8693, section 4.2) or
// an array.
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
		// Joined with spaces, a scope with a space would read as two.
		if v == "" || strings.IndexFunc(v, func(r rune) bool { return unicode.IsSpace(r) || invisible(r) }) >= 0 {
			return nil, errors.New("a scope is empty or has white space or invisible characters")
		}
	}
	return c.values, nil
}

// elsewhere returns the paths of the claims that the token leaves to another source (OpenID Connect Core,
// section 5.6.2), and does not have itself. Entra's tokens of the implicit grant say hasgroups instead of
// _claim_names (its access token claims reference).
func (s claimSet) elsewhere() (paths []string) {
	for i := range s {
		if path, ok := strings.CutPrefix(s[i].path, "_claim_names."); ok && !s.has(path) {
			paths = append(paths, path)
		}
	}
	if c, ok := s.find("hasgroups"); ok && slices.Equal(c.values, []string{"true"}) && !s.has("groups") && !slices.Contains(paths, "groups") {
		paths = append(paths, "groups")
	}
	return paths
}

// has reports whether there is a claim at the path or, if that is an object, below it.
func (s claimSet) has(path string) bool {
	return slices.ContainsFunc(s, func(c claim) bool { return c.path == path || strings.HasPrefix(c.path, path+".") })
}

// groups returns the strings at path, none if path is "".
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
