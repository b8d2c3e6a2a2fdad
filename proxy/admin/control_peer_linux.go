package admin

import (
	"net"
	"syscall"
)

// peerUID returns the user of the process at the other end of a unix connection, as the kernel
// recorded it at connect (SO_PEERCRED, unix(7)). If the kernel reports none, known is true and
// uid is -1, so that the connection is refused.
func peerUID(c net.Conn) (uid int, known bool) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return -1, true
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return -1, true
	}
	uid = -1
	if err := raw.Control(func(fd uintptr) {
		if credentials, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			uid = int(credentials.Uid)
		}
	}); err != nil {
		return -1, true
	}
	return uid, true
}
