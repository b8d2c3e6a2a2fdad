package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// TestReferenceIsSound sees that the root gateway.yaml loads.
func TestReferenceIsSound(t *testing.T) {
	if _, err := Load("../../gateway.yaml"); err != nil {
		t.Error(err)
	}
}

// TestReferenceIsComplete sees that the root gateway.yaml shows every setting that
// there is: with a value, or in a comment where a value would not do.
func TestReferenceIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	collectShown("", root.Content[0], reflect.TypeFor[Config](), shown)

	// No file to include, nothing insecure by mistake of those who copy, and of what
	// is written in one of several ways one way.
	inComment := regexp.MustCompile(`(^|\.)(include|insecure_\w+)(\.\w+)?$|^tls\.acme\.(directory|ca|eab|profile|dns\.(cloudflare|route53|exec|webhook))\b|^upstreams\.credentials\.(basic|header|oauth2|assertion)\b`)
	for _, path := range settingsOf("", reflect.TypeFor[Config]()) {
		name := path[strings.LastIndexByte(path, '.')+1:]
		commented := regexp.MustCompile(`(?m)#.*\b` + name + `:`).Match(text)
		switch {
		case shown[path] && inComment.MatchString(path):
			t.Errorf("%s stands there for those who copy; comment it out", path)
		case !shown[path] && !(inComment.MatchString(path) && commented):
			t.Errorf("%s is not in gateway.yaml", path)
		}
	}
}

// settingsOf lists the paths of all settings below a type, without indices and
// chosen names.
func settingsOf(path string, in reflect.Type) []string {
	switch in.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return settingsOf(path, in.Elem())
	case reflect.Struct:
	default:
		return nil
	}
	if in == reflect.TypeFor[route.RulesRef]() {
		return nil // the same rules as those of policies
	}
	var all []string
	for i := range in.NumField() {
		name, _, _ := strings.Cut(in.Field(i).Tag.Get("yaml"), ",")
		if in.Field(i).Anonymous {
			all = append(all, settingsOf(path, in.Field(i).Type)...)
		}
		if name == "" {
			continue
		}
		at := setting.Join(path, name)
		if path == "routes" && name == "timeouts" {
			all = append(all, at) // its fields are those of the whole file
			continue
		}
		all = append(append(all, at), settingsOf(at, in.Field(i).Type)...)
	}
	return all
}

// collectShown marks the paths that the tree has.
func collectShown(path string, n *yaml.Node, in reflect.Type, shown map[string]bool) {
	for in.Kind() == reflect.Pointer {
		in = in.Elem()
	}
	switch {
	case in.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			collectShown(path, item, in.Elem(), shown)
		}
	case in.Kind() == reflect.Slice:
		collectShown(path, n, in.Elem(), shown)
	case in.Kind() == reflect.Map && n.Kind == yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			collectShown(path, n.Content[i], in.Elem(), shown)
		}
	case in.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			shown[setting.Join(path, name)] = true
			j := slices.IndexFunc(reflect.VisibleFields(in), func(f reflect.StructField) bool { return f.Tag.Get("yaml") == name })
			if j >= 0 {
				collectShown(setting.Join(path, name), n.Content[i+1], reflect.VisibleFields(in)[j].Type, shown)
			}
		}
	}
}
