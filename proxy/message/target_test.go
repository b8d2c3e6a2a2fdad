package message_test

import (
	"net/url"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

func TestCanonicalPath(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"root", "/", "/"},
		{"plain", "/v1/models/m:predict", "/v1/models/m:predict"},
		{"trailing slash", "/v1/", "/v1/"},
		{"escaped letter", "/v1/models/%73ecret", "/v1/models/secret"},
		{"escaped colon", "/v1/models/secret%3Apredict", "/v1/models/secret:predict"},
		{"space stays escaped", "/a%20b", "/a%20b"},
		{"hex digits upper", "/caf%c3%a9", "/caf%C3%A9"},
		{"already upper", "/caf%C3%A9", "/caf%C3%A9"},
		{"three dots are a name", "/...", "/..."},
		{"hidden file", "/.well-known/x", "/.well-known/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := message.CanonicalPath(c.raw)
			if err != nil || got != c.want {
				t.Errorf("CanonicalPath(%q) = %q, %v; want %q", c.raw, got, err, c.want)
			}
			if again, err := message.CanonicalPath(got); err != nil || again != got {
				t.Errorf("CanonicalPath(%q) = %q, %v; want it unchanged", got, again, err)
			}
		})
	}
}

func TestCanonicalPathRefusesAmbiguousPaths(t *testing.T) {
	for _, raw := range []string{
		"", "*", "v1", "http://x/v1", "//", "//x/v1/models/secret:predict", "/a//b", "/a/./b", "/a/../b", "/..", "/.", "/a/..",
		"/%2e%2e/admin", "/%2E/x", "/a%2e", "/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, "/a%00", "/a%0d%0a", "/a%7f", "/a;b", "/a%3bb", "/a;jsessionid=1",
		"/a#b", "/a%23b", "/a%3fb", "/a%252e", "/a%252fb", "/a%25252e", "/a%", "/a%2", "/a%zz", "/a%u002e",
		"/%c0%ae", "/%c0%af", "/%e0%80%af", "/%ff", "/a\xffb", "/café", "/a b", "/a\tb", "/a\x00b", "/a\nb", `/a"b`, "/a<b>", "/a|b", "/a^b", "/a`b", "/{a}", "/[a]",
	} {
		if got, err := message.CanonicalPath(raw); err != message.ErrAmbiguousPath {
			t.Errorf("CanonicalPath(%q) = %q, %v; want ErrAmbiguousPath", raw, got, err)
		}
	}
}

func TestCanonicalPathAllocatesOnlyIfTheFormChanges(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = message.CanonicalPath("/v1/models/half_plus_two:predict") }); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}

// An accepted path means the same to readers that decode escapes and to readers that do not, at
// any depth of decoding.
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a%20b", "/%73", "/a%3Ab", "/..%2f", "/%252e", "/caf%c3%a9", "//x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := message.CanonicalPath(raw)
		if err != nil {
			return
		}
		if again, err := message.CanonicalPath(got); err != nil || again != got {
			t.Fatalf("%q: canonical form %q is not stable: %q, %v", raw, got, again, err)
		}
		once, err := url.PathUnescape(got)
		if err != nil {
			t.Fatalf("%q: canonical form %q cannot be decoded: %v", raw, got, err)
		}
		if sent, _ := url.PathUnescape(raw); sent != once {
			t.Fatalf("%q decodes to %q, its canonical form %q to %q", raw, sent, got, once)
		}
		if strings.Count(once, "/") != strings.Count(got, "/") || strings.ContainsAny(once, "\\;?#%\x00\r\n") {
			t.Fatalf("%q: decoding %q changes its structure", raw, got)
		}
		for _, segment := range strings.Split(once, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q: dot segment in %q", raw, once)
			}
		}
		if strings.Contains(once, "//") {
			t.Fatalf("%q: empty segment in %q", raw, once)
		}
	})
}

func TestCanonicalAuthority(t *testing.T) {
	for _, c := range []struct{ name, raw, scheme, authority, host string }{
		{"plain", "models.example.com", "https", "models.example.com", "models.example.com"},
		{"case", "Models.EXAMPLE.com", "https", "models.example.com", "models.example.com"},
		{"trailing dot", "models.example.com.", "https", "models.example.com", "models.example.com"},
		{"dot and port", "models.example.com.:8443", "https", "models.example.com:8443", "models.example.com"},
		{"own port", "models.example.com:443", "https", "models.example.com", "models.example.com"},
		{"own port of http", "models.example.com:80", "http", "models.example.com", "models.example.com"},
		{"other port", "models.example.com:8443", "https", "models.example.com:8443", "models.example.com"},
		{"ipv4", "127.0.0.1:9443", "https", "127.0.0.1:9443", "127.0.0.1"},
		{"ipv6", "[0:0::1]:9443", "https", "[::1]:9443", "[::1]"},
		{"underscore", "model_a.internal", "https", "model_a.internal", "model_a.internal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, h, err := message.CanonicalAuthority(c.raw, c.scheme)
			if err != nil || a != c.authority || h != c.host {
				t.Errorf("got %q, %q, %v; want %q, %q", a, h, err, c.authority, c.host)
			}
		})
	}
	for _, raw := range []string{
		"", ".", "a..b", "user@host", "host:", "host:0", "host:00443", "host:65536", "host:443x", "host:+443", "[::1", "::1", "[::1%eth0]",
		"[127.0.0.1]", "a b", "a/b", "a\\b", "a,b", "a\x00b", "a%2eb", "héllo", "a:1:2", "[::1]x", strings.Repeat("a", 254),
	} {
		if a, _, err := message.CanonicalAuthority(raw, "https"); err == nil {
			t.Errorf("CanonicalAuthority(%q) = %q; want a refusal", raw, a)
		}
	}
}
