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

// settled is the age from which a file's time of modification can be relied on: two writes within
// one tick of the file system's clock (4 ms on ext4, up to 2 s on others) have the same time.
const settled = 3 * time.Second

// maxDigest is the size, in bytes, up to which young files are read: configurations, keys and
// certificates are no larger.
const maxDigest = 1 << 20

// identity is by what a changed file is recognised. The zero identity is that of a file that does
// not exist or cannot be reached.
type identity struct {
	target string      // the path without symbolic links
	info   fs.FileInfo // nil: there is none
	// digest is of the content, where the time of modification says nothing yet: such a file is
	// compared by digest once more.
	digest [sha256.Size]byte
	young  bool // digest counts
}

// identify looks at a file. It reads it only if it is young, or if read is set.
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

// digestOf is the digest of a file's content, of what could be read of it.
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

// same says whether two identities, the older first, are of the same file with the same content.
func (id identity) same(now identity) bool {
	a, b := id.info, now.info
	switch {
	case a == nil || b == nil:
		return a == nil && b == nil
	case id.target != now.target || !os.SameFile(a, b) || a.Mode() != b.Mode():
		return false
	case a.IsDir():
		return true // what is created in it is not its own change
	}
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && (!id.young || id.digest == now.digest)
}

// state is the identity of each watched file, by the path under which it is watched.
type state map[string]identity

// look takes the state of all files and of those that fit the patterns. The caller holds w.mu.
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
		names, _ := filepath.Glob(pattern) // a bad pattern fits nothing
		for _, path := range names {
			enter(path)
		}
	}
	return now
}

// changes are the paths, sorted, whose files are not the same in a later state. One that only one
// of the states knows is among them.
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
