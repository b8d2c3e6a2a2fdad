package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// Rule is one entry of `rules:`. It names the verbs that it allows or denies, and the models, versions
// and callers to which it applies. It covers a call if all of its keys do.
//
// A deny rule errs on the side of covering, and an allow rule on that of not covering:
//   - A call that does not clearly name its model is covered by no allow rule about some models, and by
//     every deny rule about some models. With metadata of the server itself it is the other way round.
//   - A deny rule that lists a version covers every call for which the server may run that version:
//     latest, every label, and version 0. An allow rule covers only what it lists.
//   - If the expression of when fails, because it asks for what is not known or costs too much, a deny
//     rule covers the call and an allow rule does not.
type Rule struct {
	Allow    setting.List[string]  `yaml:"allow" jsonschema:"description=What to allow: verbs; classes of them (inference or metadata or management); or \"*\" for all but management. Servers of the kinds raw and flask have HTTP methods in lower case as verbs and get covers head too"`
	Deny     setting.List[string]  `yaml:"deny" jsonschema:"description=What to deny: verbs or classes or \"*\" for all. A deny rule wins over every allow rule"`
	Models   setting.List[string]  `yaml:"models" jsonschema:"description=Patterns of the models that the rule is about: * stands for any characters but / and ** for any characters; \"*\" alone is all models and calls about the server itself. Required where requests name models"`
	Versions setting.List[Version] `yaml:"versions" jsonschema:"description=Versions of these models: numbers; \"label:NAME\" with * in the name; or latest for requests that name none. Default: all"`
	Who      Who                   `yaml:"who" jsonschema:"description=Whom the rule speaks of; omitted: everyone whom callers admits"`
	When     string                `yaml:"when" jsonschema:"description=A condition in CEL (Common Expression Language) over principal and call and request and connection; request.headers are what the client sends; omitted: always"`
}

const maxPattern = 512 // bytes of a pattern of models

// every is the entry of allow, deny or models that stands for all.
const every = "*"

var (
	errNoVerbs   = errors.New("a rule needs allow or deny")
	errBothVerbs = errors.New("a rule has either allow or deny, not both")
)

// shape checks that the rule has either allow or deny.
func (r *Rule) shape() error {
	switch {
	case len(r.Allow) == 0 && len(r.Deny) == 0:
		return errNoVerbs
	case len(r.Allow) > 0 && len(r.Deny) > 0:
		return errBothVerbs
	}
	return nil
}

// AboutModels reports whether the rule may depend on the model, version or signature of a call.
func (r *Rule) AboutModels() bool {
	return len(r.Models) > 0 && !r.AllModels() || len(r.Versions) > 0 || strings.Contains(r.When, "call")
}

// AllModels reports whether the rule is about all models, and about the server itself.
func (r *Rule) AllModels() bool { return len(r.Models) == 0 || slices.Contains(r.Models, every) }

// ByNameAlone reports whether a deny rule lists versions only by label or as latest. A caller may then
// ask for the same version by its number.
func (r *Rule) ByNameAlone() bool {
	return len(r.Deny) > 0 && len(r.Versions) > 0 && !slices.ContainsFunc(r.Versions, func(v Version) bool {
		return v != model.Latest && !strings.HasPrefix(string(v), model.Label)
	})
}

// Check records every fault of a list of rules that their own text shows, whatever servers they are
// for. The rules stand at path in the file.
func Check(path string, rules []Rule, f *setting.Faults) {
	var language expressions
	allows := false
	for i := range rules {
		r, at := &rules[i], setting.Index(path, i)
		allows = allows || len(r.Deny) == 0 || len(r.Allow) > 0
		switch err := r.shape(); err {
		case errNoVerbs:
			f.Add(at, "", err.Error(), `write {allow: "*"}, or name verbs such as predict`)
		case errBothVerbs:
			f.Add(at, "", err.Error(), "write two rules")
		}
		for j, v := range r.Versions {
			if problem, cure := checkVersion(string(v)); problem != "" {
				f.Add(at+".versions["+strconv.Itoa(j)+"]", string(v), problem, cure)
			}
		}
		r.Who.check(at+".who", f)
		if r.When == "" {
			continue
		}
		if _, err := language.compile(r.When); err != nil {
			var bad *badExpression
			if !errors.As(err, &bad) {
				bad = &badExpression{err.Error(), "write another expression"}
			}
			f.Add(at+".when", setting.Shortened(r.When, 120), bad.problem, bad.cure)
		}
	}
	if len(rules) > 0 && !allows {
		f.Add(path, "", "rules that only deny allow nothing", `add one such as {allow: "*", who: {scope: models.predict}}`)
	}
}

