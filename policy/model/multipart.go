package model

import (
	"bytes"
	"strings"
)

const (
	maxBoundary   = 70   // RFC 2046, section 5.1.1
	maxPartHeader = 8192 // bytes of one part's header
)

const (
	errNotForm      bodyError = "the Content-Type of the body is not multipart/form-data with one plain boundary"
	errFormStart    bodyError = "the form does not begin with its boundary"
	errFormBoundary bodyError = "something follows the boundary in its line"
	errFormLoose    bodyError = "a part has the boundary at the start of a line that does not follow a line break CRLF"
	errFormEnd      bodyError = "the form does not end with its last boundary and a line break"
	errPartHeader   bodyError = "the header of a part is not one that all servers read alike"
	errPartModel    bodyError = "the part of the model has a file name, a type or an encoding, or its name is in another spelling"
)

// formModel is the name of the part that names the model.
const formModel = "model"

// partScanner is a [Scanner] of a form (multipart/form-data, RFC 7578) that names the model in one part.
//
// The parsers of Go, Python, C++ and Node differ in whatever is unusual: bare line feeds, text before the
// first boundary or behind the last, folded headers, names with escapes or in another charset, and a
// name twice. So only the forms that clients write are read, and the rest is refused. Werkzeug takes a
// lone CR or LF for the line break before a boundary, so no part has one there.
type partScanner struct {
	canon  func(name string) (string, error)
	decide func(Named) error
	err    error

	boundary []byte // CRLF, "--" and the boundary
	matched  int    // bytes of it that have been read
	loose    int    // the same without the CRLF, behind a CR or LF or at the start of a part; -1: none
	state    partState

	header [maxPartHeader]byte // of a part, or the name of the model
	size   int
	model  bool // the part names the model
	named  string
}

type partState uint8

const (
	inBoundary    partState = iota // the first
	afterBoundary                  // CRLF or "--" must follow
	afterBoundaryCR
	afterBoundaryDash
	inPartHeader
	inPart
	afterForm // CRLF may follow
	afterFormCR
	afterFormEnd
)

// formScanner returns a scanner for a form, as the Content-Type must say.
func formScanner(r *Reading, o *ScanOptions, canon func(string) (string, error)) Scanner {
	s := &partScanner{canon: canon, decide: o.Decide, matched: len("\r\n")}
	boundary, ok := formBoundary(r.fields.Get("content-type"))
	if !ok || r.fields.Count("content-type") != 1 {
		s.err = errNotForm
	}
	s.boundary = []byte("\r\n--" + boundary)
	return s
}

// Close does nothing: the scanner holds nothing that must be ended.
func (*partScanner) Close() {}

// formBoundary returns the boundary of a Content-Type that has it as its one parameter.
func formBoundary(contentType string) (string, bool) {
	media, parameter, _ := strings.Cut(contentType, ";")
	name, boundary, found := strings.Cut(strings.Trim(parameter, " \t"), "=")
	if !found || !strings.EqualFold(strings.Trim(media, " \t"), "multipart/form-data") || !strings.EqualFold(name, "boundary") {
		return "", false
	}
	if n := len(boundary); n > 2 && boundary[0] == '"' && boundary[n-1] == '"' {
		boundary = boundary[1 : n-1]
	}
	if boundary == "" || len(boundary) > maxBoundary {
		return "", false
	}
	for i := range len(boundary) {
		if c := boundary[i]; !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("-_'+.", c) >= 0) {
			return "", false
		}
	}
	return boundary, true
}

