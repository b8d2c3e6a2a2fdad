package httpsig

import "strings"

// Bounds of what is read of Signature-Input and Signature, which anyone may send.
const (
	maxInput      = 4 << 10
	maxLabels     = 4
	maxComponents = 32
	maxNonce      = 64
	maxKeyID      = 128
)

// input is one member of Signature-Input, as read. Its strings are parts of the
// field's value.
type input struct {
	label      string
	components [maxComponents]component
	from, to   [maxComponents]int // of each identifier within text
	n          int
	text       []byte // the value in its canonical form: what is signed

	created, expires       int64
	hasCreated, hasExpires bool
	nonce, keyID, alg, tag string
	hasNonce, hasAlg       bool

	// fault is why these parameters mean nothing to us although they are well
	// formed. It does not count for signatures that are not ours.
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

// parse reads an inner list with its parameters. It reports whether that was well
// formed; see fault for the rest.
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

// component reads one identifier.
func (in *input) component(p *parser) bool {
	name, ok := p.bare()
	if !ok || name.kind != bareString {
		return false
	}
	i := in.n
	in.from[i] = len(in.text)
	in.text = appendBare(in.text, name)
	c := component{name: name.raw}
	var seen [maxParameters]string
	for n := 0; ; n++ {
		key, value, more, ok := p.param()
		if !ok || n == len(seen) || contains(seen[:n], key) {
			return false
		}
		if !more {
			break
		}
		seen[n] = key
		in.appendParam(key, value)
		if !c.set(key, value) {
			in.fail("a component has a parameter that is not known or not of its type")
		}
	}
	switch {
	case !c.valid():
		in.fail("a component is unknown, or has parameters that do not go together")
	case has(in.components[:i], c):
		in.fail("a component is listed twice")
	}
	in.components[i], in.to[i] = c, len(in.text)
	in.n++
	return true
}

// params reads the parameters of the signature.
func (in *input) params(p *parser) bool {
	var seen [maxParameters]string
	for n := 0; ; n++ {
		key, value, more, ok := p.param()
		if !ok || n == len(seen) || contains(seen[:n], key) {
			return false
		}
		if !more {
			return true
		}
		seen[n] = key
		in.appendParam(key, value)
		in.param(key, value)
	}
}

// appendParam writes a parameter canonically.
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

// param takes one parameter of the signature. Those that are not known are
// covered like the others, and mean nothing.
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
		in.fail("the parameter " + key + " is not as it must be")
	}
}

func (in *input) fail(why string) {
	if in.fault == "" {
		in.fault = why
	}
}

// validNonce reports whether a nonce is of 1 to 64 characters A-Za-z0-9_.~-.
func validNonce(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') && strings.IndexByte("_.~-", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}

// oneLine returns the only line of a field. A second one is refused although RFC
// 9421 has them joined: readers that take the first alone would see another
// message.
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

// selection is the signature that bears our tag.
type selection struct {
	inputs [2]input // the one that is ours, and the one that is being read
	ours   int      // index of inputs, -1 for none
	mac    []byte
}

// find reads both fields and selects the one signature with our tag; labels mean
// nothing (section 7.2.5). Others are ignored however they are made, as long as
// they are well formed: what they mean is between other parties (section 7.2.6).
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

// readSignatures reads the values; their labels must be those of the inputs.
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

// hasLabel reports whether a head has a signature with this label, or signatures that
// cannot be read.
func hasLabel(fields Fields, label string) bool {
	value, err := oneLine(fields, "signature-input")
	if value == "" || err != nil || len(value) > maxInput {
		return value != "" || err != nil
	}
	s := selection{ours: -1}
	var labels [maxLabels]string
	const none = "\x00" // no tag can be that
	n, err := s.readInputs(value, none, &labels)
	return err != nil || contains(labels[:n], label)
}
