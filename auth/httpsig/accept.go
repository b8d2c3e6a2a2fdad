package httpsig

import (
	"fmt"
	"strings"
)

// Wanted is a signature that the sender of Accept-Signature asks for (RFC 9421,
// section 5): on a request for the response, on a response for the next request.
type Wanted struct {
	Label      string
	Components []string // written as in a [Policy]
	Created    bool     // with the parameter created
	Expires    bool     // with the parameter expires

	// Values that the signer must use; "" lets it choose.
	Nonce, KeyID, Alg, Tag string
}

// ParseAcceptSignature parses the field Accept-Signature. Without the field it returns
// nil and no error. The error is nil or an *[Error] with [Malformed].
func ParseAcceptSignature(fields Fields) ([]Wanted, error) {
	value, err := oneLine(fields, "accept-signature")
	if err != nil {
		return nil, err
	}
	if value == "" {
		return nil, nil
	}
	bad := fault(Malformed, "Accept-Signature is not a dictionary of inner lists of components")
	if len(value) > maxInput {
		return nil, bad
	}
	var all []Wanted
	var labels []string
	p := parser{s: value}
	for range maxLabels {
		label, ok := p.key()
		if !ok || contains(labels, label) || !p.take('=') {
			return nil, bad
		}
		w, ok := p.wanted()
		if !ok {
			return nil, bad
		}
		w.Label = label
		labels, all = append(labels, label), append(all, w)
		done, ok := p.comma()
		switch {
		case !ok:
			return nil, bad
		case done:
			return all, nil
		}
	}
	return nil, bad
}

// wanted parses one member. It is like a member of Signature-Input, except that created
// and expires have no value.
func (p *parser) wanted() (w Wanted, ok bool) {
	var in input
	if !p.take('(') {
		return w, false
	}
	for n := 0; ; n++ {
		gap := p.spaces()
		if p.take(')') {
			break
		}
		if n == maxComponents || n > 0 && gap == 0 || !in.component(p) {
			return w, false
		}
	}
	for _, c := range in.components[:in.n] {
		w.Components = append(w.Components, c.String())
	}
	var seen []string
	for {
		key, value, more, ok := p.param()
		if !ok || contains(seen, key) || len(seen) == maxParameters {
			return w, false
		}
		if !more {
			return w, in.fault == ""
		}
		seen = append(seen, key)
		switch key {
		case "created":
			w.Created, ok = true, value.isTrue()
		case "expires":
			w.Expires, ok = true, value.isTrue()
		case "nonce":
			w.Nonce, ok = value.raw, plainString(value) && validNonce(value.raw)
		case "keyid":
			w.KeyID, ok = value.raw, plainID(value)
		case "alg":
			w.Alg, ok = value.raw, plainID(value)
		case "tag":
			w.Tag, ok = value.raw, plainID(value)
		default:
			_, ok = appendChecked(nil, value)
		}
		if !ok {
			return w, false
		}
	}
}

// plainID reports whether a value is a valid id or the empty string, so that
// [FormatAcceptSignature] can write whatever was parsed.
func plainID(b bare) bool {
	return b.kind == bareString && (b.raw == "" || validID(b.raw) == nil)
}

// FormatAcceptSignature returns the value of Accept-Signature.
func FormatAcceptSignature(wanted ...Wanted) (string, error) {
	var all []string
	for _, w := range wanted {
		components, err := parseComponents(w.Components)
		if err != nil {
			return "", err
		}
		dst := append([]byte(w.Label), "=("...)
		for i, c := range components {
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = c.appendTo(dst)
		}
		dst = append(dst, ')')
		if w.Created {
			dst = append(dst, ";created"...)
		}
		if w.Expires {
			dst = append(dst, ";expires"...)
		}
		for _, p := range [...][2]string{{`;nonce="`, w.Nonce}, {`;keyid="`, w.KeyID}, {`;alg="`, w.Alg}, {`;tag="`, w.Tag}} {
			if p[1] != "" {
				if err := validID(p[1]); err != nil {
					return "", fmt.Errorf("wanted signature %s: a parameter: %w", w.Label, err)
				}
				dst = appendParam(dst, p[0], p[1])
			}
		}
		all = append(all, string(dst))
	}
	value := strings.Join(all, ", ")
	if _, err := ParseAcceptSignature(Lines{{"accept-signature", value}}); err != nil {
		return "", fmt.Errorf("wanted signatures: %w", err)
	}
	return value, nil
}
