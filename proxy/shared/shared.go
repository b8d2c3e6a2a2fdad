// Package shared answers what replicas must agree on: has this nonce been used
// before? Its engine is the memory of one process, with a file that a planned stop
// leaves to the next.
package shared
