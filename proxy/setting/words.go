package setting

import (
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// fieldsOf maps the yaml names of a struct to its fields, including those of inlined structs.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			for inner, index := range fieldsOf(f.Type) {
				fields[inner] = append([]int{i}, index...)
			}
		case name != "" && name != "-" && f.IsExported():
			fields[name] = f.Index
		}
	}
	return fields
}

// Fields returns the sorted yaml names of the fields of T.
func Fields[T any]() []string {
	return slices.Sorted(maps.Keys(fieldsOf(reflect.TypeFor[T]())))
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// want describes the expected form of a value of type t.
func want(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return "a duration such as 30s"
	case reflect.TypeFor[Timeout]():
		return "a duration such as 30s, or never"
	case reflect.TypeFor[Size]():
		return "a size such as 64MiB"
	case reflect.TypeFor[Rate]():
		return "a rate such as 200/s"
	case reflect.TypeFor[URL]():
		return "a URL such as http://host:8000"
	case reflect.TypeFor[CIDR]():
		return "a range of addresses such as 10.0.0.0/8"
	case reflect.TypeFor[Glob]():
		return `a pattern such as "bert-*"`
	case reflect.TypeFor[Path](), reflect.TypeFor[Place]():
		return "the path of a file or folder"
	case reflect.TypeFor[Source]():
		return "the path of a file, or a URL"
	case reflect.TypeFor[Secret]():
		return "{file: PATH} or {env: NAME}"
	}
	if f, ok := reflect.New(t).Interface().(Forms); ok {
		return f.Want()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return want(t.Elem())
	case reflect.Struct:
		return "fields with values"
	case reflect.Map:
		return "names with values"
	case reflect.Slice:
		if t.Implements(reflect.TypeFor[interface{ oneOrMany() }]()) {
			return want(t.Elem()) + ", or a list of such"
		}
		return "a list"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// known lists the fields of a struct; "" for other types.
func known(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isText(t) {
		return ""
	}
	names := slices.Collect(maps.Keys(fieldsOf(t)))
	if len(names) == 0 {
		return ""
	}
	return ": " + enumerate(names)
}

// orRemove is the cure for an empty value.
func orRemove(t reflect.Type) string { return "write " + want(t) + known(t) + "; or remove the line" }

// maxListed is the maximum number of names listed in a message.
const maxListed = 32

func enumerate(names []string) string {
	slices.Sort(names)
	if len(names) > maxListed {
		names = append(names[:maxListed], "...")
	}
	return strings.Join(names, ", ")
}

// found describes the value in the file.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	}
	return "text"
}

// cureFor describes how to correct n.
func cureFor(n *yaml.Node, t reflect.Type) string {
	scalar := n.Kind == yaml.ScalarNode
	switch {
	case t.Kind() == reflect.String && scalar:
		return "put it in quotes"
	case t.Kind() == reflect.Slice && scalar:
		return "write the items in brackets or with dashes"
	case t.Kind() == reflect.Slice && n.Kind == yaml.MappingNode, isForms(t) && n.Kind == yaml.MappingNode:
		return "for a list of one, put it in brackets or after a dash"
	case t.Kind() == reflect.Bool && scalar:
		return cureForBool(n)
	case isForms(t) || isText(t):
		return "write the value itself"
	case t.Kind() == reflect.Struct && n.Kind == yaml.SequenceNode:
		return "remove the dashes or brackets; known fields" + known(t)
	case t.Kind() == reflect.Struct:
		return "known fields" + known(t)
	case t.Kind() == reflect.Map:
		return "write each name with a colon and its value"
	case n.Kind != yaml.ScalarNode:
		return "write the value itself"
	}
	return "write it in digits, without quotes"
}

// cureForBool returns how to write the truth value that n probably means.
func cureForBool(n *yaml.Node) string {
	switch strings.ToLower(n.Value) {
	case "true", "yes", "y", "on", "1":
		return unquoted("true", n)
	case "false", "no", "n", "off", "0":
		return unquoted("false", n)
	}
	return "write true or false"
}

func unquoted(word string, n *yaml.Node) string {
	if n.Value == word {
		return "write " + word + " without quotes"
	}
	return "write " + word
}

func isForms(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[Forms]())
}
