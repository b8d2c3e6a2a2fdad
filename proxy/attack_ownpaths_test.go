package proxy_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"sallyport/proxy"
)

// ownPathSpellings are ways to write paths of the gateway's own pages, or nearly those.
func ownPathSpellings() []string {
	return []string{
		"/.sallyport/session", "/.SALLYPORT/session", "/.sallyport/Session", "/%2esallyport/session", "/.%73allyport/session", "/.%53allyport/session",
		"/.sallyport%2fsession", "/.sallyport%2Fsession", "/%2f.sallyport/session", "//.sallyport/session", "/.sallyport//session", "///.sallyport///session",
		"/.sallyport/./session", "/x/../.sallyport/session", "/.sallyport/../x", "/.sallyport", "/.sallyport/", "/.sallyport;x/session", "/.sallyport;/session", "/;a/.sallyport/session",
		"/.sallyport\\session", "/.sallyport/session/", "/.sallyport/session%00", "/.sallyport/session%3fa", "/.sallyport%3fa", "/.sallyport%23a", "/.sallyport%25/session", "/.sallyport%252fsession", "/%252esallyport/session",
		"/.sallyport/session;a=b", "/.sallyport/session?a=b", "/x//.sallyport/session", "/x;/..%2f.sallyport/session", "/.sallyport/callback/corp", "/.sallyport/callback//corp", "/.sallyport/callback/corp%2f", "/.sallyport%20/session",
		"/.well-known/sallyport/keys", "/.well-known/sallyport", "/.well-known/SallyPort/keys", "/.well-known//sallyport/keys", "/.well-known/sallyport%2fkeys", "/.well-known/sallyport/x",
	}
}

// No spelling of the gateway's own paths reaches an upstream of a host where people sign in, whatever forms
// its routes accept, and explain says what the gateway does.
func TestAttackOwnPathSpellings(t *testing.T) {
	l := openLobby(t, plan{routes: `
  - {host: models.test, upstream: %s, callers: [login/corp, issuer/corp], rules: [{allow: "*"}]}
  - {host: kept.test, upstream: %s, callers: [login/corp, issuer/corp], rules: [{allow: "*"}], paths: {encoded_slash: keep, encoded_percent: keep, encoded_question: keep, encoded_hash: keep, semicolon: keep, double_slash: keep}}
  - {host: merged.test, upstream: %s, callers: [login/corp, issuer/corp], rules: [{allow: "*"}], paths: {encoded_slash: keep, semicolon: keep, double_slash: merge}}
  - {host: stripped.test, path: /s, upstream: %s, callers: [login/corp, issuer/corp], rules: [{allow: "*"}], strip: /s}
`})
	config, err := proxy.LoadConfig(l.file)
	if err != nil {
		t.Fatal(err)
	}
	x, err := proxy.NewExplainer(config)
	if err != nil {
		t.Fatal(err)
	}
	alice, err := x.Caller("issuer/corp:alice", nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	token := l.token()
	for _, host := range []string{"models.test", "kept.test", "merged.test", "stripped.test"} {
		for _, path := range ownPathSpellings() {
			for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "FOO"} {
				hits := l.model.hits.Load()
				got := l.raw(method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + token + "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
				r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), &http.Request{Method: method})
				if err != nil {
					t.Fatalf("%s %s%s: %q", method, host, path, got)
				}
				_, _ = io.Copy(io.Discard, r.Body)
				forwarded := l.model.hits.Load() > hits
				if up, _ := l.model.seen(); forwarded && strings.Contains(strings.ToLower(strings.ReplaceAll(up.URL.Path, "//", "/")), "/.sallyport/") && !strings.HasPrefix(up.URL.Path, "/x") {
					t.Errorf("%s %s%s came up as %s", method, host, path, up.RequestURI)
				}
				d, err := x.Explain(&proxy.Question{Caller: alice, Method: method, URL: "https://" + host + path, Body: []byte{}})
				if err != nil {
					t.Errorf("%s %s%s: explain: %v", method, host, path, err)
					continue
				}
				switch {
				case forwarded != (d.Allowed && d.Page == ""):
					t.Errorf("%s %s%s: %d, forwarded: %t, and explain says %t %q %d %s", method, host, path, r.StatusCode, forwarded, d.Allowed, d.Page, d.Status, d.Reason)
				case d.Status == 405 && path == "/.well-known/sallyport/keys" && r.StatusCode == 404: // nothing is published here
				case !d.Allowed && d.Status != r.StatusCode, d.Page != "" && (r.StatusCode == 404 && !strings.Contains(d.Page, "404") || r.StatusCode == 405):
					t.Errorf("%s %s%s: %d, and explain says %d %s %q", method, host, path, r.StatusCode, d.Status, d.Reason, d.Page)
				}
			}
		}
	}
}

// TestAttackTunnelsToOwnPaths asks for a WebSocket to the gateway's own paths over HTTP/2. Nothing there
// speaks it, and the record must not say that the client left.
func TestAttackTunnelsToOwnPaths(t *testing.T) {
	l := openLobby(t, plan{})
	victim := l.browser(true)
	cookie := victim.signIn()
	paths := []string{"/.sallyport/session", "/.sallyport/sign-in", "/.sallyport/sign-out", "/.sallyport/signed-out", "/.sallyport/callback/corp", "/.well-known/sallyport/keys", "/.well-known/oauth-protected-resource"}
	for _, path := range paths {
		f := l.frames()
		f.headers(1, false, ":protocol: websocket", ":method: CONNECT", ":scheme: https", ":authority: models.test", ":path: "+path, "sec-websocket-version: 13", "cookie: "+cookie, "origin: https://models.test")
		if got := f.wait(1); got != "501" {
			t.Errorf("%s: got %s", path, got)
		}
	}
	l.untouched()
	if r := victim.request("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the victim: %d %s", r.StatusCode, r.body)
	}
	_ = l.stop()
	refused := 0
	for _, rec := range l.audit.records(t) {
		if rec["reason"] == "bad_method" && rec["status"] == 501.0 && rec["login_event"] == nil {
			refused++
		}
	}
	if refused != len(paths) {
		t.Errorf("%d of %d are recorded as refused", refused, len(paths))
	}
}
