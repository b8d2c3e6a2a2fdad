package setting

import (
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	maxDepth   = 40     // maximum nesting
	maxAliased = 10_000 // maximum number of values reached through aliases
	maxItems   = 10_000 // maximum length of a list, since checks compare items with one another
)

// decoder decodes the nodes of one document into a Go value.
type decoder struct {
	doc    *Document
	faults Faults

	aliased int // values reached through an alias
	within  int // nesting depth of aliases
	bomb    bool
}

func (d *decoder) fault(path string, line int, value, problem, cure string) {
	d.doc.bad[path] = true
	d.faults.add(Fault{File: d.doc.File, Line: min(max(line, 1), d.doc.end), Path: path, Value: shown(value), Problem: problem, Cure: cure})
}

func (d *decoder) root(n *yaml.Node, into any) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.fault("", 1, "", "the file is empty", "sallyport init prints a first one")
		return
	}
	d.value(n, "", reflect.ValueOf(into).Elem(), 0)
}

// value decodes n into v, which must be settable.
func (d *decoder) value(n *yaml.Node, path string, v reflect.Value, depth int) {
	line := n.Line
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		d.within++
		defer func() { d.within-- }()
	}
	if d.within > 0 {
		d.aliased++
	}
	if depth > maxDepth || d.aliased > maxAliased {
		if !d.bomb {
			d.bomb = true
			d.doc.bad[""] = true // otherwise the skipped values would be reported as missing
			d.fault(path, line, "", "values are nested too deeply, or aliases expand to too many values", "write the values out")
		}
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.fault(path, line, "", "the value is missing", orRemove(v.Type()))
		return
	}
	if tag := n.Tag; strings.HasPrefix(tag, "!") && !plainTag(tag) {
		d.fault(path, line, "", "a value with the tag "+shown(tag), "remove the tag")
		return
	}
	d.typed(n, path, v, depth, line)
}

// plainTag reports whether the parser itself assigns the tag to values.
func plainTag(tag string) bool {
	switch tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!seq", "!!map", "!!timestamp", "!!null", "!!merge":
		return true
	}
	return false
}

func (d *decoder) typed(n *yaml.Node, path string, v reflect.Value, depth, line int) {
	switch p := v.Addr().Interface().(type) {
	case *Secret:
		d.secret(n, path, p, line)
		return
	case *Path:
		d.scalar(n, path, v, line)
		*p = Path(d.doc.resolve(path, string(*p)))
		return
	case *Place:
		d.scalar(n, path, v, line)
		*p = d.doc.resolvePlace(path, *p)
		return
	case *Source:
		d.source(n, path, p, line)
		return
	case Forms:
		d.form(n, path, p, v.Type(), depth, line)
		return
	case encoding.TextUnmarshaler:
		d.text(n, path, p, v.Type(), line)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.typed(n, path, v.Elem(), depth, line)
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			d.wrong(n, path, v.Type(), line)
			return
		}
		d.structure(n, path, v, depth)
	case reflect.Map:
		d.table(n, path, v, depth, line)
	case reflect.Slice:
		d.list(n, path, v, depth, line)
	case reflect.Interface:
		v.Set(reflect.ValueOf(d.anything(n, path, depth, line)))
	default:
		d.scalar(n, path, v, line)
	}
}

// anything decodes a value of unknown type, for sections known by name only.
func (d *decoder) anything(n *yaml.Node, path string, depth, line int) any {
	switch n.Kind {
	case yaml.MappingNode:
		var m map[string]any
		d.table(n, path, reflect.ValueOf(&m).Elem(), depth, line)
		return m
	case yaml.SequenceNode:
		var l []any
		d.list(n, path, reflect.ValueOf(&l).Elem(), depth, line)
		return l
	}
	return n.Value
}

// wrong records a value of the wrong type.
func (d *decoder) wrong(n *yaml.Node, path string, t reflect.Type, line int) {
	value := ""
	if n.Kind == yaml.ScalarNode {
		value = written(n)
	}
	d.fault(path, line, value, "want "+want(t)+", found "+found(n), cureFor(n, t))
}

// written returns the text of a scalar as faults show it.
func written(n *yaml.Node) string {
	if n.Value == "" {
		return `""`
	}
	return n.Value
}

