package route

import (
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// FuzzRewriting sees that what is sent upstream is as canonical as what was decided
// on, and lies where the route puts it.
func FuzzRewriting(f *testing.F) {
	for _, seed := range []string{"/a", "/a/", "/a/b", "/ab", "/a//b", "/a/../b", "/a/%2e%2e/b", "/a/%2Fb", "/a:b", "/a/;b", "/a/%c3%a9?x=/../y"} {
		f.Add(seed)
	}
	strip, err := NewRewriting(&Config{Path: "/a", Strip: "/a"})
	if err != nil {
		f.Fatal(err)
	}
	replace, err := NewRewriting(&Config{Path: "/a", Replace: &ReplaceConfig{With: "/b/c"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		h := &message.Head{Version: message.HTTP11, Method: "GET", Scheme: "https", Authority: "a.test", Target: target}
		if h.Settle() != nil {
			return
		}
		for name, w := range map[string]Rewriting{"": strip, "/b/c": replace} {
			got, err := w.Target(h)
			if err != nil {
				if under(h.Path, "/a") {
					t.Errorf("%q: %v", target, err)
				}
				continue
			}
			path, query, _ := strings.Cut(got, "?")
			if canonical, _, err := message.CanonicalPath(path); err != nil || canonical != path {
				t.Errorf("%q becomes %q, which is not canonical", target, got)
			}
			if !under(h.Path, "/a") || name != "" && !under(path, name) || query != h.Query {
				t.Errorf("%q becomes %q", target, got)
			}
			if rest := strings.TrimPrefix(h.Path, "/a"); path != name+rest && (name+rest != "" || path != "/") {
				t.Errorf("%q becomes %q; want what follows the prefix", target, got)
			}
		}
	})
}
