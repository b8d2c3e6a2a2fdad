package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
)

// A caller chooses its scopes, groups and claims, and may be refused as often as it likes.
func TestCauseIsBoundedWhateverTheCallerHas(t *testing.T) {
	odd := slices.Repeat([]string{strings.Repeat("\x00ö\"", 100)}, 1000)
	caller := identity.Principal{Source: "issuer/corp", Name: "alice", Scopes: odd, Groups: odd, Claim: func(string) []string { return odd }}
	long := slices.Repeat([]string{"a-value-of-the-operator"}, 100)
	wants := policy.Rule{Allow: []string{"get", "post", "put", "delete", "patch", "options"}, Who: policy.Who{Scope: long}}
	p, err := policy.New(model.Raw(), "rules", []policy.Rule{wants, wants, wants})
	if err != nil {
		t.Fatal(err)
	}
	var refused *policy.Refusal
	if !errors.As(p.Screen(&caller, model.Call{}), &refused) {
		t.Fatal("not refused")
	}
	if n := len(refused.Cause); n > 300 || !strings.Contains(refused.Cause, `; the token has "\x00ö`) {
		t.Errorf("%d bytes: %s", n, refused.Cause)
	}
}

// A rule that covers the call is nearer than one that does not. Among those, the one with fewer
// conditions that the caller does not meet is nearer.
func TestCauseNamesTheNearestRules(t *testing.T) {
	p, err := policy.New(model.Raw(), "policies.readers", []policy.Rule{
		{Allow: []string{"get"}},
		{Allow: []string{"post"}, Who: policy.Who{Scope: []string{"predict"}, Group: []string{"ml"}}},
		{Allow: []string{"*"}, Who: policy.Who{Group: []string{"admins"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	caller := identity.Principal{Source: "issuer/corp", Name: "alice", Scopes: []string{"openid"}, Groups: []string{"dev"}}
	for verb, want := range map[string]string{
		"post": `policies.readers[2] would allow it with group admins; the token has the groups "dev"`,
		"put":  `policies.readers[2] would allow it with group admins; the token has the groups "dev"`,
	} {
		_, err := p.Decide(&caller, model.Call{Dialect: model.Raw(), Verb: verb}, nil)
		var refused *policy.Refusal
		if !errors.As(err, &refused) || refused.Cause != want {
			t.Errorf("%s: %v; want %s", verb, err, want)
		}
	}
}

// A name that a rule misspells is told, although a rule for other callers covers the model.
func TestCauseNamesTheMisspeltModel(t *testing.T) {
	d, _ := model.ByName("triton")
	p, err := policy.New(d, "rules", []policy.Rule{
		{Deny: []string{"management"}, Models: []string{"*"}},
		{Allow: []string{"predict"}, Models: []string{"resnet", "half_plus_tow", "bert"}, Who: policy.Who{Group: []string{"students"}}},
		{Allow: []string{"*"}, Models: []string{"*"}, Who: policy.Who{Group: []string{"admins"}}},
		{Allow: []string{"metadata"}, Models: []string{"*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	student := identity.Principal{Source: "issuer/corp", Name: "alice", Groups: []string{"students"}}
	other := identity.Principal{Source: "issuer/corp", Name: "bob"}
	for _, c := range []struct {
		caller *identity.Principal
		model  string
		want   string
	}{
		{&student, "half_plus_two", `model "half_plus_two" is not "half_plus_tow", which rules[1] allows; rules[2] would allow it with group admins; the token has the groups "students"`},
		{&student, "Resnet", `model "Resnet" is not "resnet", which rules[1] allows; rules[2] would allow it with group admins; the token has the groups "students"`},
		{&student, "gpt", `rules[2] would allow it with group admins; the token has the groups "students"`},
		{&other, "half_plus_two", `rules[2] would allow it with group admins; the token has no groups`},
	} {
		_, err := p.Decide(c.caller, model.Call{Dialect: d, Verb: "predict", Model: c.model, Version: model.Latest}, nil)
		var refused *policy.Refusal
		if !errors.As(err, &refused) || refused.Cause != c.want {
			t.Errorf("%s asks for %s: %v; want %s", c.caller.Name, c.model, refused.Cause, c.want)
		}
	}
	alone, err := policy.New(d, "rules", []policy.Rule{{Allow: []string{"predict"}, Models: []string{"resnet", "bert", "half_plus_tow"}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = alone.Decide(&student, model.Call{Dialect: d, Verb: "predict", Model: "half_plus_two", Version: model.Latest}, nil)
	var refused *policy.Refusal
	if want := `model "half_plus_two" is not "half_plus_tow", which rules[0] allows`; !errors.As(err, &refused) || refused.Cause != want {
		t.Errorf("%v; want %s", err, want)
	}
}
