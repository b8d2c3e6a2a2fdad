package policy

import (
	"errors"
	"strings"

	"sallyport/policy/model"
)

// Version is an entry of the key versions: a version as the server writes it, such as 3; "label:" and
// a label, in which stars stand for parts; or "latest" for calls that name no version.
type Version string

// UnmarshalText accepts a number too, so that it needs no quotes in the file.
func (v *Version) UnmarshalText(text []byte) error {
	if problem, cure := checkVersion(string(text)); problem != "" {
		return errors.New(problem + "; " + cure)
	}
	*v = Version(text)
	return nil
}

const maxVersion = 128 // bytes of an entry

// checkVersion checks one entry of versions.
func checkVersion(v string) (problem, cure string) {
	label, labelled := strings.CutPrefix(v, model.Label)
	switch {
	case v == "" || labelled && label == "":
		return "an empty version matches none", "remove it, or write a version such as 3, \"label:stable\" or latest"
	case len(v) > maxVersion:
		return "longer than any version", "write a version such as 3, \"label:stable\" or latest"
	case labelled || v == model.Latest:
		return "", ""
	case strings.ContainsAny(v, "*?"):
		return "versions have no patterns, since 1* would be 1, 10 and 100", "list the versions, or leave versions out for all"
	case !digits(v) && strings.ContainsAny(v, " :/<>=,-"):
		return "not a version", "list versions one by one, such as [3, 4, \"label:stable\", latest]"
	case digits(v) && len(v) > 1 && v[0] == '0':
		return "a version has no leading zeros", "write " + strings.TrimLeft(v[:len(v)-1], "0") + v[len(v)-1:]
	}
	return "", ""
}

// digits reports whether a version is a number.
func digits(v string) bool {
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			return false
		}
	}
	return v != ""
}

// versions are the compiled entries of the key versions.
type versions struct {
	exact  []string // numbers, other versions and "latest"
	labels []glob   // with "label:"
	pins   bool     // some entry is neither a label nor "latest"
}

func newVersions(all []Version) (v versions) {
	for _, entry := range all {
		text := string(entry)
		if strings.HasPrefix(text, model.Label) {
			v.labels = append(v.labels, newGlob(text))
			continue
		}
		v.exact = append(v.exact, text)
		v.pins = v.pins || text != model.Latest
	}
	return v
}

// any reports whether the rule is about all versions.
func (v *versions) any() bool { return len(v.exact)+len(v.labels) == 0 }

// lists reports whether an entry is the version.
func (v *versions) lists(version string) bool {
	for _, e := range v.exact {
		if e == version {
			return true
		}
	}
	for i := range v.labels {
		if v.labels[i].match(version) {
			return true
		}
	}
	return false
}

// mayBe reports whether the server could run a listed version for this one. A label and latest are
// whatever the server makes of them, and some servers take version 0 for the latest. Two other
// versions are the same only if they are equal.
func (v *versions) mayBe(version string) bool {
	if v.lists(version) {
		return true
	}
	return v.pins && (version == model.Latest || version == "0" || strings.HasPrefix(version, model.Label))
}
