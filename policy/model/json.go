package model

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxModelName = 512 // bytes of the canonical name
	maxRawString = 4096
	maxDepth     = 512 // Python's decoder stops near 1000
)

const (
	errNoModel     bodyError = "the body does not name a model"
	errTwoModels   bodyError = "the body names the model more than once"
	errModelKind   bodyError = "the model in the body is not a string"
	errModelName   bodyError = "the name of the model is not valid"
	errModelPath   bodyError = "the model in the body has an empty segment, or one that is . or .., so that servers could read another name"
	errNotJSONType bodyError = "the Content-Type of the body is not application/json"
	errNotObject   bodyError = "the body is not a JSON object"
	errTooDeep     bodyError = "the body is nested too deeply"
	errTruncated   bodyError = "the body is not complete JSON"
	errSpelling    bodyError = "a key differs from the model's key only in letter case"
	errJSONSyntax  bodyError = "the body is not JSON"
)

// objectScanner is a [Scanner] of a JSON object that names the model in a member at its
// top. It checks the whole grammar of RFC 8259, because a lenient reading could find
// another model than the server's strict one. Servers differ in what they do with a
// member that occurs twice or in another letter case (encoding/json of Go folds case and
// takes the last), so either is an error.
type objectScanner struct {
	keys   []string                          // members that name the model, in lower case
	canon  func(name string) (string, error) // makes a name canonical, or refuses it
	decide func(Named) error
	count  *jsonCounter // looks at all values; nil: only the model is read

	err     error
	offset  int64
	lenient bool // NaN and Infinity are numbers, as Python and RapidJSON take them

	state   scanState
	depth   int
	objects [maxDepth/64 + 1]uint64 // bit n: the container at depth n is an object
	rest    string                  // of a literal such as true: the bytes that must follow
	hex     int                     // digits of \u that must follow

	key     bool // the string is the key of a member
	named   bool // the member at depth 1 whose value comes next names the model
	keep    bool // the string goes into raw
	raw     [maxRawString]byte
	size    int  // of raw
	tooLong bool // the string does not fit into raw

	model string
}

type scanState uint8

const (
	wantStart      scanState = iota // the object itself
	wantValue                       // after a colon, or a comma of an array
	wantValueOrEnd                  // after [
	wantKeyOrEnd                    // after {
	wantKey                         // after a comma of an object
	wantColon
	afterValue
	inString
	inEscape
	inHex
	inLiteral
	afterMinus
	afterZero
	inInteger
	afterPoint
	inFraction
	afterExponent
	afterExponentSign
	inExponent
	afterEnd // only white space may follow
)

