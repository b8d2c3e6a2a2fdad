package watch

import (
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// settled is the age at which a modification time is reliable. Two writes within one tick of
// the file system's clock (4 ms on ext4, up to 2 s on others) have the same time.
const settled = 3 * time.Second

// maxDigest is the maximum size, in bytes, of young files that are read. Configurations, keys
// and certificates are smaller.
const maxDigest = 1 << 20

// identity is the data by which a change of a file is recognized. The zero identity is that of
// a missing or unreachable file.
type identity struct {
	target string      // the path without symbolic links
	info   fs.FileInfo // nil: the file is missing
	// digest is the digest of a young file's content, because its modification time is not
	// reliable yet.
	digest [sha256.Size]byte
	young  bool // whether digest is valid
}

// identify examines a file. It reads the content only if the file is young or read is set.
func identify(path string, read bool) identity {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return identity{}
	}
	info, err := os.Stat(target)
	if err != nil {
		return identity{}
	}
	id := identity{target: target, info: info}
	id.young = time.Since(info.ModTime()) < settled
	if (id.young || read) && info.Mode().IsRegular() && info.Size() <= maxDigest {
		id.digest = digestOf(target)
	}
	return id
}

// digestOf returns the digest of a file's readable content.
func digestOf(path string) (sum [sha256.Size]byte) {
	f, err := os.Open(path)
	if err != nil {
		return sum
	}
	defer f.Close()
	h := sha256.New()
	_, _ = io.Copy(h, io.LimitReader(f, maxDigest))
	h.Sum(sum[:0])
	return sum
}

// same reports whether two identities, the older first, are of the same file with the same
// content.
func (id identity) same(now identity) bool {
	a, b := id.info, now.info
	switch {
	case a == nil || b == nil:
		return a == nil && b == nil
	case id.target != now.target || !os.SameFile(a, b) || a.Mode() != b.Mode():
		return false
	case a.IsDir():
		return true // changes inside a folder do not count
	}
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && (!id.young || id.digest == now.digest)
}

// state maps each watched path to its identity.
type state map[string]identity

// look returns the state of all files and of those that match the patterns. The caller holds
// w.mu.
func (w *Watch) look() state {
	now := make(state, len(w.files))
	enter := func(path string) {
		if _, seen := now[path]; !seen && len(now) < maxFiles {
			now[path] = identify(path, w.last[path].young)
		}
	}
	for _, path := range w.files {
		enter(path)
	}
	for _, pattern := range w.globs {
		names, _ := filepath.Glob(pattern) // a malformed pattern matches nothing
		for _, path := range names {
			enter(path)
		}
	}
	return now
}

// changes returns the sorted paths whose files differ in a later state, including those that
// are in only one of the states.
func (s state) changes(later state) []string {
	var paths []string
	for path, id := range later {
		if before, known := s[path]; !known || !before.same(id) {
			paths = append(paths, path)
		}
	}
	for path := range s {
		if _, known := later[path]; !known {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}
