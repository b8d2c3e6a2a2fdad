package config

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sallyport/auth"
	"sallyport/proxy/setting"
)

// Outline is what a configuration consists of, by digests: enough to tell what changed between
// two, without keeping either. It must be taken when the configuration is loaded, because it
// covers the content that the named files and secrets have at that moment.
type Outline struct {
	text  string // digest of the bytes of gateway.yaml and the included files
	parts []outlinePart
}

// outlinePart is one named entry of a section, or a section without names.
type outlinePart struct {
	kind   string // what it is, such as "route"; "" for a whole section
	name   string // unique within the kind
	digest string // as of [setting.Digest]

	sessions *sessionOutline // of a login; nil for all else
}

// OutlineOf takes the outline of a loaded configuration. Sections follow one another as in
// [Config], routes as in the files, other names by the alphabet.
func OutlineOf(c *Config) Outline {
	o := Outline{text: hex.EncodeToString(c.source.text.Sum(nil))}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		section := v.Type().Field(i).Tag.Get("yaml")
		switch {
		case section == "":
		case section == "routes":
			seen := map[string]int{}
			for i := range c.Routes {
				name := c.Routes[i].Name
				if seen[name]++; seen[name] > 1 {
					name = fmt.Sprintf("%s (%d)", name, seen[name])
				}
				o.parts = append(o.parts, outlinePart{kind: "route", name: name, digest: setting.Digest(c.Routes[i])})
			}
		case v.Field(i).Kind() == reflect.Map:
			var entries []outlinePart
			for key, value := range v.Field(i).Seq2() {
				part := outlinePart{kind: kindOf(section), name: key.String(), digest: setting.Digest(value.Interface())}
				if l, ok := value.Interface().(auth.LoginConfig); ok {
					part.sessions = c.sessionOutlineOf(&l)
				}
				entries = append(entries, part)
			}
			slices.SortFunc(entries, func(a, b outlinePart) int { return strings.Compare(a.name, b.name) })
			o.parts = append(o.parts, entries...)
		default:
			o.parts = append(o.parts, outlinePart{name: section, digest: setting.Digest(v.Field(i).Interface())})
		}
	}
	return o
}

// Hash identifies a configuration by all that it says and by the bytes that say it. It is in
// hexadecimal; [ShortHashes] are what people see.
func (o Outline) Hash() string {
	var all []string
	for _, p := range o.parts {
		all = append(all, p.kind, p.name, p.digest)
	}
	return setting.Digest(append(all, o.text))
}

// ShortHashes are the beginnings of two hashes, four digits long or as long as it takes to tell
// one from the other.
func ShortHashes(a, b string) (shortA, shortB string) {
	n := 4
	for a != b && n < min(len(a), len(b)) && a[:n] == b[:n] {
		n++
	}
	return a[:min(n, len(a))], b[:min(n, len(b))]
}

// kindOf is what one entry of a section with names is called.
func kindOf(section string) string {
	switch section {
	case "issuers":
		return "issuer"
	case "signing_keys":
		return "signing key"
	case "api_keys":
		return "API key"
	case "principals":
		return "principal"
	case "upstreams":
		return "upstream"
	case "policies":
		return "policy"
	case "logins":
		return "login"
	}
	return "entry of " + section
}

// Change is one difference between two configurations.
type Change struct {
	kind, name string // as in [outlinePart]
	what       string // "changed", "added" or "removed"
	lost       string // as of [sessionOutline.lost]
}

// String is the change in words, such as "route a.example/v1 changed".
func (c Change) String() string {
	words := strings.TrimPrefix(c.kind+" "+c.name+" "+c.what, " ")
	if c.lost != "" {
		words += ": " + c.lost
	}
	return words
}

// Summarized reports whether [ChangedSummary] names the change. It counts the others.
func (c Change) Summarized() bool { return c.kind == "" }

// DescribeChanges lists what differs between two configurations: in the order of the new one,
// then what is removed. An entry under another name is one removed and one added.
func DescribeChanges(from, to Outline) []Change {
	type id struct{ kind, name string }
	before := make(map[id]outlinePart, len(from.parts))
	for _, p := range from.parts {
		before[id{p.kind, p.name}] = p
	}
	var all []Change
	for _, p := range to.parts {
		was, known := before[id{p.kind, p.name}]
		switch {
		case !known:
			all = append(all, Change{kind: p.kind, name: p.name, what: "added"})
		case was.digest != p.digest:
			change := Change{kind: p.kind, name: p.name, what: "changed"}
			if p.sessions != nil {
				change.lost = was.sessions.lost(p.sessions)
			}
			all = append(all, change)
		}
		delete(before, id{p.kind, p.name})
	}
	for _, p := range from.parts {
		if _, left := before[id{p.kind, p.name}]; left {
			all = append(all, Change{kind: p.kind, name: p.name, what: "removed"})
		}
	}
	return all
}

// ChangedSummary is a change of configurations in one line, such as
// "config 3f9a -> 81c2: 2 routes changed, 1 added; limits changed".
func ChangedSummary(from, to Outline) string {
	a, b := ShortHashes(from.Hash(), to.Hash())
	counts := countChanges(DescribeChanges(from, to))
	if counts == "" {
		counts = "only comments, spaces or the order changed"
	}
	return fmt.Sprintf("config %s -> %s: %s", a, b, counts)
}

// countChanges counts changes by kind, in the order in which kinds first occur; sections come
// last, by name.
func countChanges(changes []Change) string {
	var kinds, sections []string
	for _, c := range changes {
		if c.kind == "" {
			sections = append(sections, c.name)
		} else if !slices.Contains(kinds, c.kind) {
			kinds = append(kinds, c.kind)
		}
	}
	var groups []string
	for _, kind := range kinds {
		var counts []string
		for _, what := range []string{"changed", "added", "removed"} {
			n := 0
			for _, c := range changes {
				if c.kind == kind && c.what == what {
					n++
				}
			}
			if n == 0 {
				continue
			}
			if len(counts) == 0 {
				counts = append(counts, fmt.Sprintf("%d %s %s", n, plural(kind, n), what))
			} else {
				counts = append(counts, fmt.Sprintf("%d %s", n, what))
			}
		}
		groups = append(groups, strings.Join(counts, ", "))
	}
	if len(sections) > 0 {
		groups = append(groups, strings.Join(sections, ", ")+" changed")
	}
	return strings.Join(groups, "; ")
}

func plural(kind string, n int) string {
	switch {
	case n == 1:
		return kind
	case kind == "policy":
		return "policies"
	case strings.HasPrefix(kind, "entry "):
		return "entries " + strings.TrimPrefix(kind, "entry ")
	}
	return kind + "s"
}
