//go:build !unix

package admin

// LockFolder does nothing on this system: two callers must not act at the same moment.
func LockFolder(string) (unlock func(), err error) { return func() {}, nil }
