package seal

import (
	"io"
	"sync/atomic"

	"sallyport/proxy/message"
)

// Inspector sees content as it passes and decides whether it may end. Write gets it piece
// by piece, in order; its error ends the content there. Check is called at a clean end,
// once. An Inspector serves one content and is not safe for concurrent use. An
// [sallyport/auth/httpsig.Checker] is one: it compares digests.
type Inspector interface {
	io.Writer
	Check() error
}

// AtEnd is an [Inspector] that decides at the end alone.
type AtEnd func() error

// Write never fails.
func (AtEnd) Write(p []byte) (int, error) { return len(p), nil }

// Check calls the function.
func (f AtEnd) Check() error { return f() }

// Verified is content that is inspected on its way: its end (io.EOF) comes only if every
// inspector found it right, else the error says why it is not. Requests and answers
// share it; who forwards it must hold back the last byte until the end has come.
//
// It has one reader; [Verified.Right] may be asked by others.
type Verified struct {
	message.Body
	inspectors []Inspector
	right      atomic.Bool
}

// NewVerified is body as inspectors see it, in their order: one that refuses keeps the
// later ones from being asked.
func NewVerified(body message.Body, inspectors ...Inspector) *Verified {
	return &Verified{Body: body, inspectors: inspectors}
}

// Right says whether the end has come and was right.
func (b *Verified) Right() bool { return b.right.Load() }

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
