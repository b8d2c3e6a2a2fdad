package watch

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is the maximum length of a chain of symbolic links, as in the kernel.
const maxLinks = 40

// places are the folders, and the names in them, whose changes may affect watched files.
type places struct {
	folders  map[string]bool // paths without symbolic links
	names    map[string]bool // of files, links and missing folders, in any of the folders
	patterns map[string]bool // patterns of such names
	resolved map[string]string
}

// placesOf follows every file and pattern through all symbolic links. The paths are absolute.
func placesOf(files, globs []string) *places {
	p := &places{folders: map[string]bool{}, names: map[string]bool{}, patterns: map[string]bool{}, resolved: map[string]string{}}
	for _, path := range files[:min(len(files), maxFiles)] {
		p.file(path, maxLinks)
	}
	for _, pattern := range globs {
		p.glob(pattern)
	}
	return p
}

// enter records a name in a folder. Beyond maxFolders, files are polled.
func (p *places) enter(dir, name string) {
	if len(p.folders) < maxFolders {
		p.folders[dir] = true
	}
	p.names[name] = true
}

// file records the places of a file, which may be missing. links is the number of links left.
func (p *places) file(path string, links int) {
	dir, ok := p.folder(filepath.Dir(path), links)
	if !ok {
		return
	}
	name := filepath.Base(path)
	p.enter(dir, name)
	if target, ok := readLink(dir, name); ok && links > 0 {
		p.file(target, links-1)
	}
}

// folder returns the path of a folder without symbolic links. It records the links on the way
// and, if the folder is missing, the place where it would appear.
func (p *places) folder(path string, links int) (dir string, ok bool) {
	if dir, seen := p.resolved[path]; seen {
		return dir, dir != ""
	}
	defer func() { p.resolved[path] = dir }()
	if filepath.Dir(path) == path {
		return path, true
	}
	parent, ok := p.folder(filepath.Dir(path), links)
	if !ok {
		return "", false
	}
	name := filepath.Base(path)
	if target, ok := readLink(parent, name); ok {
		p.enter(parent, name)
		if links == 0 {
			return "", false
		}
		return p.folder(target, links-1)
	}
	full := filepath.Join(parent, name)
	if info, err := os.Stat(full); err != nil || !info.IsDir() {
		p.enter(parent, name)
		return "", false
	}
	return full, true
}

// readLink returns the absolute target of a symbolic link.
func readLink(dir, name string) (target string, ok bool) {
	full := filepath.Join(dir, name)
	info, err := os.Lstat(full)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return "", false
	}
	target, err = os.Readlink(full)
	if err != nil {
		return "", false
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return target, true
}

// glob records the places of all files that match a pattern, and of those that may appear.
func (p *places) glob(pattern string) {
	volume := filepath.VolumeName(pattern)
	parts := strings.Split(strings.TrimPrefix(pattern[len(volume):], string(filepath.Separator)), string(filepath.Separator))
	dirs := []string{volume + string(filepath.Separator)}
	for i, part := range parts {
		wild, final := strings.ContainsAny(part, `*?[\`), i == len(parts)-1
		var next []string
		for _, d := range dirs {
			if !wild && !final {
				next = append(next, filepath.Join(d, part))
				continue
			}
			dir, ok := p.folder(d, maxLinks)
			if !ok {
				continue
			}
			p.enter(dir, part)
			p.patterns[part] = true
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if fits, _ := filepath.Match(part, e.Name()); fits && len(next) < maxFiles {
					next = append(next, filepath.Join(d, e.Name()))
				}
			}
		}
		dirs = next
	}
	for _, path := range dirs {
		p.file(path, maxLinks)
	}
}

// concerns reports whether an event for path may be a change of a watched file. It compares the
// last element only, because the kernel may know the folder under another path.
func (p *places) concerns(path string) bool {
	name := filepath.Base(path)
	if p.folders[path] || p.names[name] {
		return true
	}
	for pattern := range p.patterns {
		if fits, _ := filepath.Match(pattern, name); fits {
			return true
		}
	}
	return false
}
