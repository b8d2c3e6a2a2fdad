package policy_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

func facts() *policy.Facts {
	return &policy.Facts{
		Method: "POST", Path: "/v1/models/half:predict", Host: "models.test", Client: netip.MustParseAddr("10.1.2.3"), Size: 100,
		Headers: map[string]string{"x-team": "ml"}, TLS: "1.3", Peer: netip.MustParseAddr("10.9.9.9"), HTTP: "2",
	}
}

func half(t testing.TB) model.Call {
	return model.Call{Dialect: dialect(t, "tensorflow"), Verb: "predict", Model: "half", Version: "3", Signature: "sig"}
}

// whenever compiles two rules with one condition: what the first policy allows, and what the second
// does not deny.
func whenever(t testing.TB, expression string) (allow, deny *policy.Policy) {
	t.Helper()
	d := dialect(t, "tensorflow")
	return rulesOf(t, d, policy.Rule{Allow: list{"predict"}, Models: list{"*"}, When: expression}),
		rulesOf(t, d, policy.Rule{Allow: list{"predict"}, Models: list{"*"}}, policy.Rule{Deny: list{"*"}, Models: list{"*"}, When: expression})
}

func TestConditionsAskForFacts(t *testing.T) {
	caller := alice()
	caller.Alias = "batch"
	for _, expression := range []string{
		`principal.name == "alice" && principal.source == "issuer/corp" && principal.alias == "batch"`,
		`"models.predict" in principal.scopes && principal.groups.exists(g, g == "ml")`,
		`"trainer" in principal.claims("realm_access.roles") && principal.claims("none").size() == 0`,
		`call.dialect == "tensorflow" && call.verb == "predict" && call.class == "inference" && call.model == "half" && call.version == "3" && call.signature == "sig"`,
		`request.method == "POST" && request.path.startsWith("/v1/models/") && request.host == "models.test" && request.client == "10.1.2.3"`,
		`request.size < 1000 && request.headers["x-team"] == "ml" && !("x-none" in request.headers) && !has(request.headers.x_none)`,
		`connection.tls == "1.3" && connection.peer == "10.9.9.9" && connection.http == "2"`,
		`request.path.matches("^/v1/models/[a-z]+:predict$")`,
	} {
		allow, deny := whenever(t, expression)
		if grant, err := allow.Decide(&caller, half(t), facts()); err != nil || !grant.Permits(half(t)) {
			t.Errorf("%s: refused: %v", expression, err)
		}
		if _, err := deny.Decide(&caller, half(t), facts()); err == nil {
			t.Errorf("%s: not denied", expression)
		}
		allow, deny = whenever(t, "!("+expression+")")
		if _, err := allow.Decide(&caller, half(t), facts()); err == nil {
			t.Errorf("the contrary of %s: allowed", expression)
		}
		if _, err := deny.Decide(&caller, half(t), facts()); err != nil {
			t.Errorf("the contrary of %s: denied: %v", expression, err)
		}
	}
}