// Write takes the next piece of the body.
func (s *objectScanner) Write(p []byte) (int, error) {
	for i := 0; i < len(p) && s.err == nil; i++ {
		if s.state == inString && !s.keep {
			i += plain(p[i:])
			if i == len(p) {
				break
			}
		}
		if s.count != nil {
			s.count.at = s.offset + int64(i)
		}
		if err := s.next(p[i]); err != nil {
			s.err = fmt.Errorf("%w (byte %d)", err, s.offset+int64(i))
		}
	}
	s.offset += int64(len(p))
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

// plain returns how many bytes at the start of p belong to a string and need no look.
func plain(p []byte) int {
	for i, c := range p {
		if c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return len(p)
}

// Check ends the body.
func (s *objectScanner) Check() error {
	switch {
	case s.err != nil:
	case s.state != afterEnd:
		s.err = errTruncated
	case s.count != nil:
	case s.model == "":
		s.err = errNoModel
	default:
		s.err = s.decide(Named{Model: s.model})
	}
	return s.err
}

// Close does nothing.
func (*objectScanner) Close() {}

// next takes one byte.
func (s *objectScanner) next(c byte) error {
	switch s.state {
	case inString, inEscape, inHex:
		return s.inString(c)
	case inLiteral:
		if c != s.rest[0] {
			return errJSONSyntax
		}
		if s.rest = s.rest[1:]; s.rest == "" {
			s.state = afterValue
			return s.ended(1)
		}
		return nil
	}
	if s.state >= afterMinus && s.state <= inExponent {
		more, err := s.number(c)
		switch {
		case err != nil:
			return err
		case more && s.count != nil:
			s.count.digit(c)
		case !more:
			if err := s.ended(0); err != nil {
				return err
			}
		}
		if more {
			return nil
		}
	}
	if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
		return nil
	}
	switch s.state {
	case wantStart:
		if c != '{' {
			return errNotObject
		}
		return s.open(c)
	case wantValueOrEnd:
		if c == ']' {
			return s.close(c)
		}
		return s.value(c)
	case wantValue:
		return s.value(c)
	case wantKeyOrEnd:
		if c == '}' {
			return s.close(c)
		}
		return s.startKey(c)
	case wantKey:
		return s.startKey(c)
	case wantColon:
		if c != ':' {
			return errJSONSyntax
		}
		s.state = wantValue
		return nil
	case afterValue:
		switch {
		case c != ',':
			return s.close(c)
		case s.inObject():
			s.state = wantKey
		default:
			s.state = wantValue
		}
		return nil
	}
	return errJSONSyntax // afterEnd
}

func (s *objectScanner) inObject() bool { return s.objects[s.depth/64]>>(s.depth%64)&1 == 1 }

// open begins an object or an array.
func (s *objectScanner) open(c byte) error {
	if s.depth == maxDepth {
		return errTooDeep
	}
	s.depth++
	bit := uint64(1) << (s.depth % 64)
	if c == '{' {
		s.objects[s.depth/64] |= bit
		s.state = wantKeyOrEnd
	} else {
		s.objects[s.depth/64] &^= bit
		s.state = wantValueOrEnd
	}
	return nil
}

// close ends the innermost object or array.
func (s *objectScanner) close(c byte) error {
	if s.inObject() != (c == '}') || !s.inObject() && c != ']' {
		return errJSONSyntax
	}
	if s.depth--; s.depth == 0 {
		s.state = afterEnd
	} else {
		s.state = afterValue
	}
	return s.ended(1)
}

func (s *objectScanner) startKey(c byte) error {
	if c != '"' {
		return errJSONSyntax
	}
	s.state, s.key = inString, true
	s.keep, s.size, s.tooLong = s.depth == 1, 0, false
	if s.count != nil {
		s.keep = s.count.keys(s.depth)
	}
	return nil
}

// value begins a value.
func (s *objectScanner) value(c byte) error {
	named := s.named && s.depth == 1
	s.named = false
	if named && c != '"' {
		return errModelKind
	}
	if s.count != nil {
		var err error
		if named, err = s.count.value(s.depth, c); err != nil {
			return err
		}
	}
	switch c {
	case '"':
		s.state, s.key = inString, false
		s.keep, s.size, s.tooLong = named, 0, false
	case '{', '[':
		return s.open(c)
	case 't':
		s.state, s.rest = inLiteral, "rue"
	case 'f':
		s.state, s.rest = inLiteral, "alse"
	case 'n':
		s.state, s.rest = inLiteral, "ull"
	case 'N', 'I':
		if !s.lenient {
			return errJSONSyntax
		}
		return s.noNumber(c)
	case '-':
		s.state = afterMinus
	case '0':
		s.state = afterZero
	default:
		if c < '1' || c > '9' {
			return errJSONSyntax
		}
		s.state = inInteger
	}
	return nil
}

// noNumber begins NaN or Infinity.
func (s *objectScanner) noNumber(c byte) error {
	if s.state, s.rest = inLiteral, "nfinity"; c == 'N' {
		s.rest = "aN"
	}
	return nil
}

// number takes a byte of a number (RFC 8259, section 6). It returns false at the byte
// behind the number.
func (s *objectScanner) number(c byte) (more bool, err error) {
	digit := c >= '0' && c <= '9'
	switch s.state {
	case afterMinus:
		switch {
		case c == '0':
			s.state = afterZero
		case digit:
			s.state = inInteger
		case s.lenient && (c == 'N' || c == 'I'):
			return true, s.noNumber(c)
		default:
			return false, errJSONSyntax
		}
		return true, nil
	case afterPoint, afterExponentSign:
		if !digit {
			return false, errJSONSyntax
		}
		s.state++ // inFraction, inExponent
		return true, nil
	case afterExponent:
		switch {
		case c == '+' || c == '-':
			s.state = afterExponentSign
		case digit:
			s.state = inExponent
		default:
			return false, errJSONSyntax
		}
		return true, nil
	}
	switch {
	case digit && s.state != afterZero:
		return true, nil
	case c == '.' && s.state <= inInteger:
		s.state = afterPoint
		return true, nil
	case (c == 'e' || c == 'E') && s.state != inExponent:
		s.state = afterExponent
		return true, nil
	}
	s.state = afterValue
	return false, nil
}

// inString takes a byte of a string.
func (s *objectScanner) inString(c byte) error {
	switch s.state {
	case inEscape:
		switch {
		case c == 'u':
			s.state, s.hex = inHex, 4
		case strings.IndexByte(`"\/bfnrt`, c) >= 0:
			s.state = inString
		default:
			return errJSONSyntax
		}
	case inHex:
		if !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f') {
			return errJSONSyntax
		}
		if s.hex--; s.hex == 0 {
			s.state = inString
		}
	default:
		switch {
		case c == '"':
			return s.endString()
		case c == '\\':
			s.state = inEscape
		case c < ' ':
			return errJSONSyntax
		}
	}
	if s.keep {
		if s.size == len(s.raw) {
			s.keep, s.tooLong = false, true
		} else {
			s.raw[s.size] = c
			s.size++
		}
	}
	return nil
}

