package limit

import (
	"fmt"
	"testing"
	"time"

	"sallyport/proxy/setting"
)

// globs returns patterns of models.
func globs(t *testing.T, patterns ...string) setting.List[setting.Glob] {
	t.Helper()
	var all setting.List[setting.Glob]
	for _, p := range patterns {
		g, err := setting.ParseGlob(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	return all
}

// asks takes one request from s and reports whether it was allowed.
func asks(s Rates, q Asked) bool {
	if s.Wait(&q, Whole) != nil {
		return false
	}
	var t Taken
	return s.Take(&q, Whole, &t) == nil
}

func TestEntriesCountWhatTheyCover(t *testing.T) {
	alice := Asked{Principal: "alice", Client: client, Groups: []string{"a", "b"}, Verb: "predict", Class: "inference", Model: "bert-1"}
	with := func(change func(*Asked)) Asked {
		q := alice
		change(&q)
		return q
	}
	for _, tt := range []struct {
		name  string
		scope Scope
		other Asked // after alice's one request
		want  bool
	}{
		{"same", per("principal"), alice, false},
		{"other model of the same principal", per("principal"), with(func(q *Asked) { q.Model = "gpt" }), false},
		{"other model by principal and model", per("principal", "model"), with(func(q *Asked) { q.Model = "gpt" }), true},
		{"other principal by principal and model", per("principal", "model"), with(func(q *Asked) { q.Principal = "bob" }), true},
		{"other principal by model", per("model"), with(func(q *Asked) { q.Principal = "bob" }), false},
		{"names run together", per("principal", "model"), with(func(q *Asked) { q.Principal, q.Model = "aliceb", "ert-1" }), true},
		{"no model by model", per("model"), with(func(q *Asked) { q.Model = "" }), true},
		{"other verb by verb", per("verb"), with(func(q *Asked) { q.Verb = "classify" }), true},
		{"same verb by verb", per("verb"), with(func(q *Asked) { q.Model, q.Principal = "x", "bob" }), false},
		{"covered verb", Scope{Per: []string{"route"}, Verbs: []string{"predict"}}, with(func(q *Asked) { q.Verb, q.Class = "list", "metadata" }), true},
		{"covered class", Scope{Per: []string{"route"}, Verbs: []string{"inference"}}, with(func(q *Asked) { q.Verb = "classify" }), false},
		{"covered model", Scope{Per: []string{"route"}, Models: globs(t, "gpt", "bert-*")}, with(func(q *Asked) { q.Model = "bert-2" }), false},
		{"model that is not covered", Scope{Per: []string{"route"}, Models: globs(t, "gpt", "bert-*")}, with(func(q *Asked) { q.Model = "bart" }), true},
		{"covered group", Scope{Per: []string{"route"}, Groups: []string{"b"}}, with(func(q *Asked) { q.Principal = "bob" }), false},
		{"group that is not covered", Scope{Per: []string{"route"}, Groups: []string{"b"}}, with(func(q *Asked) { q.Groups = []string{"a"} }), true},
		{"other group by group", Scope{Per: []string{"group"}, Groups: []string{"a", "c"}}, with(func(q *Asked) { q.Groups = []string{"c"} }), true},
		{"one of its groups by group", Scope{Per: []string{"group"}, Groups: []string{"a", "b", "c"}}, with(func(q *Asked) { q.Groups = []string{"c", "b"} }), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClock()
			s := newRates([]RateConfig{{Scope: tt.scope, Limit: rate(1, time.Hour)}}, c.now)
			if !asks(s, alice) {
				t.Fatal("the first request was refused")
			}
			if got := asks(s, tt.other); got != tt.want {
				t.Errorf("rate: the other request was allowed: %t, want %t", got, tt.want)
			}
			places := NewCounters(nil).Lease().Places("", []InFlightConfig{{Scope: tt.scope, Limit: 1}})
			var first, second Entered
			if places.Enter(&alice, Whole, &first) != nil {
				t.Fatal("the first place was refused")
			}
			if got := places.Enter(&tt.other, Whole, &second) == nil; got != tt.want {
				t.Errorf("in flight: the other request was allowed: %t, want %t", got, tt.want)
			}
			first.Leave()
			second.Leave()
			second.Leave()
			if places.Enter(&tt.other, Whole, &second) != nil {
				t.Error("no place once all have left")
			}
			second.Leave()
			if n := len(places.counts.n); n != 0 {
				t.Errorf("%d counts without requests", n)
			}
		})
	}
}

// A caller in several groups is refused if one of them has nothing left, and then takes nothing from
// the others.
func TestCallerCountsInEachOfItsGroups(t *testing.T) {
	s := newRates([]RateConfig{{Scope: Scope{Per: []string{"group"}, Groups: []string{"a", "b"}}, Limit: rate(3, time.Hour)}}, newClock().now)
	both, a, b := Asked{Groups: []string{"b", "a"}}, Asked{Groups: []string{"a"}}, Asked{Groups: []string{"b"}}
	for i, tt := range []struct {
		q    Asked
		want bool
	}{
		{both, true}, {a, true}, {a, true}, // a has none left, b two
		{both, false}, {both, false}, {a, false}, {b, true}, {b, true}, {b, false},
		{Asked{Groups: []string{"c"}}, true}, {Asked{}, true},
	} {
		if got := asks(s, tt.q); got != tt.want {
			t.Errorf("request %d of %v: %t, want %t", i, tt.q.Groups, got, tt.want)
		}
	}
}

// An attacker asks for very many models. Victims that begin to use theirs find room in the table, and
// memory stays bounded.
func TestOneCallersManyModelsLeaveRoomForOthers(t *testing.T) {
	for _, names := range [][]string{{"model"}, {"principal", "model"}} {
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			c := newClock()
			s := newRates([]RateConfig{{Scope: per(names...), Limit: rate(2, time.Hour)}}, c.now)
			allowed := 0
			for i := range 60_000 {
				if asks(s, Asked{Principal: "attacker", Model: fmt.Sprint("m", i)}) {
					allowed++
				}
			}
			if most := maxBegun + 2; allowed > most {
				t.Errorf("the attacker had %d requests, want at most %d", allowed, most)
			}
			sets := 0
			for i := range s[0].shards {
				sets += len(s[0].shards[i].sets)
			}
			if most := 8 * maxBegun; sets > most {
				t.Errorf("the table has %d sets", sets)
			}
			for i := range 200 {
				q := Asked{Principal: "victim", Model: fmt.Sprint("mine", i)}
				for n := range 3 {
					if got := asks(s, q); got != (n < 2) {
						t.Fatalf("request %d of the victim for model %d: %t", n, i, got)
					}
				}
			}
			// Models that the attacker has begun are counted for everybody, or for each by itself.
			first := asks(s, Asked{Principal: "victim", Model: "m1"})
			if got, want := asks(s, Asked{Principal: "victim", Model: "m1"}) && first, len(names) == 2; got != want {
				t.Errorf("the victim had two requests for a model that the attacker began: %t, want %t", got, want)
			}
			c.pass(2 * maxBegun * time.Hour)
			if !asks(s, Asked{Principal: "attacker", Model: "n1"}) || !asks(s, Asked{Principal: "attacker", Model: "n2"}) {
				t.Error("the attacker has no room after a long quiet time")
			}
		})
	}
}

