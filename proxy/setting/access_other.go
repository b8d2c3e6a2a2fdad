//go:build !unix

package setting

// mayWrite would be an error if the program could not write; here that is known only when
// it tries.
func mayWrite(string, bool) error { return nil }
