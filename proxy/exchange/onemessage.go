package exchange

import (
	"encoding/binary"
	"errors"
)

// oneMessage inspects a gRPC request that is verified while it is forwarded. A server may act on a
// message once it is whole, whatever follows, so a second message must not begin before the end is
// verified. The zero oneMessage is ready for use. It implements [seal.Inspector].
type oneMessage struct {
	prefix [5]byte
	n      int   // bytes of the prefix that have come
	left   int64 // bytes of the message still to come
}

var errSecondMessage = errors.New("a second message in a signed call whose content is verified on its way (integrity.body)")

// Write refuses bytes behind the first message.
func (o *oneMessage) Write(p []byte) (int, error) {
	size := len(p)
	if o.n < len(o.prefix) && size > 0 {
		n := copy(o.prefix[o.n:], p)
		o.n, p = o.n+n, p[n:]
		if o.n == len(o.prefix) {
			o.left = int64(binary.BigEndian.Uint32(o.prefix[1:]))
		}
	}
	if int64(len(p)) > o.left {
		return 0, &refusal{reason: reasonBadCall, cause: errSecondMessage}
	}
	o.left -= int64(len(p))
	return size, nil
}

// Check accepts every end: the digest tells a message cut short.
func (*oneMessage) Check() error { return nil }
