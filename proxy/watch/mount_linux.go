package watch

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mountPoints returns the mount points that this process sees.
func mountPoints() map[string]bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts parses proc_pid_mountinfo(5). The fifth field is the mount point, with octal
// escapes for spaces, tabs, newlines and backslashes. It reads at most 4 MiB.
func parseMounts(r io.Reader) map[string]bool {
	points := map[string]bool{}
	lines := bufio.NewScanner(io.LimitReader(r, 4<<20))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points[unescapeMount(fields[4])] = true
		}
	}
	return points
}

func unescapeMount(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if len(after) >= 3 {
			if n, err := strconv.ParseUint(after[:3], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = after[3:]
				continue
			}
		}
		b.WriteByte('\\')
		s = after
	}
}

// withoutName reports whether no folder has the file any more.
func withoutName(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Nlink == 0
}

// remoteFolder reports whether a folder is on a file system that other machines can change
// without inotify events. statfs(2) lists the numbers.
func remoteFolder(path string) bool {
	var s syscall.Statfs_t
	if syscall.Statfs(path, &s) != nil {
		return false
	}
	switch uint32(s.Type) {
	case 0x6969, // NFS
		0x517b, 0xff534d42, 0xfe534d42, // SMB, CIFS, SMB2
		0x01021997, // 9p, used by virtual machines to share folders
		0x65735546, // FUSE, including virtiofs and sshfs
		0x00c36400, // Ceph
		0x5346414f, // AFS
		0x73757245: // Coda
		return true
	}
	return false
}
