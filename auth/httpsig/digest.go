package httpsig

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"io"
)

// ContentDigest returns the value of Content-Digest for content: the SHA-256 of the bytes
// as sent, with content coding and without transfer coding. The digest of empty content
// proves that there is none.
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

// Digester computes the value of Content-Digest for the content written to it. It is not
// safe for concurrent use.
type Digester struct{ hash hash.Hash }

// NewDigester returns a Digester.
func NewDigester() *Digester { return &Digester{sha256.New()} }

// Write never fails.
func (d *Digester) Write(p []byte) (int, error) { return d.hash.Write(p) }

// Value returns the value of Content-Digest for the content written so far.
func (d *Digester) Value() string {
	var sum [sha256.Size]byte
	return formatDigest(d.hash.Sum(sum[:0]))
}

// Digests are the sha-256 and sha-512 digests of one Content-Digest field. Other
// digests are weak or unknown and are ignored (RFC 9530, section 6.6). The zero value
// matches no content.
type Digests struct {
	has256, has512 bool
	sha256         [sha256.Size]byte
	sha512         [sha512.Size]byte
}

// ParseContentDigest parses the field Content-Digest of a head or of trailers. The error
// is nil or of type *[Error]: [DigestMissing] if there is no sha-256 or sha-512 digest,
// [Malformed] if there is more than one line or the line is malformed.
func ParseContentDigest(fields Fields) (Digests, error) {
	value, fault1 := oneLine(fields, "content-digest")
	if fault1 != nil {
		return Digests{}, fault1
	}
	if value == "" {
		return Digests{}, fault(DigestMissing, "")
	}
	bad := func() (Digests, error) {
		return Digests{}, fault(Malformed, "Content-Digest is not a dictionary of byte sequences")
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
		if !d.add(key, b.raw) {
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

// add stores a sha-256 or sha-512 digest and ignores others. It returns false if the
// digest has a wrong length or is not canonical base64.
func (d *Digests) add(key, raw string) bool {
	var buf [sha512.Size]byte
	switch key {
	case "sha-256":
		sum, ok := decode(buf[:0], raw)
		d.has256 = true
		return copy(d.sha256[:], sum) == len(sum) && len(sum) == len(d.sha256) && ok
	case "sha-512":
		sum, ok := decode(buf[:0], raw)
		d.has512 = true
		return copy(d.sha512[:], sum) == len(sum) && len(sum) == len(d.sha512) && ok
	}
	return true
}

// Checker compares the content written to it with digests. It is not safe for concurrent
// use.
type Checker struct {
	want           Digests
	sha256, sha512 hash.Hash
}

// NewChecker returns a Checker.
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

// Check compares the content written so far with every digest. The error is nil or an
// *[Error] with [DigestMismatch].
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

// Match compares content with every digest; see [Checker.Check].
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

// DigestReader reads content and compares it with digests. It ends with io.EOF if they
// match, and otherwise with an *[Error]. Callers must not act on the content before the
// end, since it is unverified until then.
type DigestReader struct {
	from    io.Reader
	checker *Checker
	end     error
}

// NewReader returns a DigestReader.
func (d Digests) NewReader(from io.Reader) *DigestReader {
	return &DigestReader{from: from, checker: d.NewChecker()}
}

// Read implements [io.Reader].
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

// WantsContentDigest reports whether the field Want-Content-Digest asks for sha-256, with
// a preference above 0. The field is only a hint, so a malformed one is ignored.
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
