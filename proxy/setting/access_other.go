//go:build !unix

package setting

// mayWrite returns nil: on this system only an attempt shows whether the program can write.
func mayWrite(string, bool) error { return nil }
