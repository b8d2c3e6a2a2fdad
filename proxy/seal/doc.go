// Package seal signs and verifies messages. It signs answers to clients and requests to upstreams,
// and verifies the answers of upstreams (RFC 9421). It withholds content until its digest (RFC
// 9530) is verified.
//
// It knows keys and messages, but neither routes nor the order of steps.
package seal
