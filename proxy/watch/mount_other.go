//go:build !linux

package watch

import "io/fs"

// mountPoints is supported on Linux only.
func mountPoints() map[string]bool { return nil }

// withoutName is supported on Linux only.
func withoutName(fs.FileInfo) bool { return false }

// remoteFolder is supported on Linux only.
func remoteFolder(string) bool { return false }
