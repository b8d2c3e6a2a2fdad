//go:build !linux

package settingtest

import (
	"os"
	"testing"
)

// RunAsNobody skips the test if it runs as root, whom no file mode stops. Otherwise it returns false.
func RunAsNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("root may do everything")
	}
	return false
}
