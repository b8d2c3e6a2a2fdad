//go:build amd64 || arm64

package socket

import (
	"syscall"
	"unsafe"
)

const direct, peeking = true, true

// read, write and nothingToRead run while package net keeps the descriptor open and p is reachable
// from h. The calls do not block: Go opens all sockets in non-blocking mode.

func (h *half) read(fd uintptr) (done bool) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(h.p))), uintptr(len(h.p)))
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		case 0:
			h.n = int(n)
		}
		h.errno = errno
		return true
	}
}

func (h *half) write(fd uintptr) (done bool) {
	for len(h.p) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(h.p))), uintptr(len(h.p)))
		switch errno {
		case 0:
			h.p = h.p[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			h.errno = errno
			return true
		}
	}
	return true
}

func (h *half) writeSome(fd uintptr) (done bool) {
	return h.write(fd) || len(h.p) <= h.goal
}

func (h *half) writeOnce(fd uintptr) (done bool) {
	h.write(fd)
	return true
}

func nothingToRead(fd uintptr) bool {
	var b [1]byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1, syscall.MSG_PEEK, 0, 0)
	return errno == syscall.EAGAIN
}
