package route

import (
	"strings"
	"testing"
)

// FuzzLongestPrefix compares the lookup by segments with a walk over all prefixes.
func FuzzLongestPrefix(f *testing.F) {
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/models", "/v1/models/m:predict", "/v1beta", "/v1//x", "/V1", "", "v1", "/v1/models/"} {
		f.Add(path, "/ /v1 /v1/models /v1/models/ /v1/models/m")
	}
	f.Fuzz(func(t *testing.T, path, configured string) {
		all, want := map[string]int{}, ""
		for i, p := range strings.Fields(configured) {
			if p[0] != '/' {
				continue
			}
			all[p] = i
			if under(path, p) && len(p) > len(want) {
				want = p
			}
		}
		got, _, ok := longestPrefix(all, path)
		if got != want || ok != (want != "") {
			t.Errorf("%q under %q: %q, %v; want %q", path, configured, got, ok, want)
		}
	})
}

func TestMatchOfManyRoutesDoesNotAllocate(t *testing.T) {
	h := &hostRoutes{prefixes: map[string][]*Route{}, exact: map[string][]*Route{}, foldedExact: map[string]string{}, foldedPrefixes: map[string]string{}}
	for _, p := range []string{"/", "/v1", "/v1/models/a", "/v1/models/b", "=/v1/models"} {
		h.add(p, &Route{Name: p})
	}
	if n := testing.AllocsPerRun(100, func() {
		if p, _ := h.find("/v1/models/b:predict/x"); p != "/v1" {
			t.Fatalf("found %q", p)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
