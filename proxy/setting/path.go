package setting

import (
	"path/filepath"
	"reflect"
	"slices"
)

// Path is the path of a file that the gateway reads: a certificate, a list of roots,
// a public key. Its content belongs to the configuration, so it counts in [Digest]
// and is listed by [Files].
//
// The decoder resolves a relative path against the folder of the file that it stands
// in. A program that makes a Path itself resolves it itself. "" means that none was
// given.
type Path string

// Place is the path of a file or folder that the gateway writes, or a word such as
// "off" or "stdout" that says where else its content goes. What is written there does
// not belong to the configuration: neither [Digest] nor [Files] looks at it, or each
// audit record would count as a change of the configuration.
//
// The decoder resolves a relative path as it does a [Path], and leaves words alone. A
// file that is named like a word is written with its folder, as ./off. "" means that
// none was given.
type Place string

// Word is the word that p is; "" if p is a path or was not given. There are more words
// than any section takes, so that `file: none` is a fault and not a file called none.
func (p Place) Word() string {
	switch p {
	case "-", "false", "no", "none", "off", "stderr", "stdout":
		return string(p)
	}
	return ""
}

// Check records a fault at path if p is a word other than those that the section takes.
// cure says what would do.
func (p Place) Check(path, cure string, f *Faults, takes ...string) {
	if w := p.Word(); w != "" && !slices.Contains(takes, w) {
		f.Add(path, w, "is not a place for this", cure)
	}
}

// Files lists the files that a decoded configuration is made of besides the documents
// themselves: every [Path], and the file of every [Secret], in exported fields at any
// depth. They are sorted and each is named once. A file need not exist.
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

// Beside is the path of a file or folder called name in the folder of the document. An
// absolute name stays what it is, and "" stays "".
func (d *Document) Beside(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(d.File), name)
}

// AsWritten is a fault that a check of the decoded value has found, with the path that
// its value shows as it was written in the document, not as it was resolved. f.Path is
// a place in the document.
func (d *Document) AsWritten(f Fault) Fault {
	if p, ok := d.paths[f.Path]; ok && f.Value == shown(p.resolved) {
		f.Value = shown(p.written)
	}
	return f
}

// writtenPath is a path as it stands in a document, and what it was resolved to.
type writtenPath struct{ written, resolved string }

// resolve makes the path that was decoded at a place of the document count from its
// folder.
func (d *Document) resolve(at, written string) string {
	resolved := d.Beside(written)
	d.paths[at] = writtenPath{written, resolved}
	return resolved
}

// resolvePlace is resolve for a [Place].
func (d *Document) resolvePlace(at string, p Place) Place {
	if p.Word() != "" {
		return p
	}
	resolved := Place(d.resolve(at, string(p)))
	if resolved.Word() != "" { // ./off beside a document without a folder
		resolved = "./" + resolved
	}
	return resolved
}
