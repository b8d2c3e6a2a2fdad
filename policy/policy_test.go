package policy_test

import (
	"errors"
	"fmt"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

func alice() identity.Principal {
	return identity.Principal{
		Source: "issuer/corp", Name: "alice", Scopes: []string{"models.predict", "openid"}, Groups: []string{"ml"},
		Claim: func(path string) []string {
			if path == "realm_access.roles" {
				return []string{"user", "trainer"}
			}
			return nil
		},
	}
}

func TestDecide(t *testing.T) {
	type list = setting.List[string]
	bob := identity.Principal{Source: "issuer/other", Name: "alice"}
	for _, c := range []struct {
		name   string
		rules  []policy.Rule
		caller identity.Principal
		verb   string
		want   string // "" for a grant
	}{
		{"everything to everyone", []policy.Rule{{Allow: list{"*"}}}, alice(), "post", ""},
		{"nobody gets nothing", []policy.Rule{{Allow: list{"*"}}}, identity.Principal{}, "post", policy.ReasonForbidden},
		{"no verb", []policy.Rule{{Allow: list{"*"}}}, alice(), "", policy.ReasonForbidden},
		{"verb listed", []policy.Rule{{Allow: list{"get", "post"}}}, alice(), "post", ""},
		{"verb not listed", []policy.Rule{{Allow: list{"get"}}}, alice(), "post", policy.ReasonForbidden},
		{"deny wins though it comes last", []policy.Rule{{Allow: list{"*"}}, {Deny: list{"delete"}}}, alice(), "delete", policy.ReasonForbidden},
		{"deny of another caller", []policy.Rule{{Deny: list{"*"}, Who: policy.Who{Group: list{"interns"}}}, {Allow: list{"*"}}}, alice(), "post", ""},
		{"scope", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models.predict"}}}}, alice(), "post", ""},
		{"one of several scopes", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"admin", "openid"}}}}, alice(), "post", ""},
		{"scope lacking", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models.train"}}}}, alice(), "post", policy.ReasonInsufficientScope},
		{"scope and group lacking", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models.train"}, Group: list{"x"}}}}, alice(), "post", policy.ReasonForbidden},
		{"scope is not a prefix", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Scope: list{"models"}}}}, alice(), "post", policy.ReasonInsufficientScope},
		{"group", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Group: list{"ml"}}}}, alice(), "post", ""},
		{"group compared with case", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Group: list{"ML"}}}}, alice(), "post", policy.ReasonForbidden},
		{"claim", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Claim: map[string]list{"realm_access.roles": {"trainer"}}}}}, alice(), "post", ""},
		{"claim lacking", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Claim: map[string]list{"department": {"ml"}}}}}, alice(), "post", policy.ReasonForbidden},
		{"proof without claims", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Claim: map[string]list{"department": {"ml"}}}}}, bob, "post", policy.ReasonForbidden},
		{"principal", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Principal: list{"issuer/corp:alice"}}}}, alice(), "post", ""},
		{"same name at another source", []policy.Rule{{Allow: list{"*"}, Who: policy.Who{Principal: list{"issuer/corp:alice"}}}}, bob, "post", policy.ReasonForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := policy.New(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			grant, err := p.Decide(&c.caller, model.Call{Dialect: "raw", Verb: c.verb})
			var refused *policy.Refusal
			switch {
			case c.want == "" && (err != nil || !grant.Valid()):
				t.Errorf("refused: %v; want a grant", err)
			case c.want != "" && (!errors.As(err, &refused) || refused.Reason != c.want || grant.Valid()):
				t.Errorf("got %v, grant %v; want %s", err, grant.Valid(), c.want)
			}
		})
	}
}

func TestScreen(t *testing.T) {
	type list = setting.List[string]
	p, err := policy.New([]policy.Rule{
		{Allow: list{"get"}, Who: policy.Who{Scope: list{"models.read"}}},
		{Allow: list{"post"}, Who: policy.Who{Group: list{"ml"}}},
		{Deny: list{"*"}, Who: policy.Who{Claim: map[string]list{"realm_access.roles": {"banned"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	member, stranger := alice(), identity.Principal{Source: "issuer/corp", Name: "eve"}
	if err := p.Screen(&member); err != nil {
		t.Errorf("a member is refused: %v", err)
	}
	var refused *policy.Refusal
	if err := p.Screen(&stranger); !errors.As(err, &refused) || refused.Reason != policy.ReasonInsufficientScope || refused.Scopes[0] != "models.read" {
		t.Errorf("got %v; want insufficient_scope models.read", err)
	}
	banned := alice()
	banned.Claim = func(string) []string { return []string{"banned"} }
	if err := p.Screen(&banned); !errors.As(err, &refused) || refused.Reason != policy.ReasonForbidden {
		t.Errorf("got %v; want forbidden", err)
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	var p policy.Policy
	caller := alice()
	if p.Screen(&caller) == nil {
		t.Error("the zero Policy lets a caller pass the screen")
	}
	if g, err := p.Decide(&caller, model.Call{Dialect: "raw", Verb: "get"}); err == nil || g.Valid() {
		t.Error("the zero Policy grants a call")
	}
	if (policy.Grant{}).Valid() {
		t.Error("the zero Grant is valid")
	}
}

func TestNewRefuses(t *testing.T) {
	for name, rules := range map[string][]policy.Rule{
		"no rules":      nil,
		"neither":       {{}},
		"both":          {{Allow: setting.List[string]{"get"}, Deny: setting.List[string]{"post"}}},
		"upper case":    {{Allow: setting.List[string]{"GET"}}},
		"not a method":  {{Allow: setting.List[string]{"get post"}}},
		"an empty verb": {{Allow: setting.List[string]{""}}},
	} {
		if _, err := policy.New(rules); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p, _ := policy.New([]policy.Rule{{Allow: setting.List[string]{"post"}, Who: policy.Who{Scope: setting.List[string]{"models.predict"}}}})
	caller := alice()
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Decide(&caller, model.Call{Dialect: "raw", Verb: "post"}) }); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}

func ExamplePolicy_Decide() {
	p, _ := policy.New([]policy.Rule{{Allow: setting.List[string]{"post"}, Who: policy.Who{Scope: setting.List[string]{"models.predict"}}}})
	caller := identity.Principal{Source: "issuer/corp", Name: "alice", Scopes: []string{"models.predict"}}
	grant, err := p.Decide(&caller, model.Call{Dialect: "raw", Verb: "post"})
	fmt.Println(grant.Valid(), err)
	_, err = p.Decide(&caller, model.Call{Dialect: "raw", Verb: "delete"})
	fmt.Println(err)
	// Output:
	// true <nil>
	// forbidden
}
