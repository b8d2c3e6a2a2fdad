package setting

import (
	"path/filepath"
	"reflect"
	"slices"
)

// Path is the path of a file that the gateway reads, such as a certificate or a key. The
// content is part of the configuration: [Digest] covers it and [Files] lists it.
//
// The decoder resolves relative paths against the folder of the configuration file. Programs that
// make a Path must resolve it themselves. "" means none.
type Path string

// Source is where the gateway reads something from: a file, or a URL that it fetches. Exactly one of
// them is set. In a document both are plain text, and a URL has "://".
type Source struct {
	File Path
	URL  URL
}

// String returns the path or the URL.
func (s Source) String() string {
	if s.File != "" {
		return string(s.File)
	}
	return s.URL.String()
}

// Place is the path of a file or folder that the gateway writes, or a keyword for another
// destination, such as "off" or "stdout". The content is not part of the configuration: [Digest]
// and [Files] ignore it. Otherwise each audit record would change the configuration. The same
// holds for a file that others write over and over, such as a token that rotates.
//
// The decoder resolves relative paths as for a [Path] and keeps keywords. A file whose name is a
// keyword needs its folder, as in ./off. "" means none.
type Place string

// Word returns the keyword that p is; "" for a path or none. Some keywords are valid in no
// section, so that `file: none` is a fault and not a file called none.
func (p Place) Word() string {
	switch p {
	case "-", "false", "no", "none", "off", "stderr", "stdout":
		return string(p)
	}
	return ""
}

// Check records a fault at path if p is a keyword that the section does not accept. cure says
// how to fix it.
func (p Place) Check(path, cure string, f *Faults, takes ...string) {
	if w := p.Word(); w != "" && !slices.Contains(takes, w) {
		f.Add(path, w, "is not a valid destination here", cure)
	}
}

// Files lists the files that are part of a configuration besides its documents: every [Path],
// and the file of every [Secret], in exported fields at any depth. The list is sorted without
// duplicates. The files need not exist.
func Files(v any) []string {
	var names []string
	addFiles(&names, reflect.ValueOf(v))
	slices.Sort(names)
	return slices.Compact(names)
}

func addFiles(names *[]string, v reflect.Value) {
	if !v.IsValid() {
		return
	}
	switch x := v.Interface().(type) {
	case Path:
		if x != "" {
			*names = append(*names, string(x))
		}
		return
	case Secret:
		if file := x.place().file; file != "" {
			*names = append(*names, file)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			addFiles(names, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				addFiles(names, v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			addFiles(names, v.Index(i))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			addFiles(names, v.MapIndex(k))
		}
	}
}

// Beside returns the path of name in the folder of the document. Absolute names and "" are
// returned unchanged.
func (d *Document) Beside(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(d.File), name)
}

// AsWritten returns a fault of a check with its path value as written in the document, not as
// resolved. f.Path is a location in the document.
func (d *Document) AsWritten(f Fault) Fault {
	if p, ok := d.paths[f.Path]; ok && f.Value == shown(p.resolved) {
		f.Value = shown(p.written)
	}
	return f
}

// writtenPath is a path in a document and its resolved form.
type writtenPath struct{ written, resolved string }

// resolve resolves the path at a location against the folder of the document.
func (d *Document) resolve(at, written string) string {
	resolved := d.Beside(written)
	d.paths[at] = writtenPath{written, resolved}
	return resolved
}

// resolvePlace is like resolve, for a [Place].
func (d *Document) resolvePlace(at string, p Place) Place {
	if p.Word() != "" {
		return p
	}
	resolved := Place(d.resolve(at, string(p)))
	if resolved.Word() != "" { // such as ./off in a document without a folder
		resolved = "./" + resolved
	}
	return resolved
}
