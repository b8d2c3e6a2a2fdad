package route

import (
	"fmt"
	"math"
	"testing"

	"sallyport/policy"
	"sallyport/proxy/setting"
)

func globs(patterns ...string) (all setting.List[setting.Glob]) {
	for _, p := range patterns {
		g, err := setting.ParseGlob(p)
		if err != nil {
			panic(err)
		}
		all = append(all, g)
	}
	return all
}

func releaseOf(weights map[policy.Version]int) *Release {
	return NewRelease(&RewriteConfig{Split: setting.List[SplitConfig]{{Models: globs("*"), Versions: weights}}})
}

// sharesOf returns how many of 10,000 callers get each version of a model.
func sharesOf(r *Release, name string) (of map[string]int, by [10_000]string) {
	of = map[string]int{}
	for i := range by {
		by[i], _ = r.Version(fmt.Sprintf("issuer/corp:user-%d", i), name)
		of[by[i]]++
	}
	return of, by
}

// A binomial share of 10,000 lies within four of its standard deviations.
func TestSharesFollowTheWeights(t *testing.T) {
	for _, weights := range []map[policy.Version]int{
		{"3": 90, "4": 10}, {"3": 99, "4": 1}, {"1": 1, "2": 1, "3": 1, "4": 1}, {"3": 100, "4": 0}, {"a": 999_999, "b": 1},
	} {
		sum := 0
		for _, w := range weights {
			sum += w
		}
		for _, name := range []string{"churn", "half_plus_two", "m"} {
			of, _ := sharesOf(releaseOf(weights), name)
			for v, w := range weights {
				p := float64(w) / float64(sum)
				want, room := 10_000*p, 4*math.Sqrt(10_000*p*(1-p))
				if got := float64(of[string(v)]); math.Abs(got-want) > room || w == 0 && got > 0 {
					t.Errorf("%v of %s: version %s has %v; want %v", weights, name, v, got, want)
				}
			}
		}
	}
}

// A new weight moves callers only to or from its own version, and only the share that must move.
func TestNewWeightsMoveOnlyTheShareThatMust(t *testing.T) {
	_, before := sharesOf(releaseOf(map[policy.Version]int{"1": 10, "3": 80, "4": 10}), "churn")
	_, after := sharesOf(releaseOf(map[policy.Version]int{"1": 10, "3": 80, "4": 90}), "churn")
	moved := 0
	for i := range before {
		if before[i] == after[i] {
			continue
		}
		if moved++; after[i] != "4" {
			t.Fatalf("caller %d moved from %s to %s", i, before[i], after[i])
		}
	}
	if want := 4000.; math.Abs(float64(moved)-want) > 200 {
		t.Errorf("%d callers moved; want about %v", moved, want)
	}
	_, scaled := sharesOf(releaseOf(map[policy.Version]int{"1": 20, "3": 160, "4": 20}), "churn")
	if scaled != before {
		t.Error("weights of the same proportion chose otherwise")
	}
}

func TestModelsAreSplitApart(t *testing.T) {
	r := releaseOf(map[policy.Version]int{"3": 50, "4": 50})
	_, a := sharesOf(r, "a")
	_, b := sharesOf(r, "b")
	same := 0
	for i := range a {
		if a[i] == b[i] {
			same++
		}
	}
	if same < 4800 || same > 5200 {
		t.Errorf("%d of 10000 callers have the same version of two models; want about half", same)
	}
}

// Replicas and later builds must choose alike.
func TestChoicesAreFixed(t *testing.T) {
	got := ""
	r := releaseOf(map[policy.Version]int{"3": 50, "4": 50})
	for i := range 16 {
		v, _ := r.Version(fmt.Sprintf("issuer/corp:user-%d", i), "churn")
		got += v
	}
	if want := "4334443443433444"; got != want {
		t.Errorf("choices %s; want %s", got, want)
	}
}

func TestFirstEntryAboutTheModelChooses(t *testing.T) {
	r := NewRelease(&RewriteConfig{Latest: "label:stable", Split: setting.List[SplitConfig]{
		{Models: globs("churn-*"), Versions: map[policy.Version]int{"4": 1}},
		{Models: globs("churn-eu"), Versions: map[policy.Version]int{"5": 1}},
		{Models: globs("llama"), Upstreams: map[string]int{"gpu": 1}},
		{Models: globs("*"), Upstreams: map[string]int{"cpu": 1}},
	}})
	for _, c := range []struct{ model, version, at, upstream, by string }{
		{"churn-eu", "4", "rewrite.split[0]", "cpu", "rewrite.split[3]"},
		{"half", "label:stable", "rewrite.latest", "cpu", "rewrite.split[3]"},
		{"team/half", "label:stable", "rewrite.latest", "cpu", "rewrite.split[3]"},
		{"llama", "label:stable", "rewrite.latest", "gpu", "rewrite.split[2]"},
		{"", "", "", "cpu", "rewrite.split[3]"},
	} {
		version, at := r.Version("alice", c.model)
		upstream, by := r.Upstream("alice", c.model)
		if version != c.version || at != c.at || upstream != c.upstream || by != c.by {
			t.Errorf("%q: %q by %q, %q by %q; want %+v", c.model, version, at, upstream, by, c)
		}
	}
	var none *Release
	if v, _ := none.Version("alice", "m"); v != "" || none.ChoosesVersions() || none.NeedsModel() {
		t.Error("a nil Release chooses")
	}
}

func TestChoiceDoesNotAllocate(t *testing.T) {
	r := releaseOf(map[policy.Version]int{"3": 90, "4": 10})
	if n := testing.AllocsPerRun(100, func() { r.Version("issuer/corp:alice", "churn") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
