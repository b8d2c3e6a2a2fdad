package policy_test

import (
	"errors"
	"strings"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

func TestTraceSaysWhyEachRuleCovers(t *testing.T) {
	d := dialect(t, "tensorflow")
	type versions = setting.List[policy.Version]
	p := rulesOf(t, d,
		policy.Rule{Deny: list{"management"}, Models: list{"*"}},
		policy.Rule{Deny: list{"*"}, Models: list{"secret-*"}},
		policy.Rule{Deny: list{"*"}, Models: list{"*"}, Versions: versions{"7"}},
		policy.Rule{Allow: list{"predict"}, Models: list{"*"}, Versions: versions{"4", "label:x"}},
		policy.Rule{Allow: list{"inference"}, Models: list{"*"}, Who: policy.Who{Scope: list{"models.train"}, Group: list{"ops"}}},
		policy.Rule{Allow: list{"inference"}, Models: list{"*"}, When: `request.host == "other.test"`},
		policy.Rule{Allow: list{"inference"}, Models: list{"*"}, When: `request.headers["x-none"] == "a"`},
		policy.Rule{Allow: list{"inference"}, Models: list{"half"}},
	)
	caller := alice()
	want := []string{
		"- is about management", "- is about other models: secret-*", "- is about version 7", "- is about version 4, label:x",
		`- is about callers with scope models.train and group ops; the token has "models.predict openid" and the groups "ml"`,
		"- its condition does not hold", `- its condition failed: "no such key: x-none"`, "+ covers the call",
	}
	for i, s := range p.Trace(&caller, half(t), facts()) {
		sign := "- "
		if s.Covers {
			sign = "+ "
		}
		if got := sign + s.Why; got != want[i] || s.Deny != (i < 3) {
			t.Errorf("%s: %s; want %s", s.Rule, got, want[i])
		}
	}
	if by, err := p.Judge(&caller, half(t), facts()); by != "rules[7]" || err != nil {
		t.Errorf("decided by %q, %v", by, err)
	}
	latest := half(t)
	latest.Version = model.Latest
	if s := p.Trace(&caller, latest, facts())[2]; !s.Covers || s.Why != `covers the call, because "latest" may be version 7` {
		t.Errorf("%+v", s)
	}
	var refused *policy.Refusal
	if by, err := p.Judge(&caller, latest, facts()); by != "rules[2]" || !errors.As(err, &refused) || !strings.Contains(refused.Cause, `rules[2] denies it, version "latest", which may be one of version 7`) {
		t.Errorf("decided by %q, %v", by, err)
	}
}

// A trace and a decision agree for every rule, caller and call.
func TestTraceAgreesWithTheDecision(t *testing.T) {
	d := dialect(t, "tensorflow")
	type versions = setting.List[policy.Version]
	all := []policy.Rule{
		{Deny: list{"management"}, Models: list{"*"}},
		{Deny: list{"predict"}, Models: list{"secret", "s-*"}},
		{Deny: list{"*"}, Models: list{"**"}, Versions: versions{"7"}},
		{Deny: list{"*"}, Models: list{"*"}, When: `call.model == "odd"`},
		{Allow: list{"*"}, Models: list{"half", "secret", "odd"}},
		{Allow: list{"predict"}, Models: list{"*"}, Versions: versions{"7", "label:*"}, Who: policy.Who{Group: list{"ml"}}},
		{Allow: list{"reload", "health"}, Models: list{"*"}, When: `principal.name == "alice"`},
	}
	callers := []identity.Principal{alice(), {Source: "key", Name: "acme"}}
	n := 0
	for mask := 1; mask < 1<<len(all); mask++ {
		var rules []policy.Rule
		for i := range all {
			if mask>>i&1 == 1 {
				rules = append(rules, all[i])
			}
		}
		p := rulesOf(t, d, rules...)
		for _, verb := range []string{"predict", "status", "reload", "health", "frobnicate"} {
			for _, name := range []string{"", "half", "secret", "s-1", "odd"} {
				for _, version := range []string{"", "7", "8", "latest", "label:x"} {
					for i := range callers {
						call := model.Call{Dialect: d, Verb: verb, Model: name, Version: version, Server: name == "" && version == ""}
						denied, allowed := false, false
						for _, s := range p.Trace(&callers[i], call, nil) {
							denied, allowed = denied || s.Covers && s.Deny, allowed || s.Covers && !s.Deny
						}
						_, err := p.Decide(&callers[i], call, nil)
						if (err == nil) != (allowed && !denied) {
							t.Fatalf("%+v by %s with %+v: %v; traced: denied %v, allowed %v", call, callers[i].Name, rules, err, denied, allowed)
						}
						if err == nil && p.Screen(&callers[i], call) != nil {
							t.Fatalf("%+v by %s with %+v: granted and not screened", call, callers[i].Name, rules)
						}
						n++
					}
				}
			}
		}
	}
	if n == 0 {
		t.Error("nothing was compared")
	}
}
