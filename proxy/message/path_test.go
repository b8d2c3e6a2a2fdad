package message_test

import (
	"errors"
	"net/url"
	"slices"
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
		{"what clients send raw", "/[a]|^{b}\"`<>", "/%5Ba%5D%7C%5E%7Bb%7D%22%60%3C%3E"},
		{"what others escape", "/%5ba%5D", "/%5Ba%5D"},
		{"hidden file", "/.well-known/x", "/.well-known/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, forms, err := message.CanonicalPath(c.raw)
			if err != nil || forms != 0 || got != c.want {
				t.Errorf("CanonicalPath(%q) = %q, %v; want %q", c.raw, got, err, c.want)
			}
			if again, _, err := message.CanonicalPath(got); err != nil || again != got {
				t.Errorf("CanonicalPath(%q) = %q, %v; want it unchanged", got, again, err)
			}
		})
	}
}

func TestCanonicalPathRefusesAmbiguousPaths(t *testing.T) {
	for _, raw := range []string{
		"", "*", "v1", "http://x/v1", "/a/./b", "/a/../b", "/..", "/.", "/a/..", "//..", "/a//../b",
		"/%2e%2e/admin", "/%2E/x", "/a%2e", "/..%2f%2e", "/a%5cb", `/a\b`, "/a%00", "/a%0d%0a", "/a%7f",
		"/a#b", "/a?b", "/a%", "/a%2", "/a%zz", "/a%u002e",
		"/%c0%ae", "/%c0%af", "/%e0%80%af", "/%ff", "/a\xffb", "/café", "/a b", "/a\tb", "/a\x00b", "/a\nb",
	} {
		if got, _, err := message.CanonicalPath(raw); !errors.Is(err, message.ErrAmbiguousPath) {
			t.Errorf("CanonicalPath(%q) = %q, %v; want ErrAmbiguousPath", raw, got, err)
		}
	}
}

func TestCanonicalPathKeepsWhatOnlySomeServersReadInOneWay(t *testing.T) {
	for _, c := range []struct {
		raw, want string
		forms     message.Forms
	}{
		{"/meta%2fllama%2F3", "/meta%2fllama%2F3", message.EncodedSlash},
		{"/100%25.ipynb", "/100%25.ipynb", message.EncodedPercent},
		{"/a%252Fb%61", "/a%252Fba", message.EncodedPercent},
		{"/what%3F", "/what%3F", message.EncodedQuestion},
		{"/c%23", "/c%23", message.EncodedHash},
		{"/a;b%3Bc%3bd", "/a;b%3Bc%3bd", message.Semicolon},
		{"//v1//models/", "//v1//models/", message.DoubleSlash},
		{"/file=https://h/a%2Fb[1].png", "/file=https://h/a%2Fb%5B1%5D.png", message.DoubleSlash | message.EncodedSlash},
	} {
		if got, forms, err := message.CanonicalPath(c.raw); got != c.want || forms != c.forms || err != nil {
			t.Errorf("%q: %q, %b, %v; want %q, %b", c.raw, got, forms, err, c.want, c.forms)
		}
	}
}

func TestCanonicalQueryEscapesWhatClientsSendRaw(t *testing.T) {
	for raw, want := range map[string]string{
		"":                      "",
		"a=b&c=/?:@;%20%2f":     "a=b&c=/?:@;%20%2f",
		"a[]=1|2^{3}\"`<>":      "a%5B%5D=1%7C2%5E%7B3%7D%22%60%3C%3E",
		`file=C:\a`:             "file=C:%5Ca",
		"url=https://h/a.png?x": "url=https://h/a.png?x",
	} {
		if got, err := message.CanonicalQuery(raw); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", raw, got, err, want)
		}
	}
	for _, raw := range []string{"a b", "a#b", "a\x00", "a\x7f", "é", "a\tb"} {
		if got, err := message.CanonicalQuery(raw); !errors.Is(err, message.ErrBadTarget) {
			t.Errorf("%q: %q, %v; want a refusal", raw, got, err)
		}
	}
}

func TestRefusedTargetNamesTheByteAndItsPlace(t *testing.T) {
	for target, want := range map[string]string{
		`/v1\x`:      "%5C at byte 3 of the request target",
		"/a/../b":    ".. at byte 3 of the request target",
		"/a%5cb":     "%5c at byte 2 of the request target",
		"/?a=b#c":    "# at byte 5 of the request target",
		"/a?b=\x01":  "%01 at byte 5 of the request target",
		"/a/%zz/\"b": "%zz at byte 3 of the request target",
	} {
		h := message.Head{Version: message.HTTP11, Method: "GET", Scheme: "https", Authority: "a.test", Target: target}
		var fault *message.TargetError
		if err := h.Settle(); !errors.As(err, &fault) || fault.Place() != want {
			t.Errorf("%q: %v; want %s", target, err, want)
		}
	}
}

