package model

import "github.com/go-json-experiment/json/jsontext"

// answerScanner looks in the JSON objects of an answer for members that name the model. It does not check
// the grammar: what a server says in odd JSON is what it says. Between objects it passes over everything,
// such as the fields of an event stream. The zero answerScanner looks for nothing.
type answerScanner struct {
	in servedIn

	depth   int
	inner   bool // the object at depth 2 is one in which members count
	quoted  bool // within a string
	escaped bool
	raw     [servedName]byte // the last string at a depth that counts, with its escapes
	size    int              // of raw; more than its length if the string does not fit
	key     answerKey        // the member whose value comes next

	model, version answerText
}

// answerText is a string of an answer.
type answerText struct {
	text [servedName]byte
	size int
}

type answerKey uint8

const (
	otherKey answerKey = iota
	modelKey
	versionKey
	innerKey // of an object in which members count
)

// write takes the next piece, and reports whether all that is looked for was found.
func (s *answerScanner) write(p []byte) (found bool) {
	for i := 0; i < len(p); i++ {
		c := p[i]
		if s.quoted {
			if !s.counts() && !s.escaped {
				if i += plain(p[i:]); i == len(p) {
					break
				}
				c = p[i]
			}
			if s.string(c) {
				return true
			}
			continue
		}
		switch c {
		case '"':
			s.quoted, s.size = s.depth > 0, 0
		case ':':
			if s.counts() {
				s.key = s.keyOf(s.raw[:min(s.size, len(s.raw))])
			}
		case ',':
			if s.counts() {
				s.key = otherKey
			}
		case '{', '[':
			if c == '{' || s.depth > 0 {
				s.depth++
				s.inner = s.inner || s.depth == 2 && c == '{' && s.key == innerKey
				s.key = otherKey
			}
		case '}', ']':
			if s.depth > 0 {
				s.depth--
			}
			s.inner = s.inner && s.depth >= 2
		}
	}
	return false
}

// counts reports whether members at the depth count.
func (s *answerScanner) counts() bool { return s.depth == 1 || s.depth == 2 && s.inner }

// string takes a byte within a string, and reports whether all was found.
func (s *answerScanner) string(c byte) (found bool) {
	switch {
	case s.escaped:
		s.escaped = false
	case c == '\\':
		s.escaped = true
	case c == '"':
		s.quoted = false
		return s.counts() && s.value()
	}
	if s.size < len(s.raw) {
		s.raw[s.size] = c
	}
	s.size++
	return false
}

// value ends a string, which is the value of a member if a key stands before it. It reports whether all was
// found.
func (s *answerScanner) value() bool {
	to := &s.model
	switch s.key {
	case modelKey:
	case versionKey:
		to = &s.version
	default:
		return false
	}
	if s.key = otherKey; to.size == 0 && s.size <= len(s.raw) { // the first one counts
		to.size = copy(to.text[:], s.raw[:s.size])
	}
	return s.model.size > 0 && (s.version.size > 0 || s.in == servedAsModel)
}

func (s *answerScanner) keyOf(raw []byte) answerKey {
	switch s.in {
	case servedAsV2:
		switch {
		case string(raw) == "model_name" && s.depth == 1:
			return modelKey
		case string(raw) == "model_version" && s.depth == 1:
			return versionKey
		}
	case servedAsModel:
		switch string(raw) {
		case "model":
			return modelKey
		case "message", "response": // of the first event of Anthropic's and of OpenAI's answers
			if s.depth == 1 {
				return innerKey
			}
		}
	}
	return otherKey
}

// said returns what was found, in the memory of the call where it is the same.
func (s *answerScanner) said(call Call) Served {
	return Served{s.model.in(call.Model), s.version.in(call.Version)}
}

// in returns the text, decoded, in the memory of old if they are equal; "" if it is malformed.
func (t *answerText) in(old string) string {
	var quoted [servedName + 2]byte
	var room [servedName]byte
	text, err := jsontext.AppendUnquote(room[:0], append(append(append(quoted[:0], '"'), t.text[:t.size]...), '"'))
	if err != nil {
		return ""
	}
	return again(old, text)
}
