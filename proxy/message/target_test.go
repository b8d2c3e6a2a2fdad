package message_test

import (
	"strings"
	"testing"

	"sallyport/proxy/message"
)

func TestCanonicalAuthority(t *testing.T) {
	for _, c := range []struct{ name, raw, scheme, authority, host string }{
		{"plain", "models.example.com", "https", "models.example.com", "models.example.com"},
		{"case", "Models.EXAMPLE.com", "https", "models.example.com", "models.example.com"},
		{"trailing dot", "models.example.com.", "https", "models.example.com", "models.example.com"},
		{"dot and port", "models.example.com.:8443", "https", "models.example.com:8443", "models.example.com"},
		{"own port", "models.example.com:443", "https", "models.example.com", "models.example.com"},
		{"own port of http", "models.example.com:80", "http", "models.example.com", "models.example.com"},
		{"other port", "models.example.com:8443", "https", "models.example.com:8443", "models.example.com"},
		{"empty port", "models.example.com:", "https", "models.example.com", "models.example.com"},
		{"ipv6 and empty port", "[::1]:", "http", "[::1]", "[::1]"},
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
		"", ".", "a..b", "user@host", ":", "host::", "host:0", "host:00443", "host:65536", "host:443x", "host:+443", "[::1", "::1", "[::1%eth0]",
		"[127.0.0.1]", "a b", "a/b", "a\\b", "a,b", "a\x00b", "a%2eb", "héllo", "a:1:2", "[::1]x", strings.Repeat("a", 254),
	} {
		if a, _, err := message.CanonicalAuthority(raw, "https"); err == nil {
			t.Errorf("CanonicalAuthority(%q) = %q; want a refusal", raw, a)
		}
	}
}
