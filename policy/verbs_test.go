package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

type list = setting.List[string]

// decided returns the verbs, models and versions of "VERB MODEL VERSION" for which a policy decides as
// granted says. A dash stands for nothing; a call without a model is about the server.
func decided(t *testing.T, p *policy.Policy, d *model.Dialect, calls string, granted bool) {
	t.Helper()
	caller := alice()
	for line := range strings.SplitSeq(calls, ";") {
		w := append(strings.Fields(line), "-", "-")
		call := model.Call{Dialect: d, Verb: w[0], Model: strings.Trim(w[1], "-"), Version: strings.Trim(w[2], "-")}
		call.Server = call.Model == ""
		if grant, err := p.Decide(&caller, call, nil); (err == nil) != granted || grant.Valid() != granted {
			t.Errorf("%s: %v; want granted %v", line, err, granted)
		}
	}
}

func TestStarDoesNotAllowManagement(t *testing.T) {
	d := dialect(t, "tensorflow")
	for _, c := range []struct {
		name             string
		rules            []policy.Rule
		granted, refused string
	}{
		{"star", []policy.Rule{{Allow: list{"*"}, Models: list{"*"}}}, "predict m; status m; metrics; health", "reload; frobnicate m"},
		{"a verb of management", []policy.Rule{{Allow: list{"*", "reload"}, Models: list{"*"}}}, "predict m; reload", ""},
		{"the class", []policy.Rule{{Allow: list{"management"}, Models: list{"*"}}}, "reload", "predict m; status m"},
		{"inference", []policy.Rule{{Allow: list{"inference"}, Models: list{"*"}}}, "predict m; classify m", "status m; reload; health"},
		{"metadata", []policy.Rule{{Allow: list{"metadata"}, Models: list{"*"}}}, "status m; metrics; health", "predict m; reload"},
		{"deny of a class", []policy.Rule{{Allow: list{"*"}, Models: list{"*"}}, {Deny: list{"inference"}, Models: list{"*"}}}, "status m", "predict m"},
		{"deny of all covers management", []policy.Rule{{Allow: list{"management", "predict"}, Models: list{"*"}}, {Deny: list{"*"}, Models: list{"*"}}}, "", "reload; predict m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := rulesOf(t, d, c.rules...)
			if c.granted != "" {
				decided(t, p, d, c.granted, true)
			}
			if c.refused != "" {
				decided(t, p, d, c.refused, false)
			}
		})
	}
}

// HTTP methods have no class, even those that are named as a verb of management elsewhere.
func TestStarAllowsEveryHTTPMethodOfRawServers(t *testing.T) {
	d := model.Raw()
	decided(t, rulesOf(t, d, policy.Rule{Allow: list{"*"}}), d, "get; post; delete; copy; trace; purge", true)
	decided(t, rulesOf(t, d, policy.Rule{Allow: list{"management"}}), d, "get; delete; copy; trace", false)
}

// Metadata of the server, such as a list of models, is about no model: rules about some models allow it
// and do not deny it. If the model of another call is unclear, every deny rule about models covers it.
func TestRulesAboutModelsAndCallsAboutTheServer(t *testing.T) {
	d := dialect(t, "openai")
	p := rulesOf(t, d,
		policy.Rule{Deny: list{"*"}, Models: list{"secret-*"}},
		policy.Rule{Allow: list{"*"}, Models: list{"**"}},
		policy.Rule{Allow: list{"files"}, Models: list{"*"}},
	)
	decided(t, p, d, "list; chat open", true)
	decided(t, p, d, "chat; chat secret-1; embed; files", false)
	decided(t, rulesOf(t, d, policy.Rule{Allow: list{"files", "chat"}, Models: list{"a"}}), d, "files; list", false)
	caller := alice()
	if _, err := p.Decide(&caller, model.Call{Dialect: d, Verb: "list"}, nil); err == nil {
		t.Error("a call about one model that it does not name is allowed")
	}
}

