package httpsig

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"io"
)

// ContentDigest returns the value of Content-Digest for content: its SHA-256, of
// the bytes as sent, with content coding and without transfer coding. That of no
// content pins that there is none.
func ContentDigest(content []byte) string {
	sum := sha256.Sum256(content)
	return formatDigest(sum[:])
}

func formatDigest(sum []byte) string {
	var out [64]byte
	dst := append(out[:0], "sha-256=:"...)
	dst = base64.StdEncoding.AppendEncode(dst, sum)
	return string(append(dst, ':'))
}

// Digester computes the value of Content-Digest of content that is written to it.
// It is not safe for concurrent use.
type Digester struct{ hash hash.Hash }

// NewDigester makes a Digester.
func NewDigester() *Digester { return &Digester{sha256.New()} }

// Write never fails.
func (d *Digester) Write(p []byte) (int, error) { return d.hash.Write(p) }

// Value is the value of Content-Digest of all that was written so far.
func (d *Digester) Value() string {
	var sum [sha256.Size]byte
	return formatDigest(d.hash.Sum(sum[:0]))
}

// Digests are the digests of one Content-Digest field that count: sha-256 and
// sha-512. Others are weak or unknown and never count (RFC 9530, section 6.6).
// The zero value matches no content.
type Digests struct {
	has256, has512 bool
	sha256         [sha256.Size]byte
	sha512         [sha512.Size]byte
}

// ParseContentDigest reads the field Content-Digest of a head, or of trailers. The
// error is nil or of type *[Error]: [DigestMissing] where no digest is given that
// counts, [Malformed] where there is more than one line or it is not well formed.
func ParseContentDigest(fields Fields) (Digests, error) {
	value, fault1 := oneLine(fields, "content-digest")
	if fault1 != nil {
		return Digests{}, fault1
	}
	if value == "" {
		return Digests{}, fault(DigestMissing, "")
	}
	bad := func() (Digests, error) {
		return Digests{}, fault(Malformed, "Content-Digest is no dictionary of byte sequences")
	}
	if len(value) > maxInput {
		return bad()
	}
	var d Digests
	var seen [maxParameters]string
	p := parser{s: value}
	for n := range seen {
		key, ok := p.key()
		if !ok || contains(seen[:n], key) || !p.take('=') {
			return bad()
		}
		seen[n] = key
		b, ok := p.bare()
		if !ok || b.kind != bareBytes {
			return bad()
		}
		if !d.take(key, b.raw) {
			return bad()
		}
		done, ok := p.comma()
		switch {
		case !ok:
			return bad()
		case done && d == Digests{}:
			return Digests{}, fault(DigestMissing, "no sha-256 or sha-512")
		case done:
			return d, nil
		}
	}
	return bad()
}

// take keeps a digest that counts. It says false of one that has not its length.
func (d *Digests) take(key, raw string) bool {
	var room [sha512.Size]byte
	switch key {
	case "sha-256":
		sum, ok := decode(room[:0], raw)
		d.has256 = true
		return copy(d.sha256[:], sum) == len(sum) && len(sum) == len(d.sha256) && ok
	case "sha-512":
		sum, ok := decode(room[:0], raw)
		d.has512 = true
		return copy(d.sha512[:], sum) == len(sum) && len(sum) == len(d.sha512) && ok
	}
	return true
}

// Checker compares content with digests as it is written to it. It is not safe
// for concurrent use.
type Checker struct {
	want           Digests
	sha256, sha512 hash.Hash
}

// NewChecker makes a Checker.
func (d Digests) NewChecker() *Checker {
	c := &Checker{want: d}
	if d.has256 {
		c.sha256 = sha256.New()
	}
	if d.has512 {
		c.sha512 = sha512.New()
	}
	return c
}

// Write never fails.
func (c *Checker) Write(p []byte) (int, error) {
	if c.sha256 != nil {
		c.sha256.Write(p)
	}
	if c.sha512 != nil {
		c.sha512.Write(p)
	}
	return len(p), nil
}

// Check reports whether all that was written is the content of every digest that
// counts. The error is nil or an *[Error] with [DigestMismatch].
func (c *Checker) Check() error {
	var sum [sha512.Size]byte
	ok := c.sha256 != nil || c.sha512 != nil
	if c.sha256 != nil {
		ok = equal(c.sha256.Sum(sum[:0]), c.want.sha256[:]) && ok
	}
	if c.sha512 != nil {
		ok = equal(c.sha512.Sum(sum[:0]), c.want.sha512[:]) && ok
	}
	if !ok {
		return fault(DigestMismatch, "")
	}
	return nil
}

func equal(sum, want []byte) bool { return subtle.ConstantTimeCompare(sum, want) == 1 }

// Match reports whether content is that of the digests; see [Checker.Check].
func (d Digests) Match(content []byte) error {
	if d.has256 && !d.has512 {
		if sum := sha256.Sum256(content); !equal(sum[:], d.sha256[:]) {
			return fault(DigestMismatch, "")
		}
		return nil
	}
	c := d.NewChecker()
	_, _ = c.Write(content)
	return c.Check()
}

// DigestReader reads content and compares it with digests. Its end is io.EOF only
// if they match, and else an *[Error]: by then the reader has handed out all of
// the content, so that whoever acts before the end acts on unverified content.
type DigestReader struct {
	from    io.Reader
	checker *Checker
	end     error
}

// NewReader makes a DigestReader.
func (d Digests) NewReader(from io.Reader) *DigestReader {
	return &DigestReader{from: from, checker: d.NewChecker()}
}

// Read hands on the content; see [DigestReader].
func (r *DigestReader) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	n, err := r.from.Read(p)
	_, _ = r.checker.Write(p[:n])
	if err == io.EOF {
		if bad := r.checker.Check(); bad != nil {
			err = bad
		}
	}
	r.end = err
	return n, err
}

// WantsContentDigest reports whether the field Want-Content-Digest asks for a digest
// that is made here: sha-256, with a preference above 0. It is only a hint: what
// cannot be read asks for nothing.
func WantsContentDigest(fields Fields) bool {
	value, err := oneLine(fields, "want-content-digest")
	if err != nil || len(value) > maxInput {
		return false
	}
	text, ok := appendMembers(nil, &parser{s: value}, "sha-256")
	p := parser{s: string(text)}
	if !ok {
		return false
	}
	b, ok := p.bare()
	preference, isInteger := b.integer()
	return ok && isInteger && preference > 0
}