// Late refusals give back, but never let a caller exceed its limit: the allowance may have been full
// in the meantime.
func TestLateRefusalGivesBackNoMoreThanItTook(t *testing.T) {
	c := newClock()
	s := newRates([]RateConfig{{Scope: per("principal"), Limit: rate(60, time.Minute), Burst: 5}}, c.now)
	q := Asked{Principal: "alice"}
	var pending Taken
	for range 5 {
		if s.Take(&q, Early, &pending) != nil {
			t.Fatal("refused within the burst")
		}
	}
	c.pass(time.Minute) // full again
	for i := range 5 {
		if !asks(s, q) {
			t.Fatalf("request %d after a minute was refused", i)
		}
	}
	pending.Give(0)
	if asks(s, q) {
		t.Error("what was given back late came on top of the burst")
	}
	c.pass(time.Minute)
	for range 5 {
		if s.Take(&q, Early, &pending) != nil {
			t.Fatal("refused within the burst")
		}
	}
	pending.Give(0)
	for i := range 5 {
		if !asks(s, q) {
			t.Errorf("request %d after an immediate refusal was refused", i)
		}
	}
}

func TestStagesDecideWhatCounts(t *testing.T) {
	s := newRates([]RateConfig{
		{Scope: per("principal"), Limit: rate(10, time.Hour)},
		{Scope: per("route"), Limit: rate(20, time.Hour)},
		{Scope: per("principal", "model"), Limit: rate(30, time.Hour)},
		{Scope: Scope{Per: []string{"route"}, Models: globs(t, "*")}, Limit: rate(40, time.Hour)},
	}, newClock().now)
	q := Asked{Principal: "alice", Model: "m"}
	for stage, want := range map[Stage][]string{
		Early:  {"10/h per principal"},
		Shared: {"20/h per route"},
		Late:   {"30/h per principal, model", "40/h per route"},
		Whole:  {"10/h per principal", "20/h per route", "30/h per principal, model", "40/h per route"},
	} {
		var taken Taken
		if s.Take(&q, stage, &taken) != nil {
			t.Fatal("refused")
		}
		var got []string
		for _, one := range taken {
			got = append(got, one.entry.words)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("stage %b counts %q, want %q", stage, got, want)
		}
	}
}

