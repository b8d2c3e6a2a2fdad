//go:build unix

package config

import (
	"net"

	"golang.org/x/sys/unix"
)

// bind binds an address and releases it. It does not listen, so nothing can connect.
func bind(to *net.TCPAddr) error {
	all := to.IP == nil || to.IP.IsUnspecified()
	family, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: to.Port}) // every system has it
	switch v4 := to.IP.To4(); {
	case all:
	case v4 != nil:
		address = &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(v4)}
	case to.Zone != "":
		return nil // the interface of the zone may come up later
	default:
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Port: to.Port, Addr: [16]byte(to.IP.To16())}
	}
	s, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.Bind(s, address)
}
