// Package httpsig answers: was this message signed by the holder of this key, and
// is its content what was signed? It implements HTTP Message Signatures (RFC 9421)
// with hmac-sha256 and ed25519, and Content-Digest (RFC 9530).
//
// It knows nothing of gateways: a [Message] is a struct over an interface for
// field lines, so that servers of any kind, and clients, can use it.
//
//   - A [Verifier] has a policy and finds keys; [Verifier.Verify] says which key
//     signed what. It reads no content, so that it can refuse before a byte of it
//     is accepted.
//   - Digests are checked as the content arrives: [ParseContentDigest], then a
//     [DigestReader] or a [Checker]. A signature that covers Content-Digest proves
//     nothing about the content until its digest has been compared.
//   - A [Signer] makes signatures of one shape with any key.
//   - A [Transport] signs the requests of a Go client and verifies the answers.
//
// # Order
//
// Verify works in an order that gives nothing away and does nothing for free:
// bounds, parsing, selection by tag, time, coverage, authority, and only then the
// key and its signature. What needs no key comes before the key is looked up, and
// with an unknown one the same work is done, so that neither answers nor times
// tell which keys exist. The caller claims the nonce only after Verify has
// succeeded and the request is admitted, and reads the content after that.
//
// # Strictness
//
// Structured fields are read strictly: keys or parameters given twice, a second
// line of Signature-Input, Signature or Content-Digest, base64 that is not
// canonical and identifiers that are not known are refused. What is signed is the
// canonical form that was parsed, never raw text.
//
// # Directions
//
// A signature for one purpose must not pass for another. Each has a tag of its
// own, and requests and responses must cover different things: @status can be in
// no request, and @method without ;req in no response. The profiles of sallyport
// are in [RequestProfile], [ForwardProfile], [ResponseProfile] and their policies.
package httpsig
