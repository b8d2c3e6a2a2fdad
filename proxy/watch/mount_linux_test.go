package watch

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestMountsAreParsed(t *testing.T) {
	points := parseMounts(strings.NewReader(`22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
98 22 254:1 /srv/gateway.yaml /etc/sallyport/gateway.yaml rw,relatime - ext4 /dev/vda1 rw
99 22 254:1 /x /a\040folder/with\134slash ro - ext4 /dev/vda1 rw
short line
`))
	for _, path := range []string{"/", "/etc/sallyport/gateway.yaml", `/a folder/with\slash`} {
		if !points[path] {
			t.Errorf("%s is missing in %v", path, points)
		}
	}
	if len(points) != 3 {
		t.Errorf("got %v, want three", points)
	}
}

func TestPlainFileIsNotMountedAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, file, "text")
	if alone := MountedAlone([]string{file, "/", "/proc", file + ".none"}); len(alone) != 0 {
		t.Errorf("single-file mounts are %v", alone)
	}
}

// TestMountOfAReplacedFileIsRecognized mounts a file over another one, and then replaces the first
// as editors do.
func TestMountOfAReplacedFileIsRecognized(t *testing.T) {
	dir := t.TempDir()
	at, from, next := filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "from.yaml"), filepath.Join(dir, "next.yaml")
	for _, file := range []string{at, from, next} {
		write(t, file, file)
	}
	if err := syscall.Mount(from, at, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("this user may not mount: ", err)
	}
	defer func() { must(t, syscall.Unmount(at, 0)) }()
	if got, want := MountedAlone([]string{from, at}), (Mount{File: at, Path: at}); len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %v", got, want)
	}
	must(t, os.Rename(next, from))
	if got, want := MountedAlone([]string{at}), (Mount{File: at, Path: at, Gone: true}); len(got) != 1 || got[0] != want {
		t.Errorf("after the mounted file was replaced: got %v, want %v", got, want)
	}
}
