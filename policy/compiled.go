package policy

import (
	"slices"
	"strings"

	"sallyport/auth/identity"
	"sallyport/policy/model"
)

// rule is a compiled [Rule].
type rule struct {
	at       string // its place in the configuration
	deny     bool
	verbs    []string
	models   []glob   // empty: all
	named    []string // the patterns of models as written, for causes
	versions versions
	written  []Version // the versions as written, for causes
	who      Who
	when     *condition // nil: always
}

// coversVerb reports whether the rule is about calls with a verb. class is that of the verb; tabled
// says that the dialect has a table of verbs, so that a verb without a class is not in it.
func (r *rule) coversVerb(verb string, class model.Class, tabled bool) bool {
	for _, v := range r.verbs {
		switch {
		case v == every && (r.deny || class != model.Management && (class != "" || !tabled)):
			return true
		case class != "" && v == string(class), model.Call{Verb: verb}.Runs(v):
			return true
		}
	}
	return false
}

// lists reports whether the rule lists the model.
func (r *rule) lists(name string) bool {
	for i := range r.models {
		if r.models[i].match(name) {
			return true
		}
	}
	return false
}

// coversDenied reports whether a deny rule about the call's verb covers the call.
func (r *rule) coversDenied(c *model.Call) bool {
	if len(r.models) > 0 && (serverMetadata(c) || c.Model != "" && !r.lists(c.Model)) {
		return false
	}
	return r.versions.any() || !serverMetadata(c) && (c.Version == "" || r.versions.mayBe(c.Version))
}

// coversAllowed reports whether an allow rule about the call's verb covers the call.
func (r *rule) coversAllowed(c *model.Call) bool {
	if serverMetadata(c) {
		return true
	}
	return (len(r.models) == 0 || c.Model != "" && r.lists(c.Model)) &&
		(r.versions.any() || r.versions.lists(c.Version))
}

// serverMetadata reports whether the call asks for metadata of the server itself, such as its health
// or a list of models, which shows callers only models of theirs. Rules about some models allow it and
// do not deny it. Other calls about the server may touch every model.
func serverMetadata(c *model.Call) bool { return c.Server && c.Class() == model.Metadata }

// surely reports whether a deny rule about the call's verb covers the call whatever the body names
// and whatever its condition says.
func (r *rule) surely(c *model.Call) bool {
	return r.when == nil &&
		(len(r.models) == 0 || c.Model != "" && r.lists(c.Model)) &&
		(r.versions.any() || c.Version != "" && r.versions.mayBe(c.Version))
}

// perhaps reports whether an allow rule about the call's verb may cover the call once the body has
// named what the head does not.
func (r *rule) perhaps(c *model.Call) bool {
	if c.Server {
		return r.coversAllowed(c)
	}
	return (len(r.models) == 0 || c.Model == "" || r.lists(c.Model)) &&
		(r.versions.any() || c.Version == "" || r.versions.lists(c.Version))
}

// couldAllow reports whether an allow rule covers the call but for its callers and condition. open
// is as in [Policy.refusal].
func (r *rule) couldAllow(c *model.Call, open bool) bool {
	switch {
	case open && c.Verb == "":
		return true
	case !r.coversVerb(c.Verb, c.Class(), c.Dialect != nil && len(c.Dialect.Verbs()) > 0):
		return false
	case open:
		return r.perhaps(c)
	}
	return r.coversAllowed(c)
}

// holds reports whether the condition of the rule holds.
func (r *rule) holds(caller *identity.Principal, call model.Call, facts *Facts) (bool, error) {
	if r.when == nil {
		return true, nil
	}
	return r.when.holds(&question{caller, call, facts})
}

// entry is a rule in an index. Its order stands beside the pointer, so that a walk does not fetch rules
// that it passes over.
type entry struct {
	order int
	rule  *rule
}

// verbRules are the rules about one verb.
type verbRules struct{ deny, allow ruleIndex }

// ruleIndex finds the rules about a model. Rules that list names without stars are looked up by name,
// so that a long list of models costs nothing.
type ruleIndex struct {
	all   []entry            // in the order of the file
	exact map[string][]entry // by the names that rules list, if all of their entries are names
	rest  []entry            // the others
}

func (x *ruleIndex) add(e entry) {
	r := e.rule
	x.all = append(x.all, e)
	if len(r.models) == 0 || slices.ContainsFunc(r.models, func(g glob) bool { return g.shape != noStar }) {
		x.rest = append(x.rest, e)
		return
	}
	if x.exact == nil {
		x.exact = map[string][]entry{}
	}
	for _, name := range r.named {
		if known := x.exact[name]; len(known) == 0 || known[len(known)-1] != e {
			x.exact[name] = append(known, e)
		}
	}
}

// walk visits the rules that may be about a model in the order of the file; "" stands for any.
func (x *ruleIndex) walk(name string) walk {
	if name == "" {
		return walk{a: x.all}
	}
	return walk{a: x.rest, b: x.exact[name]}
}

// walk is a merge of two ordered lists.
type walk struct{ a, b []entry }

// next returns the next rule; nil after the last.
func (w *walk) next() (r *rule) {
	switch {
	case len(w.a) > 0 && (len(w.b) == 0 || w.a[0].order < w.b[0].order):
		r, w.a = w.a[0].rule, w.a[1:]
	case len(w.b) > 0:
		r, w.b = w.b[0].rule, w.b[1:]
	}
	return r
}

// index fills the indexes of a policy for servers of a dialect.
func (p *Policy) index(d *model.Dialect) {
	verbs := d.Verbs()
	tabled := len(verbs) > 0
	if !tabled {
		for i := range p.rules {
			verbs = append(verbs, p.rules[i].verbs...)
		}
		verbs = append(verbs, "head") // what runs as get
	}
	of := func(verb string) *verbRules {
		class := model.Call{Dialect: d, Verb: verb}.Class()
		return p.only(func(r *rule) bool { return r.coversVerb(verb, class, tabled) })
	}
	p.verbs = make(map[string]*verbRules, len(verbs))
	for _, verb := range verbs {
		if p.verbs[verb] == nil && verb != every {
			p.verbs[strings.Clone(verb)] = of(verb)
		}
	}
	p.other = of("")
	p.whole = p.only(func(r *rule) bool { return !r.deny || slices.Contains(r.verbs, every) })
}

// only returns an index of the rules that fit.
func (p *Policy) only(fits func(*rule) bool) *verbRules {
	v := &verbRules{}
	for i := range p.rules {
		switch r := &p.rules[i]; {
		case !fits(r):
		case r.deny:
			v.deny.add(entry{i, r})
		default:
			v.allow.add(entry{i, r})
		}
	}
	return v
}

// rulesOf returns the rules about a verb. If the verb is not known, "", these are the allow rules that
// may cover it and the deny rules that do.
func (p *Policy) rulesOf(verb string) *verbRules {
	switch v := p.verbs[verb]; {
	case v != nil:
		return v
	case p.whole == nil: // of the zero Policy
		return &verbRules{}
	case verb == "":
		return p.whole
	}
	return p.other
}
