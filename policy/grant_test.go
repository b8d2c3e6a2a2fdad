package policy_test

import (
	"errors"
	"testing"

	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// dialect returns the dialect of a name that exists.
func dialect(t testing.TB, name string) *model.Dialect {
	t.Helper()
	d, ok := model.ByName(name)
	if !ok {
		t.Fatalf("no dialect %q", name)
	}
	return d
}

// rulesOf compiles rules for servers of a dialect.
func rulesOf(t testing.TB, d *model.Dialect, rules ...policy.Rule) *policy.Policy {
	t.Helper()
	p, err := policy.New(d, "rules", rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forbids checks that err refuses without a hint at scopes.
func forbids(t testing.TB, what string, err error) {
	t.Helper()
	var refused *policy.Refusal
	if !errors.As(err, &refused) || refused.Reason != policy.ReasonForbidden {
		t.Errorf("%s: got %v; want forbidden", what, err)
	}
}

var allowPredict = policy.Rule{Allow: setting.List[string]{"predict"}, Models: setting.List[string]{"*"}}

// otherCalls are calls that differ from c in one respect each.
func otherCalls(t testing.TB, c model.Call) map[string]model.Call {
	t.Helper()
	all := map[string]model.Call{"no call": {}}
	alter := func(name string, change func(*model.Call)) {
		other := c
		change(&other)
		all[name] = other
	}
	alter("another dialect", func(c *model.Call) { c.Dialect = dialect(t, "triton") })
	alter("no dialect", func(c *model.Call) { c.Dialect = nil })
	alter("another verb", func(c *model.Call) { c.Verb = "reload" })
	alter("another model", func(c *model.Call) { c.Model = "secret" })
	alter("no model", func(c *model.Call) { c.Model = "" })
	alter("another version", func(c *model.Call) { c.Version = "4" })
	alter("no version", func(c *model.Call) { c.Version = "" })
	return all
}

func TestGrantPermitsItsCallAlone(t *testing.T) {
	d, caller := dialect(t, "tensorflow"), alice()
	call := model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "3"}
	grant, err := rulesOf(t, d, allowPredict).Decide(&caller, call, nil)
	if err != nil || !grant.Valid() || !grant.Permits(call) || grant.Call() != call {
		t.Fatalf("got a grant for %+v, %v; want one for %+v", grant.Call(), err, call)
	}
	for name, other := range otherCalls(t, call) {
		if grant.Permits(other) {
			t.Errorf("%s is permitted too", name)
		}
	}
}

func TestZeroGrantsPermitNothing(t *testing.T) {
	call := model.Call{Dialect: dialect(t, "tensorflow"), Verb: "predict"}
	if g := (policy.Grant{}); g.Valid() || g.Permits(call) || g.Permits(model.Call{}) || g.Call() != (model.Call{}) {
		t.Error("the zero Grant permits a call")
	}
	var p policy.Provisional
	if p.Valid() || p.Permits(call) || p.Permits(model.Call{}) {
		t.Error("the zero Provisional permits a call")
	}
	for name, call := range map[string]model.Call{"a call": call, "the zero call": {}} {
		grant, err := p.Complete(call)
		forbids(t, "completing the zero Provisional with "+name, err)
		if grant.Valid() {
			t.Errorf("the zero Provisional becomes a grant for %s", name)
		}
	}
}

func TestProvisionalIsOnlyForServersThatActOnTheWhole(t *testing.T) {
	caller := alice()
	for _, name := range model.Names() {
		d := dialect(t, name)
		call := model.Call{Dialect: d, Verb: "post"}
		if verbs := d.Verbs(); len(verbs) > 0 {
			call.Verb = verbs[0]
		}
		p, err := rulesOf(t, d, policy.Rule{Allow: setting.List[string]{"*"}}).Provide(&caller, call, nil)
		if d.ActsOnWhole() {
			if err != nil || !p.Valid() || !p.Permits(call) {
				t.Errorf("%s: refused: %v", name, err)
			}
			continue
		}
		forbids(t, name, err)
		if p.Valid() || p.Permits(call) {
			t.Errorf("%s: the Provisional is valid", name)
		}
	}
}

func TestProvisionalPermitsItsCallAlone(t *testing.T) {
	d, caller := dialect(t, "tensorflow"), alice()
	call := model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "3"}
	p, err := rulesOf(t, d, allowPredict).Provide(&caller, call, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range otherCalls(t, call) {
		if p.Permits(other) {
			t.Errorf("%s is permitted too", name)
		}
	}
}

func TestProvideRefusesAsDecideDoes(t *testing.T) {
	d, caller := dialect(t, "tensorflow"), alice()
	p := rulesOf(t, d, allowPredict)
	for name, c := range map[string]struct {
		caller identity.Principal
		call   model.Call
	}{
		"a verb without a rule": {caller, model.Call{Dialect: d, Verb: "reload"}},
		"nobody":                {identity.Principal{}, model.Call{Dialect: d, Verb: "predict"}},
		"no call":               {caller, model.Call{}},
		"no dialect":            {caller, model.Call{Verb: "predict"}},
	} {
		got, err := p.Provide(&c.caller, c.call, nil)
		forbids(t, name, err)
		if got.Valid() {
			t.Errorf("%s: the Provisional is valid", name)
		}
	}
}

func TestCompleteAddsButNeverChanges(t *testing.T) {
	d, caller := dialect(t, "tensorflow"), alice()
	p := rulesOf(t, d, policy.Rule{Allow: setting.List[string]{"*"}})
	begun := model.Call{Dialect: d, Verb: "predict", Model: "half"}
	for _, c := range []struct {
		name    string
		begun   model.Call
		whole   model.Call
		granted bool
	}{
		{"the body names nothing", begun, begun, true},
		{"the body names the version alone", begun, model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "3"}, false},
		{"the body names the model", model.Call{Dialect: d, Verb: "predict"}, model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "3", Signature: "s"}, true},
		{"another model", begun, model.Call{Dialect: d, Verb: "predict", Model: "secret"}, false},
		{"the model is gone", begun, model.Call{Dialect: d, Verb: "predict"}, false},
		{"another version", model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "3"}, model.Call{Dialect: d, Verb: "predict", Model: "half", Version: "4"}, false},
		{"another verb", begun, model.Call{Dialect: d, Verb: "status", Model: "half"}, false},
		{"another dialect", begun, model.Call{Dialect: dialect(t, "triton"), Verb: "predict", Model: "half"}, false},
		{"the zero call", begun, model.Call{}, false},
	} {
		provisional, err := p.Provide(&caller, c.begun, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		grant, err := provisional.Complete(c.whole)
		if c.granted {
			if err != nil || !grant.Permits(c.whole) {
				t.Errorf("%s: refused: %v", c.name, err)
			}
			continue
		}
		forbids(t, c.name, err)
		if grant.Valid() {
			t.Errorf("%s: the grant is valid", c.name)
		}
	}
}

func TestCompleteRefusesACallerWhoIsGone(t *testing.T) {
	d, caller := dialect(t, "tensorflow"), alice()
	call := model.Call{Dialect: d, Verb: "predict"}
	provisional, err := rulesOf(t, d, allowPredict).Provide(&caller, call, nil)
	if err != nil {
		t.Fatal(err)
	}
	caller = identity.Principal{}
	grant, err := provisional.Complete(call)
	forbids(t, "completing for nobody", err)
	if grant.Valid() {
		t.Error("the grant is valid")
	}
}