// CheckServed records the faults of a rule that concern what servers of a dialect are asked for: verbs,
// models and versions. The rule stands at path in the file. shared says that other dialects may use
// the rule too: then it may have verbs that this one has not.
func (r *Rule) CheckServed(path string, d *model.Dialect, shared bool, f *setting.Faults) {
	if !shared {
		checkVerbs(path+".allow", d, r.Allow, f)
		checkVerbs(path+".deny", d, r.Deny, f)
	}
	for i, m := range r.Models {
		if problem, cure := checkModel(d, m); problem != "" {
			f.Add(path+".models["+strconv.Itoa(i)+"]", m, problem, cure)
		}
	}
	if len(r.Models) == 0 && d.NamesModels() {
		f.Add(path+".models", "", "the rule does not say which models it is about", `write models: "*" for all, or patterns such as [half_plus_two, "team-*"]`)
	}
	for i, v := range r.Versions {
		if problem, cure := d.CheckVersion(string(v)); problem != "" {
			f.Add(path+".versions["+strconv.Itoa(i)+"]", string(v), problem, cure)
		}
	}
}

// sound checks all that [New] needs to compile the rule for servers of a dialect.
func (r *Rule) sound(d *model.Dialect) error {
	for _, v := range slices.Concat(r.Allow, r.Deny) {
		if problem, _ := checkAnyVerb(v); problem != "" {
			return fmt.Errorf("%q: %s", v, problem)
		}
	}
	for _, m := range r.Models {
		if problem, _ := checkModel(d, m); problem != "" {
			return fmt.Errorf("%q: %s", m, problem)
		}
	}
	for _, v := range r.Versions {
		if problem, _ := checkVersion(string(v)); problem != "" {
			return fmt.Errorf("%q: %s", v, problem)
		}
		if problem, _ := d.CheckVersion(string(v)); problem != "" {
			return fmt.Errorf("%q: %s", v, problem)
		}
	}
	return r.shape()
}

// checkModel checks one pattern of models.
func checkModel(d *model.Dialect, pattern string) (problem, cure string) {
	switch {
	case pattern == every:
		return "", ""
	case !d.NamesModels():
		return "requests to this server do not say which model they ask for",
			"remove models, or name the server's kind by serves, such as openai, ollama or tensorflow"
	case pattern == "":
		return "an empty pattern matches no model", "remove it or write a name"
	case len(pattern) > maxPattern:
		return "the pattern is longer than 512 bytes", "write a shorter one, with stars"
	}
	if name, err := d.CanonicalModel(pattern); err != nil {
		return "no model of this server has such a name", "write the name as the server lists it, with stars for parts of it"
	} else if name != pattern {
		return "the gateway knows this model by another name", "write " + name
	}
	return "", ""
}

func checkVerbs(path string, d *model.Dialect, verbs []string, f *setting.Faults) {
	for i, v := range verbs {
		if v == every {
			continue
		}
		if problem, cure := d.CheckVerb(v); problem != "" {
			f.Add(path+"["+strconv.Itoa(i)+"]", v, problem, cure)
		}
	}
}

// CheckVerbs records entries of allow and deny that are no verb or class of any dialect. The rule
// stands at path in the file, and servers of several dialects may use it.
func (r *Rule) CheckVerbs(path string, f *setting.Faults) {
	for _, l := range []struct {
		key   string
		verbs []string
	}{{"allow", r.Allow}, {"deny", r.Deny}} {
		for i, v := range l.verbs {
			if problem, cure := checkAnyVerb(v); problem != "" {
				f.Add(path+"."+l.key+"["+strconv.Itoa(i)+"]", v, problem, cure)
			}
		}
	}
}

// checkAnyVerb checks an entry of allow or deny: "*", or a verb or class of some dialect.
func checkAnyVerb(v string) (problem, cure string) {
	if v == every {
		return "", ""
	}
	problem, _ = model.Raw().CheckVerb(v)
	if problem == "" {
		return "", ""
	}
	var known []string
	for _, name := range model.Names() {
		if d, ok := model.ByName(name); ok {
			if other, _ := d.CheckVerb(v); other == "" {
				return "", ""
			}
			known = append(known, d.Verbs()...)
		}
	}
	if near := setting.Nearest(v, append(known, model.Classes()...)); near != "" {
		return "no request has this verb", "did you mean " + near + "?"
	}
	if problem != "not a verb" {
		problem = "no server has requests of this verb"
	}
	return problem, "write a class (inference, metadata, management), a verb such as predict or chat, or for raw and flask servers an HTTP method in lower case"
}
