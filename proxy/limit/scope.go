package limit

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sallyport/proxy/setting"
)

// Asked is what limits know of a request.
type Asked struct {
	Principal string // the caller's name in limits
	Client    netip.Addr
	Groups    []string // of the caller
	Verb      string
	Class     string // of the verb; "" for none
	Model     string // "" if the request names none
}

// Stage is a set of the times at which entries count a request. A request whose model stands in its
// body is refused or admitted twice: before the body is read, and once the model is known.
type Stage uint8

// These are the stages. [Whole] is for requests whose head tells everything.
const (
	// Early entries go by the head, and count a caller or an address by itself.
	Early Stage = 1 << iota
	// Shared entries go by the head too, but several callers share a count. A request that the
	// rules may still refuse takes nothing from them.
	Shared
	// Late entries need the model.
	Late

	Head  = Early | Shared
	Whole = Head | Late
)

// Scope says which requests an entry counts, and which of them share a count.
type Scope struct {
	// Per selects who shares a count: each "principal" (all proofs of one name under principals
	// together), each client "address" (IPv6: each /64), each "group" of those listed in groups, each
	// "model", each "verb", or the whole "route". A list such as [principal, model] counts each
	// combination by itself. Requests that name no model are not counted per model.
	Per setting.List[string] `yaml:"per"`
	// Models are patterns of the models whose requests count. Default: all requests.
	Models setting.List[setting.Glob] `yaml:"models"`
	// Verbs are the verbs or classes of verbs whose requests count, as in rules. Default: all.
	Verbs setting.List[string] `yaml:"verbs"`
	// Groups are the groups whose members' requests count. Default: everybody's. With per group, a
	// caller counts in each of them that it is in.
	Groups setting.List[string] `yaml:"groups"`
}

// Pers lists the words of [Scope.Per].
func Pers() []string { return []string{"principal", "address", "route", "group", "model", "verb"} }

const maxName = 64 // bytes of the name of an entry

// check records the faults of the scope of an entry at path.
func (s *Scope) check(path string, f *setting.Faults) {
	const cure = "write principal, address, route, group, model, verb, or a list such as [principal, model]"
	if len(s.Per) == 0 {
		f.Add(path+".per", "", "missing", cure)
	}
	for i, per := range s.Per {
		at := path + ".per"
		if len(s.Per) > 1 {
			at = setting.Index(at, i)
		}
		switch {
		case !slices.Contains(Pers(), per):
			f.Add(at, per, "unknown", cure)
		case slices.Index(s.Per, per) < i:
			f.Add(at, per, "is listed twice", "remove one of the two")
		case per == "route" && len(s.Per) > 1:
			f.Add(at, per, "counts all requests together, so nothing can be listed beside it", "remove it, or the others")
		case per == "group" && len(s.Groups) == 0:
			f.Add(at, per, "groups lists none", "list them, such as groups: [research, students]")
		}
	}
	for _, l := range []struct {
		key    string
		values []string
	}{{"verbs", s.Verbs}, {"groups", s.Groups}} {
		for i, v := range l.values {
			if v == "" || slices.Index(l.values, v) < i {
				f.Add(setting.Index(path+"."+l.key, i), v, "is empty or listed twice", "remove it")
			}
		}
	}
}

// checkName records at path why a name cannot stand in a RateLimit-Policy field.
func checkName(path, name string, f *setting.Faults) {
	bad := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if len(name) > maxName || strings.ContainsFunc(name, bad) {
		f.Add(path, name, "cannot stand in a header field", "write at most 64 plain characters without quotation marks")
	}
}

// NeedsModel reports whether the model must be known before the entry can count a request.
func (s *Scope) NeedsModel() bool { return len(s.Models) > 0 || s.by("model") }

func (s *Scope) by(per string) bool { return slices.Contains(s.Per, per) }

// stage returns when the entry counts.
func (s *Scope) stage() Stage {
	switch {
	case s.NeedsModel():
		return Late
	case s.by("principal") || s.by("address"):
		return Early
	}
	return Shared
}

// words describes who shares a count, such as "principal, model".
func (s *Scope) words() string { return strings.Join(s.Per, ", ") }

// identity returns a text that differs between scopes that count different requests.
func (s *Scope) identity() string {
	var b []byte
	list := func(values []string) {
		b = strconv.AppendInt(append(b, ';'), int64(len(values)), 10)
		for _, v := range slices.Sorted(slices.Values(values)) {
			b = strconv.AppendQuote(b, v)
		}
	}
	var models []string
	for _, m := range s.Models {
		models = append(models, m.String())
	}
	list(s.Per)
	list(models)
	list(s.Verbs)
	list(s.Groups)
	return string(b)
}

// covers reports whether the entry counts a request.
func (s *Scope) covers(q *Asked) bool {
	switch {
	case !s.coversCaller(q):
		return false
	case !s.NeedsModel():
		return true
	case q.Model == "":
		return false
	}
	return len(s.Models) == 0 || slices.ContainsFunc(s.Models, func(g setting.Glob) bool { return g.Match(q.Model) })
}

// coversCaller is covers for whatever model the request names.
func (s *Scope) coversCaller(q *Asked) bool {
	if len(s.Verbs) > 0 && !slices.ContainsFunc(s.Verbs, func(v string) bool { return v == q.Verb || v == q.Class && v != "" }) {
		return false
	}
	return len(s.Groups) == 0 || slices.ContainsFunc(s.Groups, func(g string) bool { return slices.Contains(q.Groups, g) })
}

// counts reports whether a request is part of the count of a group, one of each.
func (q *Asked) counts(group string) bool { return group == "" || slices.Contains(q.Groups, group) }

// scope is a Scope ready for use.
type scope struct {
	Scope
	// groups are those by which a caller in them is counted. A group "" stands for all callers.
	groups []string
}

// compile sorts Per, so that its order in the file does not matter.
func (s *Scope) compile() scope {
	c := scope{Scope: *s, groups: []string{""}}
	c.Per = slices.Sorted(slices.Values(s.Per))
	if s.by("group") {
		c.groups = s.Groups
	}
	return c
}

// hash returns the key of one count of a request.
func (s *Scope) hash(seed maphash.Seed, q *Asked, group string) uint64 {
	if len(s.Per) == 1 {
		switch s.Per[0] {
		case "principal":
			return maphash.String(seed, q.Principal)
		case "address":
			return hashAddr(seed, q.Client)
		case "route":
			return maphash.String(seed, "")
		}
	}
	var h maphash.Hash
	h.SetSeed(seed)
	for _, per := range s.Per {
		switch per {
		case "principal":
			write(&h, q.Principal)
		case "address":
			b := Key(q.Client).As16()
			_, _ = h.Write(b[:])
		case "group":
			write(&h, group)
		case "model":
			write(&h, q.Model)
		case "verb":
			write(&h, q.Verb)
		}
	}
	return h.Sum64()
}

// write adds a text with its length, so that no two lists of texts are one.
func write(h *maphash.Hash, s string) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(len(s)))
	_, _ = h.Write(b[:])
	_, _ = h.WriteString(s)
}

func hashAddr(seed maphash.Seed, a netip.Addr) uint64 {
	b := Key(a).As16()
	return maphash.Bytes(seed, b[:])
}
