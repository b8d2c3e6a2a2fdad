// Package settingtest helps tests of files that the program may not read or write.
package settingtest

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

// AsNobody runs f and waits for it. If the test runs as root, whom no file mode stops, f runs with
// the file rights of another user, on another goroutine: f must not call FailNow.
func AsNobody(t testing.TB, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); e != 0 {
			t.Error(e)
			return
		}
		f()
	}()
	<-done
}
