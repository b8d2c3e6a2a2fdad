//go:build !linux

package watch

// mountPoints are not known here.
func mountPoints() map[string]bool { return nil }

// remoteFolder is not known here.
func remoteFolder(string) bool { return false }
