package httpsig

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Fields are the field lines of a head or of trailers.
type Fields interface {
	// Line returns the value of the n-th line, from 0, with this lower-case name, and
	// whether there is one. It must ignore the letter case of the stored names.
	Line(name string, n int) (value string, ok bool)
}

// Message is a request, or a response with the request that it answers. Its values must
// be those of the message as sent. This package does not modify or keep a Message.
type Message struct {
	Method    string
	Scheme    string // "https" or "http", as the client saw it
	Authority string // host and port as the client sent them; normalized when signed
	Path      string // byte for byte as sent, nothing decoded
	Query     string // byte for byte as sent, without "?"
	HasQuery  bool   // distinguishes "/p?" from "/p"
	Status    int    // 0: a request
	Fields    Fields // nil: none
	Trailers  Fields // nil: none, or not arrived yet

	// Request is the request that a response answers, for components with ;req. Nil
	// means unknown. It must be nil for requests.
	Request *Message

	// Structured maps lower-case names of fields to their types, for components with
	// ;sf. The fields of RFC 9421, RFC 9530 and RFC 9218 are known without it.
	Structured map[string]Kind
}

// Base returns the signature base of a message (RFC 9421, section 2.5). parameters is
// the member of Signature-Input without its label, such as
// `("@method" "@path");created=1618884473;keyid="k1"`. It is for diagnostic tools;
// [Verifier] and [Signer] compute the base themselves.
func Base(m *Message, parameters string) ([]byte, error) {
	var in input
	p := parser{s: parameters}
	if !in.parse(&p) || !p.end() {
		return nil, fault(Malformed, "the parameters are not an inner list")
	}
	if in.fault != "" {
		return nil, fault(Malformed, in.fault)
	}
	dst, err := appendBase(nil, m, &in)
	if err != nil {
		return nil, err
	}
	return dst, nil
}

// appendBase appends the signature base for parsed parameters.
func appendBase(dst []byte, m *Message, in *input) ([]byte, *Error) {
	var err *Error
	for i, c := range in.components[:in.n] {
		dst = append(dst, in.text[in.from[i]:in.to[i]]...)
		if dst, err = appendLine(dst, m, c); err != nil {
			return dst, err
		}
	}
	dst = append(dst, `"@signature-params": `...)
	return append(dst, in.text...), nil
}

// appendLine appends the value of a component and ends its line.
func appendLine(dst []byte, m *Message, c component) ([]byte, *Error) {
	dst = append(dst, ": "...)
	from := len(dst)
	dst, ok := m.appendComponent(dst, c)
	if !ok {
		return dst, fault(BadSignature, "no value for "+c.String())
	}
	// A line break in a value could forge the line of another component. The base is
	// ASCII (section 2.5).
	for _, b := range dst[from:] {
		if (b < ' ' && b != '\t') || b > '~' {
			return dst, fault(BadSignature, "a byte that cannot be signed in "+c.String())
		}
	}
	return append(dst, '\n'), nil
}

// appendComponent appends the value of a component. ok is false if the message has no
// value for it, or if such a message cannot have the component.
func (m *Message) appendComponent(dst []byte, c component) (_ []byte, ok bool) {
	if c.flags&flagReq != 0 {
		if m.Status == 0 || m.Request == nil || m.Request.Status != 0 {
			return dst, false
		}
		m = m.Request
	}
	if c.derived() {
		if (c.name == "@status") != (m.Status != 0) {
			return dst, false
		}
		return m.appendDerived(dst, c)
	}
	fields := m.Fields
	if c.flags&flagTr != 0 {
		fields = m.Trailers
	}
	if fields == nil {
		return dst, false
	}
	switch {
	case c.flags&(flagSF|flagKey) != 0:
		return m.appendStructuredField(dst, fields, c)
	case c.flags&flagBS != 0:
		return appendLines(dst, fields, c.name, func(dst []byte, value string) []byte {
			dst = base64.StdEncoding.AppendEncode(append(dst, ':'), []byte(value))
			return append(dst, ':')
		})
	}
	return appendLines(dst, fields, c.name, func(dst []byte, value string) []byte { return append(dst, value...) })
}

