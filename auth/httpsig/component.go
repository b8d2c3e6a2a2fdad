package httpsig

import (
	"fmt"
	"strings"
)

// flags are the parameters of a component without their values.
type flags uint8

const (
	flagSF  flags = 1 << iota // the field is read as structured and written canonically
	flagKey                   // one member of a dictionary; arg names it
	flagBS                    // each line as a byte sequence
	flagReq                   // of the request that a response answers
	flagTr                    // from the trailers
)

// component is the identifier of a covered component. Identifiers are compared with ==,
// since the order of their parameters does not count (RFC 9421, section 2).
type component struct {
	name  string
	arg   string // of the parameter key or name
	flags flags
}

// derived reports whether the component is derived from the control data of a message
// and not a field. It is never looked up among the fields (section 7.5.1).
func (c component) derived() bool { return strings.HasPrefix(c.name, "@") }

// set stores one parameter. It returns false for a parameter that is unknown, repeated
// or of a wrong type, since other implementations could interpret it differently.
func (c *component) set(key string, value bare) bool {
	var f flags
	switch key {
	case "sf":
		f = flagSF
	case "bs":
		f = flagBS
	case "req":
		f = flagReq
	case "tr":
		f = flagTr
	case "key":
		if c.derived() || c.flags&flagKey != 0 || !plainString(value) {
			return false
		}
		c.flags |= flagKey
		c.arg = value.raw
		return true
	case "name":
		if c.name != "@query-param" || c.arg != "" || !plainString(value) || value.raw == "" {
			return false
		}
		c.arg = value.raw
		return true
	}
	if f == 0 || c.flags&f != 0 || !value.isTrue() {
		return false
	}
	c.flags |= f
	return true
}

// plainString reports whether an item is a string without escapes. Names of members and
// percent-encoded names of query parameters need none.
func plainString(b bare) bool {
	return b.kind == bareString && strings.IndexByte(b.raw, '\\') < 0
}

// valid reports whether the name may have these parameters, in any message.
func (c component) valid() bool {
	switch c.name {
	case "@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query":
		return c.flags&^flagReq == 0
	case "@query-param":
		return c.flags&^flagReq == 0 && c.arg != ""
	case "@status":
		return c.flags == 0
	}
	if c.flags&flagBS != 0 && c.flags&(flagSF|flagKey) != 0 || c.name == "" {
		return false
	}
	for i := 0; i < len(c.name); i++ {
		// "@" is not a token byte, so this refuses unknown derived components and
		// @signature-params.
		if b := c.name[i]; !tokenByte(b) || 'A' <= b && b <= 'Z' {
			return false
		}
	}
	return true
}

// parseComponent parses an identifier as written in a [Policy]: `@method`,
// `content-digest;req`, `@query-param;name="x"`.
func parseComponent(text string) (component, error) {
	name, _, _ := strings.Cut(text, ";")
	c := component{name: name}
	p := parser{s: text, i: len(name)}
	for {
		key, value, more, ok := p.param()
		if ok && more && c.set(key, value) {
			continue
		}
		if !ok || more || !p.end() || !c.valid() {
			return component{}, fmt.Errorf("component %q: want such as @method, content-type or content-digest;req", text)
		}
		return c, nil
	}
}

// parseComponents parses several identifiers, which must differ.
func parseComponents(texts []string) ([]component, error) {
	all := make([]component, 0, len(texts))
	for _, text := range texts {
		c, err := parseComponent(text)
		if err != nil {
			return nil, err
		}
		if has(all, c) {
			return nil, fmt.Errorf("component %q: given twice", text)
		}
		all = append(all, c)
	}
	if len(all) > maxComponents {
		return nil, fmt.Errorf("%d components: want at most %d", len(all), maxComponents)
	}
	return all, nil
}

func has(all []component, c component) bool {
	for i := range all {
		if all[i] == c {
			return true
		}
	}
	return false
}

// appendTo appends the identifier as in Signature-Input: `"@method";req`.
func (c component) appendTo(dst []byte) []byte {
	dst = append(append(append(dst, '"'), c.name...), '"')
	if c.arg != "" || c.flags&flagKey != 0 {
		key := `;name="`
		if c.flags&flagKey != 0 {
			key = `;key="`
		}
		dst = append(append(append(dst, key...), c.arg...), '"')
	}
	for _, f := range [...]struct {
		flag flags
		text string
	}{{flagSF, ";sf"}, {flagBS, ";bs"}, {flagTr, ";tr"}, {flagReq, ";req"}} {
		if c.flags&f.flag != 0 {
			dst = append(dst, f.text...)
		}
	}
	return dst
}

// String returns the identifier as parseComponent reads it.
func (c component) String() string {
	return strings.Replace(string(c.appendTo(nil)), `"`+c.name+`"`, c.name, 1)
}
