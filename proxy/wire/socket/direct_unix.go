//go:build darwin || freebsd || netbsd || openbsd || dragonfly || (linux && !amd64 && !arm64)

package socket

import "syscall"

const direct, peeking = false, true

func (h *half) read(uintptr) (done bool)  { return true }
func (h *half) write(uintptr) (done bool) { return true }

func (h *half) writeSome(uintptr) (done bool) { return true }
func (h *half) writeOnce(uintptr) (done bool) { return true }

func nothingToRead(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	return err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
}