// endString ends a key or a value that is a string.
func (s *objectScanner) endString() error {
	kept := s.keep || s.tooLong
	s.keep = false
	if s.key {
		s.state = wantColon
		if kept && !s.tooLong {
			return s.readKey()
		}
		return nil
	}
	s.state = afterValue
	if s.count != nil {
		return s.endCounted(kept)
	}
	if !kept {
		return nil
	}
	if s.tooLong {
		return errModelName
	}
	name, err := s.text()
	if err != nil {
		return errModelName
	}
	if s.model, err = s.canon(name); err != nil {
		return err
	}
	return nil
}

// text is the string in raw, with its escapes decoded.
func (s *objectScanner) text() (string, error) {
	var quoted [maxRawString + 2]byte
	b := append(append(append(quoted[:0], '"'), s.raw[:s.size]...), '"')
	var room [64]byte
	text, err := jsontext.AppendUnquote(room[:0], b)
	return string(text), err
}

// readKey looks whether a member at depth 1 names the model.
func (s *objectScanner) readKey() error {
	if s.count != nil {
		return s.countKey()
	}
	longest := 0
	for _, k := range s.keys {
		longest = max(longest, len(k))
	}
	if s.size > len(`\u0000`)*longest {
		return nil
	}
	key, err := s.text()
	if err != nil {
		return errJSONSyntax
	}
	for _, k := range s.keys {
		switch {
		case key == k && s.model != "":
			return errTwoModels
		case key == k:
			s.named = true
			return nil
		case strings.EqualFold(key, k):
			return errSpelling
		}
	}
	return nil
}

// newObjectScanner returns a scanner for a JSON body, whatever its Content-Type.
func newObjectScanner(o *ScanOptions, canon func(string) (string, error), keys ...string) *objectScanner {
	return &objectScanner{keys: keys, canon: canon, decide: o.Decide}
}

// jsonScanner returns a scanner for a body whose Content-Type, if there is one, is JSON. A form
// ("&model=secret&" within a string of the object) could name another model to a server that goes
// by the type.
func jsonScanner(r *Reading, o *ScanOptions, canon func(string) (string, error), keys ...string) Scanner {
	s := newObjectScanner(o, canon, keys...)
	if t := r.fields.Get("content-type"); r.fields.Count("content-type") > 1 || t != "" && !isJSON(t) {
		s.err = errNotJSONType
	}
	return s
}

// isJSON reports whether a media type is application/json or has the suffix +json (RFC 6839).
func isJSON(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	return t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json")
}