func (d *decoder) secret(n *yaml.Node, path string, s *Secret, line int) {
	const cure = "write {file: PATH} or {env: NAME}"
	if n.Kind != yaml.MappingNode {
		d.fault(path, line, Redacted, "a secret must not be written in this file", cure)
		return
	}
	var place struct {
		File Path   `yaml:"file"`
		Env  string `yaml:"env"`
	}
	before := len(d.faults)
	d.structure(n, path, reflect.ValueOf(&place).Elem(), 0)
	for i := before; i < len(d.faults); i++ {
		if d.faults[i].Value != "" {
			d.faults[i].Value = Redacted
		}
	}
	switch {
	case len(d.faults) > before:
	case (place.File == "") == (place.Env == ""):
		d.fault(path, line, "", "a secret needs either file or env", cure)
	default:
		*s = secretAt(secretPlace{file: string(place.File), env: place.Env})
	}
}

func (d *decoder) source(n *yaml.Node, path string, s *Source, line int) {
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "://") {
		d.text(n, path, &s.URL, reflect.TypeFor[Source](), line)
		return
	}
	d.scalar(n, path, reflect.ValueOf(&s.File).Elem(), line)
	s.File = Path(d.doc.resolve(path, string(s.File)))
}

func (d *decoder) form(n *yaml.Node, path string, p Forms, t reflect.Type, depth, line int) {
	shape := Scalar
	switch n.Kind {
	case yaml.SequenceNode:
		shape = Sequence
	case yaml.MappingNode:
		shape = Mapping
	}
	into := p.Form(shape)
	if into == nil {
		d.wrong(n, path, t, line)
		return
	}
	d.typed(n, path, reflect.ValueOf(into).Elem(), depth, line)
}

func (d *decoder) text(n *yaml.Node, path string, p encoding.TextUnmarshaler, t reflect.Type, line int) {
	if n.Kind != yaml.ScalarNode {
		d.wrong(n, path, t, line)
		return
	}
	if err := p.UnmarshalText([]byte(n.Value)); err != nil {
		problem, cure, _ := strings.Cut(err.Error(), "; ")
		d.fault(path, line, written(n), problem, cure)
	}
}

// structure decodes a mapping into a struct by the names in its yaml tags.
func (d *decoder) structure(n *yaml.Node, path string, v reflect.Value, depth int) {
	fields := fieldsOf(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, at, ok := d.key(n.Content[i], path, seen)
		if !ok {
			continue
		}
		index, known := fields[name]
		if !known {
			d.unknown(n.Content[i], path, at, v.Type(), fields)
			continue
		}
		d.value(n.Content[i+1], at, v.FieldByIndex(index), depth+1)
	}
}

// unknown records an unknown field. It omits the value, which may be a misplaced secret.
func (d *decoder) unknown(key *yaml.Node, path, at string, t reflect.Type, fields map[string][]int) {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	cure := "known fields: " + enumerate(names)
	if near := Nearest(key.Value, names); near != "" {
		cure = "did you mean " + near + "?"
		d.doc.bad[Join(path, near)] = true
	} else if inner := deeper(key.Value, t); inner != "" {
		cure = "did you mean " + inner + "?"
		d.doc.bad[Join(path, inner)] = true
	} else if misplaced, ok := reflect.New(t).Interface().(Misplaced); ok && misplaced.CureMisplaced(key.Value) != "" {
		cure = misplaced.CureMisplaced(key.Value)
	} else if outer := holders(key.Value, t); len(outer) > 0 {
		cure = "it belongs in an entry of " + strings.Join(outer, " or ") + ": indent it as that"
	}
	d.fault(at, key.Line, "", "unknown field", cure)
}

// holders returns the fields of t whose entries have a field of this name, such as routes for
// `callers`.
func holders(name string, t reflect.Type) []string {
	var all []string
	fields := fieldsOf(t)
	for _, outer := range slices.Sorted(maps.Keys(fields)) {
		ft := t.FieldByIndex(fields[outer]).Type
		if ft.Kind() != reflect.Slice && ft.Kind() != reflect.Map {
			continue
		}
		entry := ft.Elem()
		for entry.Kind() == reflect.Pointer {
			entry = entry.Elem()
		}
		if entry.Kind() != reflect.Struct || isText(entry) {
			continue
		}
		if _, ok := fieldsOf(entry)[name]; ok {
			all = append(all, outer)
		}
	}
	return all
}

