package watch

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mountPoints are the paths on which something is mounted, as this process sees them.
func mountPoints() map[string]bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads proc_pid_mountinfo(5): the fifth field is the mount point, with spaces, tabs,
// line ends and backslashes as octal escapes. It reads 4 MiB at most.
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

// remoteFolder says whether a folder is on a file system that others change without inotify
// telling of it (statfs(2) lists the numbers).
func remoteFolder(path string) bool {
	var s syscall.Statfs_t
	if syscall.Statfs(path, &s) != nil {
		return false
	}
	switch uint32(s.Type) {
	case 0x6969, // NFS
		0x517b, 0xff534d42, 0xfe534d42, // SMB, CIFS, SMB2
		0x01021997, // 9p, with which virtual machines share folders
		0x65735546, // FUSE, virtiofs and sshfs among them
		0x00c36400, // Ceph
		0x5346414f, // AFS
		0x73757245: // Coda
		return true
	}
	return false
}
