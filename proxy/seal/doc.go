// Package seal says what of a message is vouched for, and how: signatures over answers
// to clients, signatures towards upstreams and over their answers (RFC 9421), and
// content that is held or verified until its digest (RFC 9530) is known to be right.
//
// It knows keys and messages, and neither routes nor the order of steps.
package seal
