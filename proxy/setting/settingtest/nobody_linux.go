// Package settingtest helps tests of files that the program may not read or write.
package settingtest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
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

// RunAsNobody runs the calling test once more, in a process of another user, if the test runs as root,
// whom no file mode stops. It returns whether it did; the caller then returns. Unlike [AsNobody] it also
// serves tests with goroutines of their own.
func RunAsNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	var names []string
	for name := range strings.SplitSeq(t.Name(), "/") {
		names = append(names, "^"+name+"$")
	}
	// The folder of the test's binary may be closed to others; the link leads past it.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run", strings.Join(names, "/"))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as another user: %v\n%s", err, out)
	}
	return true
}