func TestRuleThatPinsAVersionIsNotDodged(t *testing.T) {
	d := dialect(t, "tensorflow")
	all := policy.Rule{Allow: list{"*"}, Models: list{"*"}}
	pinned := func(entries ...policy.Version) policy.Rule {
		return policy.Rule{Models: list{"m"}, Versions: entries}
	}
	allow := func(r policy.Rule) policy.Rule { r.Allow = list{"predict"}; return r }
	deny := func(r policy.Rule) policy.Rule { r.Deny = list{"predict"}; return r }
	for _, c := range []struct {
		name             string
		rules            []policy.Rule
		granted, refused string
	}{
		{"allow of a number", []policy.Rule{allow(pinned("3"))}, "predict m 3", "predict m 4; predict m latest; predict m label:stable; predict m 0; predict m 03; predict m; predict other 3"},
		{"allow of a label", []policy.Rule{allow(pinned("label:stable"))}, "predict m label:stable", "predict m 3; predict m latest; predict m label:stable2; predict m stable"},
		{"allow of labels by a pattern", []policy.Rule{allow(pinned("label:stable-*"))}, "predict m label:stable-1", "predict m label:stable; predict m label:canary; predict m 1"},
		{"allow of latest", []policy.Rule{allow(pinned("latest"))}, "predict m latest", "predict m 3; predict m label:latest; predict m 0; predict m"},
		{"deny of a number", []policy.Rule{all, deny(pinned("3"))}, "predict m 4; predict m 33; predict other 3; predict other latest", "predict m 3; predict m latest; predict m label:stable; predict m label:x; predict m 0"},
		{"deny of a label", []policy.Rule{all, deny(pinned("label:canary"))}, "predict m 3; predict m latest; predict m label:stable", "predict m label:canary"},
		{"deny of latest", []policy.Rule{all, deny(pinned("latest"))}, "predict m 3; predict m label:stable", "predict m latest"},
		{"omitted", []policy.Rule{allow(policy.Rule{Models: list{"m"}})}, "predict m 3; predict m latest; predict m label:x; predict m 0; predict m", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := rulesOf(t, d, c.rules...)
			decided(t, p, d, c.granted, true)
			if c.refused != "" {
				decided(t, p, d, c.refused, false)
			}
		})
	}
	caller := alice()
	unknown := model.Call{Dialect: d, Verb: "predict", Model: "m"}
	if _, err := rulesOf(t, d, all, deny(pinned("3"))).Decide(&caller, unknown, nil); err == nil {
		t.Error("a call whose version nobody knows is not denied")
	}
}

// A screen lets a caller pass as long as the body may name something that a rule allows.
func TestScreenLeavesOpenWhatTheBodyMayName(t *testing.T) {
	d := dialect(t, "tensorflow")
	p := rulesOf(t, d,
		policy.Rule{Deny: list{"predict"}, Models: list{"secret"}},
		policy.Rule{Deny: list{"classify"}, Models: list{"*"}},
		policy.Rule{Allow: list{"predict", "classify"}, Models: list{"half"}, Versions: setting.List[policy.Version]{"3"}},
	)
	caller := alice()
	for _, c := range []struct {
		call model.Call
		pass bool
	}{
		{model.Call{}, true},
		{model.Call{Dialect: d, Verb: "predict"}, true},
		{model.Call{Dialect: d, Verb: "predict", Model: "half"}, true},
		{model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "4"}, false},
		{model.Call{Dialect: d, Verb: "predict", Model: "secret"}, false},
		{model.Call{Dialect: d, Verb: "predict", Model: "other"}, false},
		{model.Call{Dialect: d, Verb: "predict", Server: true}, false},
		{model.Call{Dialect: d, Verb: "classify"}, false},
		{model.Call{Dialect: d, Verb: "reload", Server: true}, false},
	} {
		if err := p.Screen(&caller, c.call); (err == nil) != c.pass {
			t.Errorf("%+v: %v, want pass %v", c.call, err, c.pass)
		}
		if !c.pass {
			continue
		}
		if _, err := p.Decide(&caller, c.call, nil); err == nil {
			t.Errorf("%+v: decided without what the body names", c.call)
		}
	}
}

// manyRules returns fifty rules, most of them with patterns, and a call that only the last allows.
func manyRules(t testing.TB) (*policy.Policy, *identity.Principal, model.Call) {
	d := dialect(t, "tensorflow")
	var rules []policy.Rule
	for i := range 10 {
		rules = append(rules, policy.Rule{Deny: list{"*"}, Models: list{fmt.Sprintf("secret-%d-*", i)}})
	}
	for i := range 20 {
		rules = append(rules, policy.Rule{Allow: list{"predict", "metadata"}, Models: list{fmt.Sprintf("team-%d-*", i), fmt.Sprintf("*-of-%d", i)}, Who: policy.Who{Group: list{"x"}}})
	}
	for i := range 19 {
		rules = append(rules, policy.Rule{Allow: list{"inference"}, Models: list{fmt.Sprintf("model-%d", i), "team-a-model"}, Who: policy.Who{Scope: list{"models.train"}}})
	}
	rules = append(rules, policy.Rule{Allow: list{"inference"}, Models: list{"team-*"}, Versions: setting.List[policy.Version]{"3", "label:*"}, Who: policy.Who{Scope: list{"models.predict"}}})
	caller := alice()
	caller.Qualify()
	return rulesOf(t, d, rules...), &caller, model.Call{Dialect: d, Verb: "predict", Model: "team-a-model", Version: "label:stable"}
}

func TestManyRulesDoNotAllocate(t *testing.T) {
	p, caller, call := manyRules(t)
	if n := testing.AllocsPerRun(100, func() {
		if grant, err := p.Decide(caller, call, nil); err != nil || !grant.Permits(call) {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}

func BenchmarkDecideAmongFiftyRules(b *testing.B) {
	p, caller, call := manyRules(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decide(caller, call, nil); err != nil {
			b.Fatal(err)
		}
	}
}
