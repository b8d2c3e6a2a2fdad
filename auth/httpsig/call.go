package httpsig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// callType is the media type of gRPC. Libraries hide the field from their users, so both
// sides of a signature use this value for an answer without messages.
const callType = "application/grpc"

// Calls signs gRPC calls and verifies their ends, for any gRPC library: metadata and
// messages pass through its user. It is safe for concurrent use; its fields must not
// change after the first call.
//
// What is signed are the bytes on the wire. Neither side may compress messages, and the
// library must not repeat a call with the same metadata.
type Calls struct {
	Key       *Key   // signs requests; required
	Authority string // as the library sends it in :authority; required
	Scheme    string // "https" if empty

	// Cover are the lower-case names of further metadata to sign if a call has them.
	Cover []string

	// ResponseKey looks up the keys that sign answers. If nil, only Key is accepted.
	ResponseKey func(id string) *Key

	// AcceptUnsigned accepts ends of calls without a sallyport signature. A signature
	// that is present must verify.
	AcceptUnsigned bool

	Now func() time.Time // time.Now if nil

	once   sync.Once
	fault  error
	signer *Signer   // covers the content
	bare   *Signer   // does not
	whole  *Verifier // of answers without messages, which have one block of fields
	tail   *Verifier // of all others
}

func (c *Calls) prepare() {
	if c.fault = needsKey(c.Key); c.fault != nil {
		return
	}
	if c.Authority == "" {
		c.fault = errors.New("signed calls need the authority that they are sent to")
		return
	}
	profile := RequestProfile()
	profile.IfPresent = append(profile.IfPresent, c.Cover...)
	if c.signer, c.fault = NewSigner(profile, c.Now); c.fault != nil {
		return
	}
	profile.Cover = []string{"@method", "@authority", "@path", "@query"}
	if c.bare, c.fault = NewSigner(profile, c.Now); c.fault != nil {
		return
	}
	whole, tail := ResponsePolicy(), TailPolicy()
	whole.Require = append(whole.Require, "grpc-status")
	tail.Require = append(tail.Require, "grpc-status;tr")
	c.fault = newVerifiers(responseOptions(c.Key, c.ResponseKey, c.Now), map[**Verifier]Policy{&c.whole: whole, &c.tail: tail})
}

// Call is one signed call. It is not safe for concurrent use.
type Call struct {
	of       *Calls
	request  Message
	fields   Lines
	nonce    string
	digester *Digester
}

// Sign signs a call with one request message, as serialized. method is the path, such as
// /package.Service/Method, and contentType the field that the library will send. It
// returns the metadata to send besides the given.
func (c *Calls) Sign(method, contentType string, metadata Lines, message []byte) (*Call, Lines, error) {
	d := NewDigester()
	writeFrame(d, message)
	return c.sign(method, contentType, metadata, Lines{{"content-digest", d.Value()}})
}

// SignHead signs a call whose request messages are not known yet. Nothing vouches for
// them, and the gateway refuses such a call unless its route allows it.
func (c *Calls) SignHead(method, contentType string, metadata Lines) (*Call, Lines, error) {
	return c.sign(method, contentType, metadata, nil)
}

func (c *Calls) sign(method, contentType string, metadata, added Lines) (*Call, Lines, error) {
	if c.once.Do(c.prepare); c.fault != nil {
		return nil, nil, c.fault
	}
	call := &Call{of: c, digester: NewDigester()}
	call.fields = append(append(call.fields, metadata...), Line{"content-type", contentType})
	call.fields = append(call.fields, added...)
	call.request = Message{Method: "POST", Scheme: c.Scheme, Authority: c.Authority, Path: method, Fields: &call.fields}
	if c.Scheme == "" {
		call.request.Scheme = "https"
	}
	signer := c.signer
	if added == nil {
		signer = c.bare
	}
	s, err := signer.Sign(c.Key, &call.request, "")
	if err != nil {
		return nil, nil, fmt.Errorf("signing the call: %w", err)
	}
	call.nonce = s.Nonce
	return call, append(added, Line{"signature-input", s.Input}, Line{"signature", s.Signature}), nil
}

// writeFrame writes a message to a digester as it is sent: uncompressed, and after its
// length.
func writeFrame(d *Digester, message []byte) {
	var prefix [5]byte
	binary.BigEndian.PutUint32(prefix[1:], uint32(len(message)))
	_, _ = d.Write(prefix[:])
	_, _ = d.Write(message)
}

// Received notes the next message of the answer, as serialized. Do not act on it before
// Verify has returned nil.
func (c *Call) Received(message []byte) { writeFrame(c.digester, message) }

// Verify verifies the end of a call: its status, its model, and all messages received.
// header and trailer are the metadata of the answer. The text and the details of a status
// are not signed. The error wraps an [*Error] if the end is not what was signed.
//
// A library makes some statuses itself when a call breaks off. Without a signature Verify
// returns nil for those too, since they claim nothing about the server.
func (c *Call) Verify(status uint32, header, trailer Lines) error {
	code := Line{"grpc-status", strconv.FormatUint(uint64(status), 10)}
	trailer = append(trailer[:len(trailer):len(trailer)], code)
	m := &Message{Status: 200, Fields: header, Trailers: trailer, Request: &c.request}
	from := Fields(trailer)
	_, err := c.of.tail.VerifyResponse(m, c.nonce, true)
	if _, headed := header.Line("signature-input", 0); !headed && is(err, Coverage) {
		// An answer without messages has one block of fields. Libraries report it as trailers.
		block := append(header[:len(header):len(header)], trailer...)
		if _, shown := block.Line("content-type", 0); !shown {
			block = append(block, Line{"content-type", callType})
		}
		from, m.Fields, m.Trailers = block, block, nil
		_, err = c.of.whole.VerifyResponse(m, c.nonce, false)
	}
	switch {
	case is(err, Missing) && (c.of.AcceptUnsigned || madeByLibraries(status)):
		return nil
	case err != nil:
		return fmt.Errorf("verifying the end of the call: %w", err)
	}
	want, err := ParseContentDigest(from)
	if err != nil {
		return fmt.Errorf("verifying the end of the call: %w", err)
	}
	if got, err := ParseContentDigest(Lines{{"content-digest", c.digester.Value()}}); err != nil || got != want {
		return fmt.Errorf("verifying the content of the answer: %w", fault(DigestMismatch, ""))
	}
	return nil
}

// madeByLibraries reports whether gRPC libraries make a status themselves for a call that
// broke off: CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL and
// UNAVAILABLE.
func madeByLibraries(status uint32) bool {
	switch status {
	case 1, 2, 4, 8, 13, 14:
		return true
	}
	return false
}
