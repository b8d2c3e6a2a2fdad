package model

const errCoding bodyError = "the body has a content coding that the gateway does not read here; it reads gzip"

// inflated returns a scanner of a body with the content coding of o, whose plain form s scans. A server
// that ignores the field reads the coded bytes. Those of gzip are no JSON and no form; raw deflate can
// be, and zlib's differs between servers, so gzip is the only coding that is read.
func inflated(s Scanner, o *ScanOptions) Scanner {
	switch o.Encoding {
	case "", "identity":
		return s
	case "gzip":
		if o.Inflate > 0 {
			c := &codedScanner{plain: s}
			c.inflate, c.err = newInflater(o.Encoding, o.Inflate, c.piece)
			if c.err == nil {
				return c
			}
		}
	}
	return &codedScanner{plain: s, err: errCoding}
}

// codedScanner is a [Scanner] of a body that is compressed.
type codedScanner struct {
	plain   Scanner
	inflate *inflater
	err     error
	refused error // of plain
}

func (s *codedScanner) piece(p []byte) error {
	_, s.refused = s.plain.Write(p)
	return s.refused
}

// Write takes the next piece of the compressed body.
func (s *codedScanner) Write(p []byte) (int, error) {
	if s.err == nil {
		s.end(s.inflate.write(p))
	}
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

// Check ends the body.
func (s *codedScanner) Check() error {
	if s.err != nil {
		return s.err
	}
	if s.end(s.inflate.end()); s.err != nil {
		return s.err
	}
	s.inflate.free()
	s.inflate, s.err = nil, s.plain.Check()
	return s.err
}

// Close ends a scan that was abandoned within the body.
func (s *codedScanner) Close() {
	if s.err == nil {
		s.end(errClosed)
	}
	s.plain.Close()
}

// end makes an error final. The plain scanner's own stays as it is.
func (s *codedScanner) end(err error) {
	if err == nil {
		return
	}
	if s.err = s.refused; s.err == nil {
		s.err = err
	}
	s.inflate.free()
	s.inflate = nil
}
