//go:build unix

package audit

import (
	"os"
	"syscall"
)

// deleted reports whether no folder lists an open file.
func deleted(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0
}
