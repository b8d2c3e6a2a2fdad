package model

import (
	"strconv"
	"strings"
)

// jsonCountScanner is a [Scanner] of a JSON object that only counts.
type jsonCountScanner struct {
	objectScanner
	counter *jsonCounter
	length  int64  // of the object, with binary content behind it; -1: it is the whole body
	left    uint64 // bytes of the input's binary content
	binary  bool   // the object has ended
}

// newJSONCounter returns a scanner that counts what the plan says. Triton infers an input from a body
// without an object, whose length is then 0; such a body is refused.
func newJSONCounter(r *Reading, o *ScanOptions, p jsonPlan) Scanner {
	s := &jsonCountScanner{counter: newJSONCount(p, &o.Most), length: -1}
	s.count, s.lenient = s.counter, true
	const field = "inference-header-content-length"
	if p.v2 && r.fields.Has(field) {
		digits := r.fields.Get(field)
		n, err := strconv.ParseInt(digits, 10, 64)
		if s.length = n; err != nil || n == 0 || strings.Trim(digits, "0123456789") != "" || r.fields.Count(field) > 1 {
			s.err = errBinaryLength
		}
	}
	return s
}

// Write takes the next piece of the body.
func (s *jsonCountScanner) Write(p []byte) (int, error) {
	n := len(p)
	if s.err == nil && !s.binary {
		object := p
		if s.length >= 0 {
			object = p[:min(int64(len(p)), s.length-s.offset)]
		}
		p = p[len(object):]
		if _, err := s.objectScanner.Write(object); err == nil {
			s.err = s.counter.progress(s.offset)
		}
		if s.err == nil && s.offset == s.length {
			s.binary = true
			s.err = s.objectScanner.Check()
		}
	}
	if s.err == nil {
		s.err = s.content(p)
	}
	if s.err != nil {
		return 0, s.err
	}
	return n, nil
}

// content takes binary content.
func (s *jsonCountScanner) content(p []byte) error {
	a := &s.counter.awaited
	for len(p) > 0 {
		if s.left == 0 {
			if a.next() != nil {
				return errBinaryMore
			}
			s.left = a.input.size
			continue
		}
		n := min(s.left, uint64(len(p)))
		if err := a.write(p[:n], s.counter.most); err != nil {
			return err
		}
		s.left -= n
		p = p[n:]
	}
	return nil
}

// whole reports whether the binary content of every input has come.
func (s *jsonCountScanner) whole() bool {
	for s.left == 0 && s.counter.awaited.next() == nil {
		s.left = s.counter.awaited.input.size
	}
	return s.left == 0
}

// Check ends the body.
func (s *jsonCountScanner) Check() error {
	switch {
	case s.err != nil:
	case s.binary && !s.whole():
		s.err = errBinaryMore
	case s.binary:
	case s.length >= 0:
		s.err = errBinaryLength
	default:
		s.err = s.objectScanner.Check()
	}
	return s.err
}

// ended tells the counter that a value has ended before the byte that stands some bytes behind this one.
func (s *objectScanner) ended(behind int64) error {
	if s.count == nil {
		return nil
	}
	return s.count.ended(s.depth, s.count.at+behind)
}

// endCounted ends a value that is a string, for the counter.
func (s *objectScanner) endCounted(kept bool) error {
	if kept && !s.tooLong {
		text, err := s.text()
		if err != nil {
			return errJSONSyntax
		}
		s.count.text(text)
	}
	return s.ended(1)
}

// countKey gives a key to the counter. Each character of a name in a plan has at most six bytes, as an escape.
func (s *objectScanner) countKey() error {
	key := ""
	if s.size <= len(`\u0000`)*longestCounted {
		var err error
		if key, err = s.text(); err != nil {
			return errJSONSyntax
		}
	}
	return s.count.key(s.depth, key)
}
