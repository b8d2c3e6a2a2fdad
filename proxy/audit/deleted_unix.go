//go:build unix

package audit

import (
	"os"
	"syscall"
)

// deleted reports whether an open file has no name in any folder.
func deleted(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0
}
