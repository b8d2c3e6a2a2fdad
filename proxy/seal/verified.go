package seal

import (
	"io"
	"sync/atomic"

	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
)

// Verified is content that is verified on its way: its end (io.EOF) comes only if the
// content is what was signed, else the error says why it is not. Requests and answers
// share it; who forwards it must hold back the last byte until the end has come.
//
// It has one reader; [Verified.Right] may be asked by others.
type Verified struct {
	message.Body
	hash  io.Writer    // its writes do not fail
	check func() error // at the end of Body
	right atomic.Bool
}

// NewVerified is body, verified by digests that were signed before it. release, if not
// nil, is asked once they hold: its error comes in place of the end too.
func NewVerified(body message.Body, d httpsig.Digests, release func() error) *Verified {
	checker := d.NewChecker()
	return &Verified{Body: body, hash: checker, check: func() error {
		if err := checker.Check(); err != nil || release == nil {
			return err
		}
		return release()
	}}
}

// Right says whether the end has come and was right.
func (b *Verified) Right() bool { return b.right.Load() }

func (b *Verified) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	_, _ = b.hash.Write(p[:n])
	if err == io.EOF {
		if bad := b.check(); bad != nil {
			return n, bad
		}
		b.right.Store(true)
	}
	return n, err
}

// withoutTrailers is content whose trailers nobody has signed, and so nobody gets.
type withoutTrailers struct{ io.Reader }

func (withoutTrailers) Trailers() message.Fields { return nil }

// WithoutTrailers is content without its trailers.
func WithoutTrailers(r io.Reader) message.Body { return withoutTrailers{r} }

// withheldEnd is content whose last piece comes only after its clean end, so that no
// client receives a complete answer that failed verification.
type withheldEnd struct {
	message.Body
	out   []byte // may be handed out
	ahead []byte // read behind it, perhaps the last
	spare []byte
	err   error // what came behind that
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
