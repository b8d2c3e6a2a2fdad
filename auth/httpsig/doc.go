// Package httpsig signs and verifies HTTP messages. It implements HTTP Message
// Signatures (RFC 9421) with hmac-sha256 and ed25519, and Content-Digest (RFC 9530).
//
// It does not depend on the gateway: a [Message] is a struct over an interface for
// field lines, so that any server or client can use it.
//
//   - A [Verifier] has a policy and looks up keys. [Verifier.Verify] returns the
//     verified signature. It reads no content, so it can refuse a message before its
//     content arrives.
//   - [ParseContentDigest] with a [DigestReader] or a [Checker] verifies the content
//     as it arrives. A signature that covers Content-Digest proves nothing about the
//     content until its digest has been compared.
//   - A [Signer] makes signatures with one [Profile] and any key.
//   - A [Transport] signs the requests of a Go client and verifies the responses.
//   - [Calls] do the same for the calls of a gRPC library, which they do not import.
//
// # Order
//
// Verify checks in this order: bounds, syntax, tag, time, coverage, authority, and only
// then the key and the signature. Cheap checks that need no key come first. With an
// unknown key it does the same work as with a known one, so that neither the response
// nor its timing reveals which keys exist. The caller claims the nonce only after Verify
// has succeeded and the request is admitted, and reads the content after that.
//
// # Strictness
//
// Structured fields are parsed strictly. Duplicate keys or parameters, a second line of
// Signature-Input, Signature or Content-Digest, non-canonical base64 and unknown
// component identifiers are refused. The signature base is built from the canonical form
// of the parsed fields, never from raw text.
//
// # Directions
//
// A signature for one purpose must not be accepted for another. Each purpose has its own
// tag, and requests and responses must cover different components: no request has
// @status, and no response has @method without ;req. The profiles of sallyport are
// [RequestProfile], [ForwardProfile], [ResponseProfile] and their policies.
package httpsig
