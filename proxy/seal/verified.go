package seal

import (
	"io"
	"sync/atomic"

	"sallyport/proxy/message"
)

// Inspector checks content as it passes. Write receives each piece in order; an error ends the
// content there. Check is called once, at a clean end; an error replaces the end. An Inspector
// serves one content and is not safe for concurrent use. An example is
// [sallyport/auth/httpsig.Checker], which compares digests.
type Inspector interface {
	io.Writer
	Check() error
}

// AtEnd is an [Inspector] that only checks the end.
type AtEnd func() error

// Write never fails.
func (AtEnd) Write(p []byte) (int, error) { return len(p), nil }

// Check calls the function.
func (f AtEnd) Check() error { return f() }

// Verified is content that is inspected while it is read. It returns io.EOF only if every inspector
// accepted the content, and their error otherwise. It serves requests and answers. Whoever forwards
// it must withhold the last byte until io.EOF.
//
// It has one reader; other goroutines may call [Verified.Right].
type Verified struct {
	message.Body
	inspectors []Inspector
	right      atomic.Bool
}

// NewVerified returns body as checked by inspectors, in their order. After one refuses, later ones
// are not called.
func NewVerified(body message.Body, inspectors ...Inspector) *Verified {
	return &Verified{Body: body, inspectors: inspectors}
}

// Renew makes b what NewVerified returns, in the memory of b. Nobody may use b meanwhile. With
// a nil body b keeps nothing of its content, and must not be read.
func (b *Verified) Renew(body message.Body, inspectors ...Inspector) {
	clear(b.inspectors)
	b.Body, b.inspectors = body, append(b.inspectors[:0], inspectors...)
	b.right.Store(false)
}

// Right reports whether the content has ended and was accepted.
func (b *Verified) Right() bool { return b.right.Load() }

// Arrived implements [message.Arrived]. An inspector may still refuse what has arrived.
func (b *Verified) Arrived() (n int, whole bool) { return message.ArrivedOf(b.Body) }

func (b *Verified) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	for _, i := range b.inspectors {
		if _, bad := i.Write(p[:n]); bad != nil {
			return 0, bad
		}
	}
	if err == io.EOF {
		for _, i := range b.inspectors {
			if bad := i.Check(); bad != nil {
				return n, bad
			}
		}
		b.right.Store(true)
	}
	return n, err
}

// withoutTrailers is content whose trailers are dropped, because no signature covers them.
type withoutTrailers struct{ io.Reader }

func (withoutTrailers) Trailers() message.Fields { return nil }

// WithoutTrailers returns content without its trailers.
func WithoutTrailers(r io.Reader) message.Body { return withoutTrailers{r} }

// WithholdEnd returns content whose last piece is delivered only after a clean end, so that nobody
// receives all of a message that failed verification. The pieces have up to [BlockBytes].
func WithholdEnd(body message.Body) message.Body { return &withheldEnd{Body: body} }

// withheldEnd implements [WithholdEnd].
type withheldEnd struct {
	message.Body
	out   []byte // ready to be read
	ahead []byte // the next piece, perhaps the last
	spare []byte
	err   error // the error that followed it
}

func (b *withheldEnd) Read(p []byte) (int, error) {
	for len(b.out) == 0 {
		switch {
		case b.err == io.EOF && len(b.ahead) > 0:
			b.out, b.ahead = b.ahead, nil
			continue
		case b.err != nil:
			return 0, b.err
		}
		if b.spare == nil {
			b.spare = make([]byte, BlockBytes)
		}
		var n int
		if n, b.err = b.Body.Read(b.spare); n > 0 {
			b.out, b.ahead, b.spare = b.ahead, b.spare[:n], b.ahead[:cap(b.ahead)]
		}
	}
	n := copy(p, b.out)
	b.out = b.out[n:]
	return n, nil
}
