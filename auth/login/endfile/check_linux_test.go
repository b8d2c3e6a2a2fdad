package endfile

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sallyport/proxy/setting/settingtest"
)

// withoutLocks runs f and waits for it. To f all file systems are without locks, as some network file
// systems are. f runs on another goroutine: it must not call FailNow.
func withoutLocks(t *testing.T, f func()) {
	t.Helper()
	refuse := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_FLOCK},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOLCK)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(refuse)), Filter: &refuse[0]}
	done, skip := make(chan struct{}), error(nil)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		skip = errors.Join(
			unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
			unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0),
		)
		if skip == nil {
			f()
		}
	}()
	<-done
	if skip != nil {
		t.Skip("this system takes no filter of system calls: ", skip)
	}
}

// A gateway refuses to start where it cannot lock the file, so check must be red there.
func TestCheckFindsAFileSystemWithoutLocks(t *testing.T) {
	for name, exists := range map[string]bool{"a file": true, "a new file": false} {
		d := newDisk(t)
		if exists {
			d.process()
		}
		if err := Check(d.path); err != nil {
			t.Errorf("%s, with locks: %v", name, err)
		}
		withoutLocks(t, func() {
			const want = ": lies on a file system without locks, which processes need to share it; name a file on a local disk, or write off"
			if err := Check(d.path); err == nil || err.Error() != d.path+want {
				t.Errorf("%s: check says %v", name, err)
			}
			if _, err := Open(d.path, Options{Now: d.now, Log: slog.New(slog.DiscardHandler)}); err == nil || err.Error() != d.path+want {
				t.Errorf("%s: opening says %v", name, err)
			}
		})
	}
}

// Who checks leaves nothing behind, and does not wait for a process that writes.
func TestCheckDisturbsNobody(t *testing.T) {
	d := newDisk(t)
	left := func() int {
		t.Helper()
		all, err := os.ReadDir(filepath.Dir(d.path))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if err := Check(d.path); err != nil || left() != 0 {
		t.Errorf("before the first start: %v, and %d files are left", err, left())
	}
	f, _ := d.process()
	d.append(f, numbered(1))
	before := d.text()
	f.disk.Lock()
	err := f.locked(func() error {
		if err := Check(d.path); err != nil {
			t.Errorf("while another process writes: %v", err)
		}
		return nil
	})
	f.disk.Unlock()
	if err != nil || left() != 1 || d.text() != before {
		t.Errorf("after the check: %v, %d files, and the file has %q", err, left(), d.text())
	}
	d.append(f, numbered(2))
}

// A file whose mode forbids writing is a fault before the first end of a session.
func TestCheckFindsWhatCannotBeWritten(t *testing.T) {
	d := newDisk(t)
	d.process()
	if err := os.Chmod(d.path, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(d.path), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(d.path), 0o700) }) // else nobody but root could remove it
	settingtest.AsNobody(t, func() {
		if err := Check(d.path); !errors.Is(err, os.ErrPermission) {
			t.Errorf("the file: %v", err)
		}
		if err := Check(filepath.Join(filepath.Dir(d.path), "new")); !errors.Is(err, os.ErrPermission) {
			t.Errorf("a new file: %v", err)
		}
	})
}