// What is not known makes an expression fail. So a caller gains nothing by leaving it out.
func TestFailedConditionsNeverAllow(t *testing.T) {
	for name, c := range map[string]struct {
		expression string
		change     func(*model.Call, *policy.Facts)
	}{
		"no model":          {`call.model.startsWith("secret")`, func(c *model.Call, _ *policy.Facts) { c.Model = "" }},
		"no version":        {`call.version == "3"`, func(c *model.Call, _ *policy.Facts) { c.Version = "" }},
		"no length":         {`request.size > 1000`, func(_ *model.Call, f *policy.Facts) { f.Size = -1 }},
		"no such header":    {`request.headers["x-team"] == "interns"`, func(_ *model.Call, f *policy.Facts) { f.Headers = nil }},
		"no client address": {`request.client == "10.0.0.1"`, func(_ *model.Call, f *policy.Facts) { f.Client = netip.Addr{} }},
		"no first value":    {`principal.claims("none")[0] == "x"`, func(*model.Call, *policy.Facts) {}},
		"a number too long": {`int(request.headers["x-team"]) == 1`, func(*model.Call, *policy.Facts) {}},
		"hidden by dyn":     {`dyn(principal).x == 1`, func(*model.Call, *policy.Facts) {}},
		"too many steps": {`request.headers["x"].matches("(a|aa)+$") && request.headers["x"].contains(request.headers["y"])`, func(_ *model.Call, f *policy.Facts) {
			f.Headers = map[string]string{"x": strings.Repeat("a", 60000), "y": strings.Repeat("a", 3000)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			call, about, caller := half(t), facts(), alice()
			c.change(&call, about)
			allow, deny := whenever(t, c.expression)
			var refused *policy.Refusal
			if _, err := allow.Decide(&caller, call, about); !errors.As(err, &refused) || !strings.Contains(refused.Cause, "rules[0] does not allow it, because its condition failed: ") {
				t.Errorf("allow: %v", err)
			}
			if _, err := deny.Decide(&caller, call, about); !errors.As(err, &refused) || !strings.Contains(refused.Cause, "because its condition failed: ") || refused.Rule != "rules[1]" {
				t.Errorf("deny: %v", err)
			}
			if n := len(refused.Cause); n > 250 {
				t.Errorf("a cause of %d bytes", n)
			}
		})
	}
	allow, deny := whenever(t, `request.method == "POST"`)
	caller := alice()
	if _, err := allow.Decide(&caller, half(t), nil); err == nil {
		t.Error("allowed without facts")
	}
	if _, err := deny.Decide(&caller, half(t), nil); err == nil {
		t.Error("not denied without facts")
	}
}

func TestConditionsAreCheckedAtLoad(t *testing.T) {
	for expression, want := range map[string]string{
		`principal.nam == "alice"`:    "did you mean principal.name?",
		`principal == "alice"`:        "no matching overload",
		`user.name == "alice"`:        "there are principal.name",
		`principal == principal`:      "may take any number of steps",
		`principal.claims == ["a"]`:   "did you mean",
		`call.model`:                  "the expression is a string, not true or false",
		`principal.groups.exists(g, `: "Syntax error",
		`principal.scopes == 1`:       "no matching overload",
		`request.size > "1"`:          "no matching overload",
		`request.path.matches("[")`:   "write another constant",
		`principal.groups.exists(a, principal.groups.exists(b, principal.scopes.exists(c, principal.scopes.exists(d, a == b && c == d))))`: "write fewer loops",
		strings.Repeat("true || ", 300) + "true": "longer than 2048 bytes",
		`dyn(1)`:                                 "not true or false",
	} {
		rules := []policy.Rule{{Allow: list{"*"}, When: expression}}
		var f setting.Faults
		policy.Check("rules", rules, &f)
		if len(f) != 1 || f[0].Path != "rules[0].when" || f[0].Cure == "" || !strings.Contains(f[0].Problem+"; "+f[0].Cure, want) {
			t.Errorf("%.60s: %v; want %s", expression, f, want)
		}
		if _, err := policy.New(model.Raw(), "rules", rules); err == nil {
			t.Errorf("%.60s: compiled", expression)
		}
	}
}

func TestConditionsMayBeEvaluatedAtOnce(t *testing.T) {
	allow, _ := whenever(t, `principal.name == "alice" && request.headers["x-team"] == "ml" && "trainer" in principal.claims("realm_access.roles")`)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			caller, about := alice(), facts()
			if i%2 == 1 {
				about.Headers = map[string]string{"x-team": "other"}
			}
			for range 200 {
				if _, err := allow.Decide(&caller, half(t), about); (err == nil) != (i%2 == 0) {
					t.Errorf("caller %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

// A scope is asked for only if the condition of the rule holds too.
func TestConditionDecidesWhetherAScopeWouldDo(t *testing.T) {
	caller := identity.Principal{Source: "issuer/corp", Name: "eve", Claim: func(string) []string { return nil }}
	for expression, want := range map[string]string{
		`request.method == "POST"`: policy.ReasonInsufficientScope,
		`request.method == "GET"`:  policy.ReasonForbidden,
		`request.headers.x == "y"`: policy.ReasonForbidden,
	} {
		p := rulesOf(t, dialect(t, "tensorflow"), policy.Rule{Allow: list{"predict"}, Models: list{"*"}, When: expression, Who: policy.Who{Scope: list{"models.predict"}}})
		var refused *policy.Refusal
		if _, err := p.Decide(&caller, half(t), facts()); !errors.As(err, &refused) || refused.Reason != want {
			t.Errorf("%s: %v; want %s", expression, err, want)
		}
	}
}

func BenchmarkDecideWithACondition(b *testing.B) {
	p, _ := whenever(b, `principal.groups.exists(g, g == "ml") && request.headers["x-team"] == "ml"`)
	caller, about, call := alice(), facts(), half(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Decide(&caller, call, about); err != nil {
			b.Fatal(err)
		}
	}
}

// Whoever a condition keeps out reads in the cause what it saw of them: most often a claim did not come.
func TestCauseOfAConditionTellsWhatItReads(t *testing.T) {
	with := func(claims map[string][]string) identity.Principal {
		p := alice()
		p.Claim = func(path string) []string { return claims[path] }
		return p
	}
	const domain = `principal.claims("email").exists(e, e.endsWith("@example.com"))`
	for _, c := range []struct {
		when   string
		caller identity.Principal
		want   string
	}{
		{domain, with(nil), "; the token has no email"},
		{domain, with(map[string][]string{"email": {"alice@other.example"}}), `; the token has email "alice@other.example"`},
		{`"ops" in principal.groups || "train" in principal.scopes`, with(nil), `; the token has the groups "ml" and "models.predict openid"`},
		{`principal.claims("a.b") == ["x"] && principal.claims("a.b") == principal.claims("c")`, with(map[string][]string{"c": {"y"}}), `; the token has no a.b and c "y"`},
		{`request.host == "other.test"`, with(nil), ""},
		{strings.Repeat(`principal.claims("a") == ["x"] || `, 8) + `principal.claims("b") == ["x"]`, with(map[string][]string{"b": {"y"}}), `; the token has no a and b "y"`},
	} {
		p := rulesOf(t, dialect(t, "tensorflow"), policy.Rule{Allow: list{"predict"}, Models: list{"*"}, When: c.when})
		_, err := p.Judge(&c.caller, half(t), facts())
		var refused *policy.Refusal
		if want := "rules[0] does not allow it, because its condition does not hold" + c.want; !errors.As(err, &refused) || refused.Cause != want {
			t.Errorf("%s: got %v, want %s", c.when, err, want)
		}
		if got, want := p.Trace(&c.caller, half(t), facts())[0].Why, "its condition does not hold"+c.want; got != want {
			t.Errorf("%s: traced %q, want %q", c.when, got, want)
		}
	}
}
