package auth

import (
	"slices"
	"strings"
)

// compact is a set of claims that takes little memory, for tokens that are cached by the
// thousand. It is immutable.
type compact struct {
	names  string        // of all claims, one after the other
	claims []compactEnds // in the order of names
	words  []string      // the values of all claims; one string has their text
}

// compactEnds says where the parts of a claim end. An answer has at most 64 KiB, so that the
// numbers fit.
type compactEnds struct {
	name, words uint16
	list        bool // the claim is an array
}

// compacted returns the claims but those of some names, twice: as a claimSet, and to keep.
// Both share the values.
func (s claimSet) compacted(without ...string) (claimSet, *compact) {
	out := slices.DeleteFunc(slices.Clone(s), func(c claim) bool { return slices.Contains(without, c.path) })
	names, words, text := 0, 0, 0
	for i := range out {
		names += len(out[i].path)
		words += len(out[i].values)
		for _, v := range out[i].values {
			text += len(v)
		}
	}
	var name, all strings.Builder
	name.Grow(names)
	all.Grow(text)
	k := &compact{claims: make([]compactEnds, 0, len(out)), words: make([]string, 0, words)}
	for i := range out {
		c := &out[i]
		name.WriteString(c.path)
		from := len(k.words)
		for _, v := range c.values {
			at := all.Len()
			all.WriteString(v)
			k.words = append(k.words, all.String()[at:])
		}
		c.values = k.words[from:len(k.words):len(k.words)]
		k.claims = append(k.claims, compactEnds{uint16(name.Len()), uint16(len(k.words)), c.array})
	}
	k.names = name.String()
	return out, k
}

// Claim implements the field Claim of [identity.Principal].
func (k *compact) Claim(path string) []string {
	from, end, found := k.find(path)
	if !found {
		return nil
	}
	return k.words[from.words:end.words:end.words]
}

// IsList implements the field IsList of [identity.Principal].
func (k *compact) IsList(path string) bool {
	_, end, _ := k.find(path)
	return end.list
}

// find returns where the claim at a path begins and ends.
func (k *compact) find(path string) (from, end compactEnds, found bool) {
	for _, end := range k.claims {
		if k.names[from.name:end.name] == path {
			return from, end, true
		}
		from = end
	}
	return compactEnds{}, compactEnds{}, false
}