func (m *Message) appendDerived(dst []byte, c component) ([]byte, bool) {
	switch c.name {
	case "@method":
		return append(dst, m.Method...), m.Method != ""
	case "@scheme":
		return appendLower(dst, m.Scheme), m.Scheme != ""
	case "@authority":
		return m.appendAuthority(dst), m.Authority != ""
	case "@path":
		return m.appendPath(dst), true
	case "@query":
		return append(append(dst, '?'), m.Query...), true
	case "@target-uri":
		dst = append(appendLower(dst, m.Scheme), "://"...)
		dst = m.appendPath(m.appendAuthority(dst))
		return m.appendQuery(dst), m.Scheme != "" && m.Authority != ""
	case "@request-target":
		return m.appendQuery(m.appendPath(dst)), true
	case "@query-param":
		return m.appendQueryParam(dst, c.arg)
	case "@status":
		return strconv.AppendInt(dst, int64(m.Status), 10), 100 <= m.Status && m.Status <= 599
	}
	return dst, false
}

func (m *Message) appendPath(dst []byte) []byte {
	if m.Path == "" {
		return append(dst, '/')
	}
	return append(dst, m.Path...)
}

func (m *Message) appendQuery(dst []byte) []byte {
	if !m.HasQuery && m.Query == "" {
		return dst
	}
	return append(append(dst, '?'), m.Query...)
}

func (m *Message) appendAuthority(dst []byte) []byte {
	authority := m.Authority
	switch {
	case strings.EqualFold(m.Scheme, "https"):
		authority = strings.TrimSuffix(authority, ":443")
	case strings.EqualFold(m.Scheme, "http"):
		authority = strings.TrimSuffix(authority, ":80")
	}
	return appendLower(dst, authority)
}

func appendLower(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// appendLines appends all lines of a field in order, trimmed and joined with ", " (RFC
// 9421, section 2.1).
func appendLines(dst []byte, fields Fields, name string, write func([]byte, string) []byte) ([]byte, bool) {
	for n := 0; ; n++ {
		value, ok := fields.Line(name, n)
		if !ok {
			return dst, n > 0
		}
		if n > 0 {
			dst = append(dst, ", "...)
		}
		if strings.IndexByte(value, '\n') >= 0 {
			value = unfold(value)
		}
		dst = write(dst, strings.Trim(value, " \t"))
	}
}

// unfold replaces each obsolete line folding by one space. Other line breaks stay, and
// appendLine refuses them.
func unfold(value string) string {
	lines := strings.Split(strings.ReplaceAll(value, "\r\n", "\n"), "\n")
	out := strings.TrimRight(lines[0], " \t")
	for _, line := range lines[1:] {
		if line == "" || line[0] != ' ' && line[0] != '\t' {
			return value
		}
		out += " " + strings.Trim(line, " \t")
	}
	return out
}

// appendStructuredField appends a field or one member of it in canonical form.
func (m *Message) appendStructuredField(dst []byte, fields Fields, c component) ([]byte, bool) {
	whole, ok := appendLines(nil, fields, c.name, func(dst []byte, value string) []byte { return append(dst, value...) })
	if !ok {
		return dst, false
	}
	if c.flags&flagKey != 0 {
		if c.arg == "" {
			return dst, false
		}
		return appendMembers(dst, &parser{s: string(whole)}, c.arg)
	}
	kind := m.Structured[c.name]
	switch c.name {
	case "content-digest", "repr-digest", "want-content-digest", "want-repr-digest",
		"signature", "signature-input", "accept-signature", "priority":
		kind = Dictionary
	}
	return appendStructured(dst, string(whole), kind)
}

// appendQueryParam appends the value of the query parameter with this encoded name
// (section 2.2.8). It refuses a repeated parameter, since servers differ in which one
// they use.
func (m *Message) appendQueryParam(dst []byte, name string) ([]byte, bool) {
	from, found := len(dst), false
	for pair := range strings.SplitSeq(m.Query, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		encoded, ok := appendForm(dst[:len(dst):len(dst)], key)
		if !ok || string(encoded[len(dst):]) != name {
			continue
		}
		if found {
			return dst[:from], false
		}
		found = true
		if dst, ok = appendForm(dst, value); !ok {
			return dst[:from], false
		}
	}
	return dst, found
}

// appendForm decodes a part of a query by the rules for forms and encodes it again in
// canonical form, with a space as "%20". It refuses invalid UTF-8.
func appendForm(dst []byte, s string) ([]byte, bool) {
	const hex = "0123456789ABCDEF"
	decoded := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			decoded = append(decoded, ' ')
		case c == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			decoded = append(decoded, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		default:
			decoded = append(decoded, c)
		}
	}
	for _, c := range decoded {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '*', c == '-', c == '.', c == '_':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst, utf8.Valid(decoded)
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
