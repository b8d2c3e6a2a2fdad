package watch

import (
	"path/filepath"
	"strings"
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
	if MountedAlone(file) || MountedAlone("/") || MountedAlone("/proc") {
		t.Error("a plain file or a folder counts as a single-file mount")
	}
}
