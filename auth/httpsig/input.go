package httpsig

import "strings"

// Bounds for Signature-Input and Signature, which come from unauthenticated senders.
const (
	maxInput      = 4 << 10
	maxLabels     = 4
	maxComponents = 32
	maxNonce      = 64
	maxKeyID      = 128
)

// input is one parsed member of Signature-Input. Its strings are substrings of the
// field's value.
type input struct {
	label      string
	components [maxComponents]component
	from, to   [maxComponents]int // of each identifier within text
	n          int
	text       []byte // the value in canonical form, as the signature covers it

	created, expires       int64
	hasCreated, hasExpires bool
	nonce, keyID, alg, tag string
	hasNonce, hasAlg       bool

	// fault says why a well-formed member is not acceptable; "" if it is. Faults of
	// members without our tag are ignored.
	fault string
}

func (in *input) reset() {
	text := in.text[:0]
	n := in.n
	clear(in.components[:n])
	in.label, in.n, in.text = "", 0, text
	in.created, in.expires, in.hasCreated, in.hasExpires = 0, 0, false, false
	in.nonce, in.keyID, in.alg, in.tag, in.fault = "", "", "", "", ""
	in.hasNonce, in.hasAlg = false, false
}

// parse parses an inner list with its parameters and reports whether it is well formed.
// Other faults are recorded in fault.
func (in *input) parse(p *parser) bool {
	if !p.take('(') {
		return false
	}
	in.text = append(in.text, '(')
	for {
		gap := p.spaces()
		if p.take(')') {
			break
		}
		if in.n == maxComponents || in.n > 0 && gap == 0 {
			return false
		}
		if in.n > 0 {
			in.text = append(in.text, ' ')
		}
		if !in.component(p) {
			return false
		}
	}
	in.text = append(in.text, ')')
	return in.params(p)
}

// component parses one component identifier.
func (in *input) component(p *parser) bool {
	name, ok := p.bare()
	if !ok || name.kind != bareString {
		return false
	}
	i := in.n
	in.from[i] = len(in.text)
	in.text = appendBare(in.text, name)
	c := component{name: name.raw}
	for seen := (parameters{}); ; {
		key, value, more, ok := seen.next(p)
		if !ok {
			return false
		}
		if !more {
			break
		}
		in.appendParam(key, value)
		if !c.set(key, value) {
			in.fail("a component has a parameter that is unknown or of the wrong type")
		}
	}
	switch {
	case !c.valid():
		in.fail("a component is unknown, or its parameters exclude each other")
	case has(in.components[:i], c):
		in.fail("a component is listed twice")
	}
	in.components[i], in.to[i] = c, len(in.text)
	in.n++
	return true
}

// parameters are the names of the parameters that were read of one list.
type parameters struct {
	seen [maxParameters]string
	n    int
}

// next reads one more. ok is false for one that stands twice, or is one too many.
func (l *parameters) next(p *parser) (key string, value bare, more, ok bool) {
	key, value, more, ok = p.param()
	if !ok || l.n == len(l.seen) || contains(l.seen[:l.n], key) {
		return "", bare{}, false, false
	}
	l.seen[l.n] = key
	l.n++
	return key, value, more, true
}

// params parses the parameters of the signature.
func (in *input) params(p *parser) bool {
	for seen := (parameters{}); ; {
		key, value, more, ok := seen.next(p)
		if !ok {
			return false
		}
		if !more {
			return true
		}
		in.appendParam(key, value)
		in.param(key, value)
	}
}

// appendParam appends a parameter to text in canonical form.
func (in *input) appendParam(key string, value bare) {
	in.text = append(append(in.text, ';'), key...)
	if value.isTrue() {
		return
	}
	var ok bool
	if in.text, ok = appendChecked(append(in.text, '='), value); !ok {
		in.fail("the parameter " + key + " is not in canonical base64")
	}
}

// param stores one parameter of the signature. The signature covers unknown parameters
// too, but they have no meaning.
func (in *input) param(key string, value bare) {
	ok := true
	switch key {
	case "created":
		in.created, ok = value.integer()
		in.hasCreated = ok
	case "expires":
		in.expires, ok = value.integer()
		in.hasExpires = ok
	case "nonce":
		in.nonce, in.hasNonce = value.raw, true
		ok = plainString(value) && validNonce(value.raw)
	case "keyid":
		in.keyID = value.raw
		ok = plainString(value) && len(value.raw) <= maxKeyID
	case "alg":
		in.alg, in.hasAlg = value.raw, true
		ok = plainString(value)
	case "tag":
		if ok = plainString(value); ok {
			in.tag = value.raw
		}
	}
	if !ok {
		in.fail("the parameter " + key + " has the wrong type or an invalid value")
	}
}

