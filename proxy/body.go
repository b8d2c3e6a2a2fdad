package proxy

import (
	"errors"
	"io"
	"sync/atomic"

	"sallyport/proxy/message"
)

// countedBody is the client's body on its way to the upstream: counted against
// the route's limit while it streams, with a bound on how long it may pause.
// What is wrong with it is the client's fault and comes out as a [refusal].
type countedBody struct {
	src   message.Body
	limit int64 // in bytes; zero: none
	n     atomic.Int64
	wait  untilIdle
}

func (b *countedBody) Read(p []byte) (int, error) {
	if err := b.wait.extend(); err != nil {
		return 0, errClientGone(err)
	}
	n, err := b.src.Read(p)
	total := b.n.Add(int64(n))
	switch {
	case b.limit > 0 && total > b.limit:
		return 0, &refusal{reason: reasonBodyTooLarge, cause: errTooLarge}
	case err == io.EOF:
		b.wait.lift()
		return n, err
	case err == nil:
		return n, nil
	case timedOut(err):
		return n, &refusal{reason: reasonBodyTimeout, cause: err}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, errClientGone(err)
	}
	return n, &refusal{reason: reasonBadBody, cause: err}
}

func (b *countedBody) Trailers() message.Fields { return b.src.Trailers() }