func TestQuotaNamesTheNearestLimit(t *testing.T) {
	c := newClock()
	s := newRates([]RateConfig{
		{Scope: per("route"), Limit: rate(1000, time.Second), Burst: 50},
		{Scope: per("principal"), Limit: rate(4, time.Minute)},
		{Scope: Scope{Per: []string{"principal"}, Verbs: []string{"predict"}}, Limit: rate(4, time.Minute), Burst: 40},
	}, c.now)
	q := Asked{Principal: "alice", Verb: "predict"}
	for i, want := range []string{`"4/m per principal";r=3;t=15`, `"4/m per principal";r=2;t=15`, `"4/m per principal";r=1;t=15`} {
		var taken Taken
		if s.Take(&q, Whole, &taken) != nil {
			t.Fatal("refused")
		}
		if got := taken.Nearest(); got.State != want || got.Policy != `"4/m per principal";q=4;w=60` {
			t.Errorf("request %d: %+v, want %s", i, got, want)
		}
	}
	c.pass(3500 * time.Millisecond)
	var taken Taken
	if s.Take(&q, Whole, &taken) != nil {
		t.Fatal("refused")
	}
	if got := taken.Nearest().State; got != `"4/m per principal";r=0;t=12` {
		t.Errorf("after 3.5s: %s", got)
	}
	over := s.Wait(&q, Whole)
	if over == nil || over.Quota.State != `"4/m per principal";r=0;t=12` || over.Retry != 11500*time.Millisecond {
		t.Errorf("the refusal says %+v", over)
	}
	if p := s[2].policy; p != `"4/m per principal #2";q=4;w=60;sallyport-burst=40` {
		t.Errorf("the third entry is %s", p)
	}
}

// Requests in flight under several entries: all places or none, under concurrency.
func TestPlacesAreTakenTogetherOrNotAtAll(t *testing.T) {
	places := NewCounters(nil).Lease().Places("", []InFlightConfig{
		{Scope: per("route"), Limit: 4},
		{Scope: per("model"), Limit: 2},
	})
	a, b := Asked{Model: "a"}, Asked{Model: "b"}
	var all [4]Entered
	for i := range 2 {
		if places.Enter(&a, Whole, &all[i]) != nil {
			t.Fatal("refused")
		}
	}
	for range 100 {
		var e Entered
		if over := places.Enter(&a, Whole, &e); over == nil || over.Words != "2 in flight per model" || over.Quota.Policy != `"2 in flight per model";q=2;qu="concurrent-requests"` {
			t.Fatalf("the third request for a: %+v", over)
		}
		e.Leave()
	}
	for i := range 2 {
		if places.Enter(&b, Whole, &all[2+i]) != nil {
			t.Fatal("refused requests hold places of the route")
		}
	}
	for i := range all {
		all[i].Leave()
	}
	if len(places.counts.n) != 0 {
		t.Errorf("left: %v", places.counts.n)
	}
}

// A reload keeps the counts of entries that stay, in whatever order per lists its words.
func TestPlacesKeepCountingOverReloads(t *testing.T) {
	counters := NewCounters(nil)
	before, after := counters.Lease(), counters.Lease()
	q := Asked{Principal: "alice", Model: "m"}
	var held, next Entered
	if before.Places("r", []InFlightConfig{{Scope: per("principal", "model"), Limit: 5}}).Enter(&q, Whole, &held) != nil {
		t.Fatal("refused")
	}
	narrow := after.Places("r", []InFlightConfig{{Scope: per("model", "principal"), Limit: 1}, {Scope: per("model", "principal"), Limit: 9}})
	before.Release()
	if narrow.Enter(&q, Whole, &next) == nil {
		t.Error("the new configuration does not count the request of the old one")
	}
	held.Leave()
	if narrow.Enter(&q, Whole, &next) != nil {
		t.Error("refused although the request of the old configuration has ended")
	}
}
