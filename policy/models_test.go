package policy_test

import (
	"strings"
	"testing"

	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

func TestRulesAboutModels(t *testing.T) {
	type list = setting.List[string]
	allow := func(models ...string) policy.Rule { return policy.Rule{Allow: list{"*"}, Models: models} }
	deny := func(models ...string) policy.Rule { return policy.Rule{Deny: list{"*"}, Models: models} }
	for _, c := range []struct {
		name    string
		rules   []policy.Rule
		granted string
		refused string // names, "-" for a call that names no model
	}{
		{"names", []policy.Rule{allow("a", "b/c")}, "a b/c", "A b c a/b b/cd xa -"},
		{"a star within a segment", []policy.Rule{allow("llama*")}, "llama llama3:8b", "me/llama llama/x lama -"},
		{"two stars over segments", []policy.Rule{allow("meta/**")}, "meta/x meta/x/y", "meta x/meta/y -"},
		{"every named model", []policy.Rule{allow("**")}, "a a/b", "-"},
		{"signs of expressions", []policy.Rule{allow("a.b+(c)")}, "a.b+(c)", "axb+(c) a.bb(c)"},
		{"deny wins, and covers a call without a model", []policy.Rule{allow(), deny("secret*")}, "public x/secret", "secret secret-2 -"},
		{"a rule about no model covers all", []policy.Rule{allow()}, "a a/b -", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := model.ByName("openai")
			p, err := policy.New(d, "rules", c.rules)
			if err != nil {
				t.Fatal(err)
			}
			caller := alice()
			for names, want := range map[string]bool{c.granted: true, c.refused: false} {
				for _, name := range strings.Fields(names) {
					call := model.Call{Dialect: d, Verb: "chat", Model: strings.TrimPrefix(name, "-")}
					if _, err := p.Decide(&caller, call, nil); (err == nil) != want {
						t.Errorf("%s: %v, want granted %v", name, err, want)
					}
				}
			}
		})
	}
}

func TestRulesAboutModelsNeedADialectThatNamesThem(t *testing.T) {
	for _, c := range []struct{ dialect, pattern, problem string }{
		{"raw", "a", "requests to this server do not say which model they ask for"},
		{"flask", "a", "requests to this server do not say which model they ask for"},
		{"openai", "", "an empty pattern matches no model"},
		{"openai", strings.Repeat("x", 513), "the pattern is longer than 512 bytes"},
		{"openai", "a\nb", "no model of this server has such a name"},
		{"ollama", "Llama3:latest", "the gateway knows this model by another name"},
		{"ollama", "a b", "no model of this server has such a name"},
		{"ollama", "llama3*", ""},
		{"tensorflow", "half_plus_two", ""},
	} {
		d, _ := model.ByName(c.dialect)
		r := policy.Rule{Allow: setting.List[string]{"*"}, Models: setting.List[string]{c.pattern}}
		var f setting.Faults
		r.CheckServed("rules[0]", d, false, &f)
		_, err := policy.New(d, "rules", []policy.Rule{r})
		if got := err != nil; got != (c.problem != "") {
			t.Errorf("%s %q: New says %v", c.dialect, c.pattern, err)
		}
		text := ""
		if err := f.Err(); err != nil {
			text = err.Error()
		}
		if (c.problem == "") != (text == "") || !strings.Contains(text, c.problem) {
			t.Errorf("%s %q: %q, want %q", c.dialect, c.pattern, text, c.problem)
		}
	}
}
