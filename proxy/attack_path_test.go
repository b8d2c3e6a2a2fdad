package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Two places have stricter routes; all other paths are open to every token.
const (
	keptPrefix = "/v1/models/secret"
	keptExact  = "/v1/models/top:predict"
	keptRoutes = `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: ` + keptPrefix + `, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
  - {host: models.test, path: "=` + keptExact + `", upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
`
)

// readings lists how servers may interpret the path of a target: without decoding, with double
// decoding, with case folding, and with the most aggressive known normalisation.
func readings(target string) []string {
	raw, _, _ := strings.Cut(target, "?")
	all := []string{raw}
	for range 3 {
		all = append(all, unquote(all[len(all)-1]))
	}
	for _, p := range all {
		q := strings.ToLower(strings.ReplaceAll(p, "\\", "/"))
		for _, cut := range []string{"", ";", "\x00", "#", "?"} {
			if i := strings.Index(q, cut); cut != "" && i >= 0 {
				q = q[:i]
			}
			all = append(all, q, path.Clean(q))
		}
	}
	return all
}

// unquote decodes as Python's urllib.parse.unquote_to_bytes does; invalid escapes stay.
func unquote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if s[i] == '%' && i+2 < len(s) {
			if n, err := fmt.Sscanf(s[i+1:i+3], "%2x", &c); n == 1 && err == nil && isHex(s[i+1]) && isHex(s[i+2]) {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

// kept reports whether some server could map the target to a restricted place.
func kept(target string) bool {
	for _, p := range readings(target) {
		if p == keptExact || p == keptPrefix || strings.HasPrefix(p, keptPrefix+"/") || strings.HasPrefix(p, keptPrefix+":") {
			return true
		}
	}
	return false
}

// disguises are spellings of the restricted places, and of paths to them.
func disguises() []string {
	var all []string
	for _, p := range []string{keptPrefix, keptPrefix + "/x", keptExact} {
		for i := 1; i < len(p); i++ {
			for _, format := range []string{"%%%02x", "%%%02X", "%%25%02x", "%%2525%02X", "%%%%%02x", "%%u00%02x", "%%C0%%%02x", "\\x%02x", "&#x%02x;"} {
				all = append(all, p[:i]+fmt.Sprintf(format, p[i])+p[i+1:])
			}
			if c := p[i] ^ 0x20; 'A' <= c && c <= 'Z' {
				all = append(all, p[:i]+string(c)+p[i+1:])
			}
			for _, s := range []string{"/", "/./", "/x/../", "\\", "%2f", "%5c", "%252f", "%25252F", "%c0%af", "%e0%80%af", "%c1%9c", "%ef%bc%8f", "%2e/", "/%2e/", "/x/%2e%2e/", "/x/%252e%252e/", "/x/..%2f", ";/", "/;/", ";x=1/", "%3b/", "%00", "%0d%0a", "%09", "%20", "\t", "#/", "%23/", "%3f/", "."} {
				if p[i] == '/' {
					all = append(all, p[:i]+s+p[i+1:])
				}
				all = append(all, p[:i]+s+p[i:])
			}
		}
		for _, tail := range []string{"/", "//", "/.", "/..", "/x/..", ".", "..", "%2e", "%00", "%00.png", ";", ";x", ";/x", "%3b", "?", "?x", "#", "#x", "%23x", "%3fx", "\\", "%5c", "/x%2f..", ":", "%3a", "~", "*", "%2a", "%ff", "%c0%80", "%ed%a0%80", "%f4%90%80%80", "%", "%2", "%zz", "%%32f"} {
			all = append(all, p+tail)
		}
		for _, head := range []string{"/", "//", "/.", "/./", "/../", "/x/..", "/%2e%2e", "\\", "/\\", "/%5c", "/;", "/%00", "/x?/../", "http://models.test", "http://models.test:443", "//models.test", "models.test", "?", "#", "/?", "/#", "/*"} {
			all = append(all, head+p)
		}
		all = append(all, strings.ToUpper(p), strings.ToTitle(p), strings.ReplaceAll(p, "/", "\\"), strings.ReplaceAll(p, "/", "%2F"), strings.ReplaceAll(p, "/", "//"), strings.ReplaceAll(p, "s", "\u017f"), strings.ReplaceAll(p, "s", "%c5%bf"))
	}
	for _, colon := range []string{"%3a", "%3A", "%253a", "::", ":%3a", "%ef%bc%9a", "/:", ":/", "%20:", ":%20", "\uff1a", "%u003a", "/%3a", ".:", ":."} {
		all = append(all, strings.Replace(keptExact, ":", colon, 1))
	}
	return all
}

// pathClient sends raw targets: most over one HTTP/2 connection, which survives refusals, and some
// over HTTP/1.1.
type pathClient struct {
	h     *house
	c     net.Conn
	r     *bufio.Reader
	f     *frames
	sent  uint32
	token string
}

// newPathClient waits until the gateway has the issuer's keys: on a busy machine its first fetch may be late.
func newPathClient(h *house, j *judge) *pathClient {
	h.t.Helper()
	p := &pathClient{h: h, token: h.token()}
	eventually(h.t, "the gateway has the issuer's keys", func() bool { return p.get1("/") != 503 })
	j.taken()
	return p
}

// get returns the status of the answer; 400 if the stream was reset.
func (p *pathClient) get(target string) int {
	p.h.t.Helper()
	if p.sent++; p.sent%10 == 0 {
		return p.get1(target)
	}
	if p.f == nil {
		p.f = p.h.frames()
	}
	_ = p.f.c.SetDeadline(time.Now().Add(time.Minute)) // of this request, not of all
	id := 2*p.sent + 1
	p.f.headers(id, true, ":method: GET", ":scheme: https", ":authority: models.test", ":path: "+target, "authorization: Bearer "+p.token)
	got := p.f.wait(id)
	delete(p.f.got, id)
	if strings.HasPrefix(got, "RST ") {
		return 400
	}
	status, err := strconv.Atoi(got)
	if err != nil {
		p.h.t.Fatalf("%q: %s", target, got)
	}
	return status
}

func (p *pathClient) close() {
	if p.f != nil {
		p.f.c.Close()
	}
	if p.c != nil {
		p.c.Close()
	}
}

func (p *pathClient) get1(target string) int {
	p.h.t.Helper()
	if p.c == nil {
		p.c = p.h.dial("models.test")
		p.r = bufio.NewReader(p.c)
	}
	_ = p.c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(p.c, "GET %s HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\n\r\n", target, p.token)
	res, err := http.ReadResponse(p.r, nil)
	if err != nil {
		p.h.t.Fatalf("%q: %v", target, err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	if res.Close {
		p.c.Close()
		p.c = nil
	}
	return res.StatusCode
}

// No spelling leads an unauthorized caller past a stricter route. It is refused, or no server could
// map the forwarded path to the restricted place.
func TestAttackPathsPastAStricterRoute(t *testing.T) {
	t.Parallel()
	j := newJudge(t, nil)
	h := build(t, plan{routes: strings.ReplaceAll(keptRoutes, "%s", j.URL)})
	c := newPathClient(h, j)
	passed, refused := 0, 0
	for _, target := range disguises() {
		status := c.get(target)
		up := j.taken()
		switch {
		case status == 200 && len(up) == 1 && !kept(up[0].Target):
			passed++
		case status/100 == 4 && len(up) == 0:
			refused++
		default:
			t.Errorf("%q: status %d, upstream %s", target, status, targets(up))
		}
	}
	if passed == 0 || refused < 5*passed {
		t.Errorf("%d passed, %d refused: the table tests something else", passed, refused)
	}
	c.close()
	h.end(j, nil)
}

// Some servers ignore or add a slash at the end, or take a colon for the end of a name. Such paths
// do not bypass a route written with or without them.
func TestAttackEndsOfPaths(t *testing.T) {
	j := newJudge(t, nil)
	routes := `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /admin/, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
  - {host: models.test, path: /v1/models/m, upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
  - {host: models.test, path: "/v1/models/m:classify", upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: "=/docs", upstream: '%s', callers: issuer/corp, rules: [{allow: "*", who: {scope: admin}}]}
`
	h := build(t, plan{routes: strings.ReplaceAll(routes, "%s", j.URL)})
	c := newPathClient(h, j)
	for target, want := range map[string]int{
		"/": 200, "/x": 200, "/x/": 200, "/x:y": 200, "/administration": 200, "/docs/x": 200, "/v1/models/mm:predict": 200, "/v1/models/m:classify": 200, "/v1/models/m:classify/": 200,
		"/admin/": 403, "/admin/x": 403, "/admin": 400, "/Admin": 400, "/docs": 403, "/docs/": 400, "/v1/models/m": 403, "/v1/models/m/": 403, "/v1/models/m:predict": 400, "/v1/models/m:": 400, "/v1/models/m%3Apredict": 400,
	} {
		if got := c.get(target); got != want {
			t.Errorf("%s: %d; want %d", target, got, want)
		}
	}
	c.close()
	h.end(j, nil)
}

// unambiguous checks that all servers agree on a forwarded path, and that it means what the client
// wrote.
func unambiguous(t *testing.T, sent, got string) {
	t.Helper()
	rawPath, rawQuery, _ := strings.Cut(sent, "?")
	gotPath, gotQuery, _ := strings.Cut(got, "?")
	u, err := url.ParseRequestURI(got)
	if err != nil {
		t.Fatalf("%q came up as %q, which net/url does not read: %v", sent, got, err)
	}
	decoded := unquote(gotPath)
	switch {
	case u.Path != decoded:
		t.Errorf("%q came up as %q: net/url reads %q, WSGI %q", sent, got, u.Path, decoded)
	case unquote(rawPath) != decoded:
		t.Errorf("%q came up as %q, which decodes to another path", sent, got)
	case quote(decoded) != gotPath:
		t.Errorf("%q came up as %q: %q has another spelling, %q", sent, got, decoded, quote(decoded))
	case path.Clean(decoded) != strings.TrimSuffix(decoded, "/") && decoded != "/":
		t.Errorf("%q came up as %q, which is not clean", sent, got)
	case strings.ContainsAny(decoded, "\\;#?%\x00\r\n\t\x7f"), strings.ContainsAny(gotQuery, " #\r\n\t\x00\\"):
		t.Errorf("%q came up as %q: some server cuts or decodes that again", sent, got)
	case escaped.Replace(rawQuery) != gotQuery || strings.Contains(sent, "?") != strings.Contains(got, "?"):
		t.Errorf("%q came up as %q, with another query", sent, got)
	}
}

// escaped replaces what clients send raw in queries by its escape.
var escaped = strings.NewReplacer("[", "%5B", "]", "%5D", "|", "%7C", "^", "%5E", "{", "%7B", "}", "%7D", `"`, "%22", "`", "%60", "<", "%3C", ">", "%3E", `\`, "%5C")

// quote returns the canonical spelling of a path.
func quote(decoded string) string {
	const plain = "-._~!$&'()*+,=:@/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var b strings.Builder
	for i := 0; i < len(decoded); i++ {
		if c := decoded[i]; strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Random targets are sent over a real connection.
func TestAttackRandomPaths(t *testing.T) {
	t.Parallel()
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("")})
	c := newPathClient(h, j)
	pieces := strings.Split("/ / / / a b v1 models secret : : %3a %3A . .. %2e %2E %2f %5c %25 %252e \\ ; %3b ? & = # %23 %00 %20 %41 %7e %7E ~ * + @ ! $ ' ( ) , - _ %c3%a9 %C3%A9 %ff %c0%af \u00e9 % %4 %zz [ ] { } | ^ ` \" < >", " ")
	random := rand.New(rand.NewPCG(1, 2))
	passed := 0
	for range 1500 {
		target := "/"
		for range random.IntN(6) {
			target += pieces[random.IntN(len(pieces))]
		}
		status := c.get(target)
		up := j.taken()
		switch {
		case status == 200 && len(up) == 1:
			passed++
			unambiguous(t, target, up[0].Target)
		case status/100 != 4 || len(up) != 0:
			t.Errorf("%q: status %d, upstream %s", target, status, targets(up))
		}
	}
	if passed < 100 {
		t.Errorf("only %d of 1500 passed", passed)
	}
	c.close()
	h.end(j, nil)
}

// FuzzForwardedPath passes a raw target to the pipeline and checks what the upstream gets.
func FuzzForwardedPath(f *testing.F) {
	for i, d := range disguises() {
		if i%40 == 0 {
			f.Add(d)
		}
	}
	for _, s := range []string{"/", "/v1/models/m:predict?a=b", "/caf%c3%a9", "/a%20b/?q=%2e%2e%2f", "/%41%7e", "/?", "//", "/a//b"} {
		f.Add(s)
	}
	j := newJudge(f, nil)
	g := anonymousGateway(f, j.URL)
	f.Fuzz(func(t *testing.T, target string) {
		var s benchStream
		s.conn = wire.NewConn(netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:443"))
		s.head = message.Head{Version: message.HTTP11, Method: "GET", Scheme: "https", Authority: "models.test", Target: target}
		g.Serve(&s)
		up := j.taken()
		j.sound(t)
		switch {
		case s.status == 200 && len(up) == 1:
			unambiguous(t, target, up[0].Target)
		case s.status != 400 || len(up) != 0:
			t.Errorf("%q: status %d, upstream %s", target, s.status, targets(up))
		}
	})
}

// anonymousGateway has one route, open to all.
func anonymousGateway(tb testing.TB, upstream string) *proxy.Gateway {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "gateway.yaml")
	text := fmt.Sprintf(`
listen: {https: "127.0.0.1:0", http: off, health: off}
tls: {local: {}}
audit: {file: /dev/null}
routes: [{host: models.test, upstream: %q, callers: anonymous, rules: [{allow: "*"}]}]
`, upstream)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(file)
	if err != nil {
		tb.Fatal(err)
	}
	g, err := proxy.New(cfg, proxy.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	<-g.Ready()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	return g
}
