package policy_test

import (
	"slices"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
)

func TestGuessSaysWhatARecordDoesNotTell(t *testing.T) {
	all := policy.Rule{Allow: list{"predict"}, Models: list{"*"}}
	claim := policy.Who{Claim: map[string]list{"department": {"ml"}}}
	with := func(r policy.Rule, who policy.Who, when string) policy.Rule { r.Who, r.When = who, when; return r }
	deny := policy.Rule{Deny: list{"predict"}, Models: list{"*"}}
	for name, c := range map[string]struct {
		rules   []policy.Rule
		outcome policy.Outcome
		missing []string
	}{
		"allowed":                      {[]policy.Rule{all}, policy.Allowed, nil},
		"refused":                      {[]policy.Rule{{Allow: list{"status"}, Models: list{"*"}}}, policy.Refused, nil},
		"by a scope of the record":     {[]policy.Rule{with(all, policy.Who{Scope: list{"models.predict"}}, "")}, policy.Allowed, nil},
		"without a scope":              {[]policy.Rule{with(all, policy.Who{Scope: list{"models.train"}}, "")}, policy.Refused, nil},
		"by a claim":                   {[]policy.Rule{with(all, claim, "")}, policy.Untold, []string{"claim department"}},
		"by a claim of another caller": {[]policy.Rule{with(all, policy.Who{Claim: claim.Claim, Principal: list{"key:acme"}}, "")}, policy.Refused, nil},
		"a claim does not matter":      {[]policy.Rule{with(all, claim, ""), all}, policy.Allowed, nil},
		"a deny by a claim":            {[]policy.Rule{all, with(deny, claim, "")}, policy.Untold, []string{"claim department"}},
		"a deny that is sure":          {[]policy.Rule{with(all, claim, ""), deny}, policy.Refused, nil},
		"a condition that is known":    {[]policy.Rule{with(all, policy.Who{}, `principal.name == "alice" && request.method == "POST"`)}, policy.Allowed, nil},
		"a condition on a header":      {[]policy.Rule{with(all, policy.Who{}, `request.headers["x-team"] == "ml"`)}, policy.Untold, []string{"the condition of rules[0]"}},
		"a condition on an absence":    {[]policy.Rule{with(all, policy.Who{}, `!("x-team" in request.headers)`)}, policy.Untold, []string{"the condition of rules[0]"}},
		"a condition on a claim":       {[]policy.Rule{with(all, policy.Who{}, `!("x" in principal.claims("y"))`)}, policy.Untold, []string{"the condition of rules[0]"}},
	} {
		caller := identity.Principal{Source: "issuer/corp", Name: "alice", Scopes: []string{"models.predict"}}
		call := model.Call{Dialect: dialect(t, "tensorflow"), Verb: "predict", Model: "half", Version: "3"}
		got := rulesOf(t, call.Dialect, c.rules...).Guess(&caller, call, &policy.Facts{Method: "POST", Recorded: true})
		if got.Outcome != c.outcome || !slices.Equal(got.Missing, c.missing) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
