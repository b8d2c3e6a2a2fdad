package login_test

import (
	"net/url"
	"strings"
	"testing"

	"sallyport/auth/login"
)

func TestReturnPageStaysOnHost(t *testing.T) {
	for to, want := range map[string]string{
		"/":                             "/",
		"/a/b?x=1&y=%2F":                "/a/b?x=1&y=%2F",
		"/a#fragment?q":                 "/a",
		"/%6Dodels":                     "/models",
		"/a?next=//evil":                "/a?next=//evil",
		"":                              "/",
		"//evil.example":                "/",
		"///evil.example":               "/",
		"/\\evil.example":               "/",
		"\\\\evil.example":              "/",
		"/a\\b":                         "/",
		"https:evil":                    "/",
		"https://evil":                  "/",
		"javascript:alert()":            "/",
		"evil":                          "/",
		" /a":                           "/",
		"/\t/evil":                      "/",
		"/a\r\nSet-Cookie:x":            "/",
		"/a\x00":                        "/",
		"/a\x7f":                        "/",
		"/%5Cevil":                      "/",
		"/%0d%0aX":                      "/",
		"/.//evil":                      "/",
		"/../evil":                      "/",
		"/a/..//evil":                   "/",
		"/é":                            "/",
		"/.sallyport/":                  "/",
		"/.sallyport":                   "/",
		"/.sallyport/x?y":               "/",
		"/%2esallyport/x":               "/",
		"/" + strings.Repeat("a", 4096): "/",
		"/" + strings.Repeat("^", 1000): "/", // three times as long in canonical form
	} {
		if got := login.ReturnPage(to); got != want {
			t.Errorf("%q: got %q, want %q", to, got, want)
		}
	}
}

// FuzzReturnPage checks what browsers make of the result.
func FuzzReturnPage(f *testing.F) {
	for _, s := range []string{"/", "//evil", "/\\evil", "/a?b#c", "/%2f/evil", "https:evil", "/a\r\nb", "/.sallyport/x"} {
		f.Add(s)
	}
	base, err := url.Parse(origin + login.CallbackPath("corp"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, to string) {
		got := login.ReturnPage(to)
		if login.ReturnPage(got) != got {
			t.Errorf("%q: not canonical: %q becomes %q", to, got, login.ReturnPage(got))
		}
		u, err := base.Parse(got)
		if err != nil || u.Host != host || u.Scheme != "https" || strings.HasPrefix(u.Path, login.Prefix) || strings.ContainsAny(got, "\\\r\n\x00 #") || !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") {
			t.Errorf("%q: %q leads to %v, %v", to, got, u, err)
		}
	})
}