func (in *input) fail(why string) {
	if in.fault == "" {
		in.fault = why
	}
}

// validNonce reports whether a nonce has 1 to 64 characters of A-Za-z0-9_.~-.
func validNonce(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') && strings.IndexByte("_.~-", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}

// oneLine returns the only line of a field, "" if there is none. It refuses a second
// line although RFC 9421 joins them: a receiver that reads only the first would see
// another message.
func oneLine(fields Fields, name string) (string, *Error) {
	if fields == nil {
		return "", nil
	}
	value, _ := fields.Line(name, 0)
	if _, more := fields.Line(name, 1); more {
		return "", fault(Malformed, "more than one line of "+name)
	}
	return value, nil
}

// selection is the signature with our tag.
type selection struct {
	inputs [2]input // the selected one and the one being parsed
	ours   int      // index of the selected one, -1 for none
	mac    []byte   // the signature
}

// find parses both fields and selects the only signature with our tag, whatever its
// label (section 7.2.5). Other signatures must be well formed; otherwise it ignores
// them, since they are meant for other parties (section 7.2.6).
func (s *selection) find(fields Fields, tag string) *Error {
	s.ours, s.mac = -1, s.mac[:0]
	in, err := oneLine(fields, "signature-input")
	if err != nil {
		return err
	}
	signatures, err := oneLine(fields, "signature")
	switch {
	case err != nil:
		return err
	case in == "" && signatures == "":
		return fault(Missing, "")
	case len(in) > maxInput || len(signatures) > maxInput:
		return fault(Malformed, "the fields are too long")
	}
	var labels [maxLabels]string
	n, err := s.readInputs(in, tag, &labels)
	if err != nil {
		return err
	}
	if err := s.readSignatures(signatures, labels[:n]); err != nil {
		return err
	}
	if s.ours < 0 {
		return fault(Missing, "there are signatures, but none has the tag "+tag)
	}
	if why := s.inputs[s.ours].fault; why != "" {
		return fault(Malformed, why)
	}
	return nil
}

func (s *selection) readInputs(value, tag string, labels *[maxLabels]string) (int, *Error) {
	p := parser{s: value}
	for n := 0; n < maxLabels; n++ {
		label, ok := p.key()
		if !ok || contains(labels[:n], label) || !p.take('=') {
			return 0, fault(Malformed, "Signature-Input: a label is wrong or given twice")
		}
		labels[n] = label
		next := 0
		if s.ours == 0 {
			next = 1
		}
		in := &s.inputs[next]
		in.reset()
		in.label = label
		if !in.parse(&p) {
			return 0, fault(Malformed, "Signature-Input: not an inner list of components with parameters")
		}
		if in.tag == tag {
			if s.ours >= 0 {
				return 0, fault(Malformed, "more than one signature has the tag "+tag)
			}
			s.ours = next
		}
		done, ok := p.comma()
		if !ok {
			return 0, fault(Malformed, "Signature-Input: not a dictionary")
		}
		if done {
			return n + 1, nil
		}
	}
	return 0, fault(Malformed, "too many signatures")
}

// readSignatures parses the field Signature; its labels must be those of the inputs.
func (s *selection) readSignatures(value string, labels []string) *Error {
	p := parser{s: value}
	var seen [maxLabels]string
	for n := range labels {
		label, ok := p.key()
		if !ok || !contains(labels, label) || contains(seen[:n], label) || !p.take('=') {
			return fault(Malformed, "Signature: the labels are not those of Signature-Input")
		}
		seen[n] = label
		b, ok := p.bare()
		if !ok || b.kind != bareBytes {
			return fault(Malformed, "Signature: not a byte sequence")
		}
		if s.ours >= 0 && label == s.inputs[s.ours].label {
			if s.mac, ok = decode(s.mac, b.raw); !ok {
				return fault(Malformed, "Signature: not in canonical base64")
			}
		}
		done, ok := p.comma()
		if !ok || done != (n == len(labels)-1) {
			return fault(Malformed, "Signature: the labels are not those of Signature-Input")
		}
	}
	return nil
}

// hasLabel reports whether a head has a signature with this label, or malformed ones.
func hasLabel(fields Fields, label string) bool {
	value, err := oneLine(fields, "signature-input")
	if value == "" || err != nil || len(value) > maxInput {
		return value != "" || err != nil
	}
	s := selection{ours: -1}
	var labels [maxLabels]string
	const none = "\x00" // not a valid tag
	n, err := s.readInputs(value, none, &labels)
	return err != nil || contains(labels[:n], label)
}
