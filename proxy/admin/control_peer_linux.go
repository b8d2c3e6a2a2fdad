package admin

import (
	"net"
	"syscall"
)

// peerUID tells the user of the process at the other end of a unix connection, as the kernel saw
// it when it connected (SO_PEERCRED, unix(7)). A connection of which the kernel does not tell is
// nobody's: known is true and uid is no user's.
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
