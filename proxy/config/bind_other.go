//go:build !unix

package config

import "net"

// bind returns nil: on this system only the start of the gateway shows whether it can listen.
func bind(*net.TCPAddr) error { return nil }
