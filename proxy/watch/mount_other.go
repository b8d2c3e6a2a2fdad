//go:build !linux

package watch

// mountPoints is supported on Linux only.
func mountPoints() map[string]bool { return nil }

// remoteFolder is supported on Linux only.
func remoteFolder(string) bool { return false }