// Write takes the next piece of the form.
func (s *partScanner) Write(p []byte) (int, error) {
	for i := 0; i < len(p) && s.err == nil; i++ {
		if s.state == inPart && !s.model && s.matched == 0 && s.loose < 0 { // most of a file
			n := bytes.IndexAny(p[i:], "\r\n")
			if n < 0 {
				break
			}
			i += n
		}
		if err := s.next(p[i]); err != nil {
			s.err = err
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

// Check ends the form.
func (s *partScanner) Check() error {
	switch {
	case s.err != nil:
	case s.state != afterForm && s.state != afterFormEnd:
		s.err = errFormEnd
	case s.named == "":
		s.err = errNoModel
	default:
		s.err = s.decide(Named{Model: s.named})
	}
	return s.err
}

func (s *partScanner) next(c byte) error {
	switch s.state {
	case inBoundary:
		if c != s.boundary[s.matched] {
			return errFormStart
		}
		if s.matched++; s.matched == len(s.boundary) {
			s.state = afterBoundary
		}
		return nil
	case afterBoundary:
		switch c {
		case '\r':
			s.state = afterBoundaryCR
		case '-':
			s.state = afterBoundaryDash
		default:
			return errFormBoundary
		}
		return nil
	case afterBoundaryCR:
		if c != '\n' {
			return errFormBoundary
		}
		s.state, s.size = inPartHeader, 0
		return nil
	case afterBoundaryDash:
		if c != '-' {
			return errFormBoundary
		}
		s.state = afterForm
		return nil
	case inPartHeader:
		return s.inHeader(c)
	case inPart:
		return s.inPart(c)
	case afterForm:
		if c == '\r' {
			s.state = afterFormCR
			return nil
		}
	case afterFormCR:
		if c == '\n' {
			s.state = afterFormEnd
			return nil
		}
	}
	return errFormEnd
}

// inHeader takes a byte of a part's header.
func (s *partScanner) inHeader(c byte) error {
	if s.size == len(s.header) || c < ' ' && c != '\r' && c != '\n' && c != '\t' || c == 0x7f {
		return errPartHeader
	}
	s.header[s.size] = c
	s.size++
	if c == '\n' && bytes.HasSuffix(s.header[:s.size], []byte("\r\n\r\n")) {
		model, err := readPartHeader(s.header[:s.size-len("\r\n")])
		if err != nil {
			return err
		}
		if model && (s.model || s.named != "") {
			return errTwoModels
		}
		s.state, s.matched, s.loose, s.size, s.model = inPart, 0, 0, 0, model
	}
	return nil
}

// inPart takes a byte of a part's content.
func (s *partScanner) inPart(c byte) error {
	whole := false
	if s.loose >= 0 {
		if c != s.boundary[len("\r\n")+s.loose] {
			s.loose = -1
		} else if s.loose++; len("\r\n")+s.loose == len(s.boundary) {
			s.loose, whole = -1, true
		}
	}
	if c == '\r' || c == '\n' {
		s.loose = 0
	}
	if whole && s.matched != len(s.boundary)-1 {
		return errFormLoose
	}
	if c == s.boundary[s.matched] {
		if s.matched++; s.matched == len(s.boundary) {
			s.state = afterBoundary
			return s.endPart()
		}
		return nil
	}
	if s.model {
		for _, b := range s.boundary[:s.matched] {
			if err := s.keep(b); err != nil {
				return err
			}
		}
	}
	if s.matched = 0; c == '\r' {
		s.matched = 1
		return nil
	}
	if s.model {
		return s.keep(c)
	}
	return nil
}

func (s *partScanner) keep(c byte) error {
	if s.size == maxModelName {
		return errModelName
	}
	s.header[s.size] = c
	s.size++
	return nil
}

// endPart ends a part.
func (s *partScanner) endPart() (err error) {
	if s.model {
		s.named, err = s.canon(string(s.header[:s.size]))
		s.model = false
	}
	return err
}

// readPartHeader reads the header of a part, whose lines all end with CRLF, and reports whether the part
// names the model.
func readPartHeader(header []byte) (model bool, err error) {
	disposed, plain := false, true
	for len(header) > 0 {
		line, rest, _ := strings.Cut(string(header), "\r\n")
		header = header[len(header)-len(rest):]
		name, value, found := strings.Cut(line, ":")
		if !found || name == "" || strings.ContainsAny(line, "\r\n") {
			return false, errPartHeader
		}
		for i := range len(name) {
			if c := name[i]; !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return false, errPartHeader // also of a folded line
			}
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "content-disposition":
			if disposed {
				return false, errPartHeader
			}
			disposed = true
			var file bool
			if model, file, err = readDisposition(value); err != nil {
				return false, err
			}
			plain = plain && !file
		case "content-type":
			if hasFold(value, "multipart") {
				return false, errPartHeader
			}
			plain = plain && (strings.EqualFold(value, "text/plain") || strings.EqualFold(value, "text/plain; charset=utf-8"))
		default:
			plain = false
		}
	}
	if !disposed {
		return false, errPartHeader
	}
	if model && !plain {
		return false, errPartModel
	}
	return model, nil
}

// hasFold is [strings.HasPrefix] for a prefix in lower-case ASCII, without regard to letter case.
func hasFold(s, prefix string) bool { _, ok := cutFold(s, prefix); return ok }

// readDisposition reads form-data; name="NAME"[; filename="FILE"][; filename*=FILE], as clients write it.
// The name stands first, because a search for name= would find it within filename=.
func readDisposition(value string) (model, file bool, err error) {
	rest, ok := strings.CutPrefix(value, "form-data")
	if !ok {
		return false, false, errPartHeader
	}
	named := false
	for rest != "" {
		rest, ok = strings.CutPrefix(rest, ";")
		key, after, found := strings.Cut(strings.TrimLeft(rest, " \t"), "=")
		if !ok || !found {
			return false, false, errPartHeader
		}
		var text string
		if text, rest, err = cutValue(after); err != nil {
			return false, false, err
		}
		switch {
		case key == "name" && !named:
			named = true
			if model, err = isModelPart(text); err != nil {
				return false, false, err
			}
		case named && (key == "filename" || key == "filename*"):
			file = true
		default: // name*, Name, filename*0 ...
			return false, false, errPartHeader
		}
	}
	if !named {
		return false, false, errPartHeader
	}
	return model, file, nil
}

// isModelPart reports whether a part has the name of the model's. Names that some parser makes into that
// one are an error.
func isModelPart(name string) (bool, error) {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c >= 0x7f || c == '%' {
			return false, errPartHeader
		}
	}
	if name == formModel {
		return true, nil
	}
	stem, _, _ := strings.Cut(name, "[")
	if name == "" || strings.EqualFold(strings.Trim(stem, " "), formModel) {
		return false, errPartModel
	}
	return false, nil
}

// cutValue cuts a value, in quotes or a token, from the start of parameters. Parsers differ in escapes,
// and in whether a semicolon within quotes ends the value.
func cutValue(s string) (value, rest string, err error) {
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		value, rest, ok = strings.Cut(quoted, `"`)
		if !ok || strings.ContainsAny(value, `\;`) || rest != "" && rest[0] != ';' {
			return "", "", errPartHeader
		}
		return value, rest, nil
	}
	i := strings.IndexByte(s, ';')
	if i < 0 {
		i = len(s)
	}
	value, rest = s[:i], s[i:]
	if value == "" || strings.ContainsAny(value, " \t\"\\=") {
		return "", "", errPartHeader
	}
	return value, rest, nil
}