// deeper finds a field of this name one level down, such as limits.rate for `rate`.
func deeper(name string, t reflect.Type) string {
	fields := fieldsOf(t)
	for _, outer := range slices.Sorted(maps.Keys(fields)) {
		ft := t.FieldByIndex(fields[outer]).Type
		for ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() != reflect.Struct || isText(ft) {
			continue
		}
		if _, ok := fieldsOf(ft)[name]; ok {
			return outer + "." + name
		}
	}
	return ""
}

// key reads the key of a field and records its line.
func (d *decoder) key(k *yaml.Node, path string, seen map[string]int) (name, at string, ok bool) {
	if k.Kind != yaml.ScalarNode {
		d.fault(path, k.Line, "", "a key that is not a plain name", "write a name before the colon")
		return "", "", false
	}
	name = k.Value
	at = Join(path, keyInPath(name))
	if k.ShortTag() == "!!merge" {
		d.fault(path, k.Line, "<<", "merge keys are not supported", "write the fields out, or use an alias for a whole value")
		return "", "", false
	}
	if first, dup := seen[name]; dup {
		d.fault(at, k.Line, "", fmt.Sprintf("is written twice, first on line %d", first), "keep one of the two")
		return "", "", false
	}
	seen[name] = k.Line
	d.doc.lines[at] = k.Line
	return name, at, true
}

// keyInPath quotes a name that would make a path unreadable.
func keyInPath(name string) string {
	if len(name) > 64 {
		name = shown(name)
	}
	for _, r := range name {
		if r <= ' ' || r > '~' || r == '[' || r == ']' || r == '"' {
			return strconv.QuoteToASCII(name)
		}
	}
	if name == "" {
		return `""`
	}
	return name
}

func (d *decoder) table(n *yaml.Node, path string, v reflect.Value, depth, line int) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, path, v.Type(), line)
		return
	}
	if len(n.Content) == 0 && v.Type().Elem().Kind() != reflect.Interface {
		d.fault(path, line, "", "the value is empty", orRemove(v.Type()))
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Content)/2))
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, at, ok := d.key(n.Content[i], path, seen)
		if !ok {
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], at, item, depth+1)
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), item)
	}
}

func (d *decoder) list(n *yaml.Node, path string, v reflect.Value, depth, line int) {
	_, many := v.Interface().(interface{ oneOrMany() })
	switch {
	case n.Kind != yaml.SequenceNode && !many:
		d.wrong(n, path, v.Type(), line)
		return
	case n.Kind != yaml.SequenceNode:
		// A plain item has no index in the file, but checks look up its fields by index.
		at := path
		if n.Kind == yaml.MappingNode {
			at = Index(path, 0)
			d.doc.lines[at] = line
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.typed(n, at, item, depth+1, line)
		v.Set(reflect.Append(v, item))
		return
	case len(n.Content) == 0:
		d.fault(path, line, "[]", "an empty list", "list at least one, or remove the line")
		return
	case len(n.Content) > maxItems:
		d.fault(path, line, "", fmt.Sprintf("a list of more than %d items", maxItems), "use fewer items")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		at := Index(path, i)
		d.doc.lines[at] = item.Line
		d.value(item, at, v.Index(i), depth+1)
		if d.bomb {
			return
		}
	}
}

func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value, line int) {
	tag := n.ShortTag()
	ok := n.Kind == yaml.ScalarNode
	switch v.Kind() {
	case reflect.String:
		if ok = ok && (tag == "!!str" || tag == "!!timestamp"); ok {
			v.SetString(n.Value)
		}
	case reflect.Bool:
		if ok = ok && (n.Value == "true" || n.Value == "false") && tag == "!!bool"; ok {
			v.SetBool(n.Value == "true")
		}
	case reflect.Int, reflect.Int64, reflect.Int32:
		i, err := strconv.ParseInt(n.Value, 10, v.Type().Bits())
		if ok = ok && err == nil && tag == "!!int"; ok {
			v.SetInt(i)
		}
	case reflect.Float64:
		x, err := strconv.ParseFloat(n.Value, 64)
		if ok = ok && err == nil && !math.IsNaN(x) && !math.IsInf(x, 0) && (tag == "!!int" || tag == "!!float"); ok {
			v.SetFloat(x)
		}
	default:
		d.fault(path, line, "", "cannot be set in a file", "remove the line")
		return
	}
	if !ok {
		d.wrong(n, path, v.Type(), line)
	}
}
