package endfile

import (
	"errors"
	"os"
	"testing"

	"sallyport/proxy/setting/settingtest"
)

// A file of another user could have been written by that user.
func TestFileOfAnotherUserIsNotTrusted(t *testing.T) {
	if settingtest.RunAsNobody(t) {
		return
	}
	if err := Check("/etc/passwd"); !errors.Is(err, errOwner) {
		t.Errorf("got %v", err)
	}
	d := newDisk(t)
	d.process()
	if err := Check(d.path); err != nil {
		t.Error(err)
	}
}

// Root may check a service's file, but not one that anybody could have put there.
func TestRootTrustsNoFileInAFolderForAll(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to another user")
	}
	d := newDisk(t)
	d.write("")
	if err := os.Chown(d.path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := Check(d.path); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(d.path[:len(d.path)-len("/ends")], 0o1777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(d.path, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := Check(d.path); err != nil { // as in a container
		t.Error(err)
	}
	if err := os.Chown(d.path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	var fault *Fault
	if err := Check(d.path); !errors.As(err, &fault) || fault.Err != errFolder || fault.Cure() == "" {
		t.Errorf("got %v", err)
	}
}