func TestReadingsHoldWhatServersMakeOfAPath(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/a%2Fb":    "/v1/a/b",
		"/v1/a%252fb":  "/v1/a/b",
		"/v1/a%255cb":  "/v1/a/b",
		"/v1/%2561":    "/v1/a",
		"/v1//a":       "/v1/a",
		"//h/v1/a":     "/v1/a",
		"/%2Fh/v1":     "/v1",
		"/v1/a;x":      "/v1/a",
		"/v1;x=1/a":    "/v1/a",
		"/v1/a%3Bx/b":  "/v1/a/b",
		"/v1/a%3Fx":    "/v1/a",
		"/v1/a%23x/b":  "/v1/a",
		"/v1/a%2523/b": "/v1/a",
	} {
		if all, ok := message.Readings(path); !ok || !slices.Contains(all, want) {
			t.Errorf("%q: %q, %v; want %q among them", path, all, ok, want)
		}
	}
	for _, path := range []string{"/a%2F..%2Fb", "/..%2Fb", "/a%2F..", "/a%252F%252e%252e", "/a%255c..", "/a%2500b", "/a%250d", "/..;x/b", "/..%3Fx", "/%25252525"} {
		if all, ok := message.Readings(path); ok {
			t.Errorf("%q: %q; want that no reading is known", path, all)
		}
	}
}

func TestAbsoluteTargetIsServedWhereItNamesTheHost(t *testing.T) {
	for _, c := range []struct {
		name            string
		version         message.Version
		method          string
		target, host    string
		wantTarget, got string // what is settled; "" for a refusal
	}{
		{"the host", message.HTTP11, "GET", "https://models.test/a?b", "models.test", "/a?b", "/a"},
		{"another spelling", message.HTTP11, "GET", "HTTPS://Models.TEST:443/a", "models.test", "/a", "/a"},
		{"without a path", message.HTTP11, "GET", "https://models.test", "models.test", "/", "/"},
		{"a query alone", message.HTTP11, "GET", "https://models.test?x=/", "models.test", "/?x=/", "/"},
		{"HTTP/1.0 without Host", message.HTTP10, "GET", "https://models.test/a", "", "/a", "/a"},
		{"HTTP/1.1 without Host", message.HTTP11, "GET", "https://models.test/a", "", "", ""},
		{"another host", message.HTTP11, "GET", "https://other.test/a", "models.test", "", ""},
		{"another port", message.HTTP11, "GET", "https://models.test:8443/a", "models.test", "", ""},
		{"another scheme", message.HTTP11, "GET", "http://models.test/a", "models.test", "", ""},
		{"user information", message.HTTP11, "GET", "https://models.test@other.test/a", "models.test", "", ""},
		{"a backslash", message.HTTP11, "GET", `https://models.test\other.test/a`, "models.test", "", ""},
		{"the server as a whole", message.HTTP11, "OPTIONS", "https://models.test", "models.test", "", ""},
		{"HTTP/2", message.HTTP2, "GET", "https://models.test/a", "models.test", "", ""},
		{"no scheme", message.HTTP11, "GET", "models.test/a", "models.test", "", ""},
	} {
		h := message.Head{Version: c.version, Method: c.method, Scheme: "https", Authority: c.host, Target: c.target}
		err := h.Settle()
		if (err != nil) != (c.got == "") || err == nil && (h.Target != c.wantTarget || h.Path != c.got || h.Authority != "models.test") {
			t.Errorf("%s: %q %q %q, %v; want %q", c.name, h.Target, h.Path, h.Authority, err, c.wantTarget)
		}
	}
}

func TestCanonicalPathAllocatesOnlyIfTheFormChanges(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _, _ = message.CanonicalPath("/v1/models/half_plus_two:predict") }); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}

// What is accepted means the same to a reader who decodes escapes and to one who
// does not, at any depth of decoding.
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a%20b", "/%73", "/a%3Ab", "/..%2f", "/%252e", "/caf%c3%a9", "//x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, forms, err := message.CanonicalPath(raw)
		if err != nil || forms != 0 {
			return
		}
		if again, _, err := message.CanonicalPath(got); err != nil || again != got {
			t.Fatalf("%q: canonical form %q is not stable: %q, %v", raw, got, again, err)
		}
		once, err := url.PathUnescape(got)
		if err != nil {
			t.Fatalf("%q: canonical form %q cannot be decoded: %v", raw, got, err)
		}
		if sent := message.Unescape(raw); sent != once {
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
