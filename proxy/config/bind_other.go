//go:build !unix

package config

import "net"

// bind would take an address and give it back; here it is taken when the gateway starts.
func bind(*net.TCPAddr) error { return nil }
