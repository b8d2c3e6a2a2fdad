package proxy_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
)

const ambientRoutes = `
  - {host: models.test, path: /cert, upstream: '%s', callers: cert, websocket: true, rules: [{allow: "*"}]}
  - {host: models.test, path: /basic, upstream: '%s', callers: basic/legacy, websocket: true, rules: [{allow: "*"}]}
  - {host: models.test, path: /either, upstream: '%s', callers: [issuer/corp, cert, basic/legacy], rules: [{allow: "*"}]}
  - {host: models.test, path: /token, upstream: '%s', callers: [cert, issuer/corp], websocket: true, websocket_token: openai, rules: [{allow: "*"}]}
  - {host: models.test, path: /shared, upstream: '%s', callers: [cert, basic/legacy], websocket: true, cors: {origins: ["https://demo.example", "tauri://localhost", "http://tauri.localhost", "capacitor://localhost", "https://localhost", "vscode-file://vscode-app"], credentials: true}, rules: [{allow: "*"}]}
  - {host: models.test, path: /read, upstream: '%s', callers: [cert, basic/legacy], websocket: true, cors: {origins: "*"}, rules: [{allow: "*"}]}
`

// TestPagesWithoutTLSUsePasswords sends a form of a page of the host through a balancer whose clients have no
// TLS. Browsers send no Sec-Fetch-Site there.
func TestPagesWithoutTLSUsePasswords(t *testing.T) {
	h, _ := basicHouse(t, plan{listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}", more: "trusted_proxies: 127.0.0.1\n"})
	password := base64.StdEncoding.EncodeToString([]byte("bob:sesame-of-bob"))
	for origin, want := range map[string]string{"http://models.test": "200", "https://models.test": "200", "http://evil.example": "403", "http://models.test:8080": "403", "null": "403"} {
		hits := h.model.hits.Load()
		c := h.connect(h.addrs.Plain, "POST /basic HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nContent-Length: 0\r\nX-Forwarded-Proto: http\r\nOrigin: "+origin+"\r\nAuthorization: Basic "+password+"\r\n\r\n")
		all, _ := io.ReadAll(c)
		if seen := h.model.hits.Load() - hits; !strings.HasPrefix(string(all), "HTTP/1.1 "+want) || (seen == 1) != (want == "200") {
			t.Errorf("%s: got %s, and the upstream saw %d requests", origin, all, seen)
		}
	}
	c := h.dial("models.test")
	_, _ = io.WriteString(c, "POST /basic HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nContent-Length: 0\r\nOrigin: http://models.test\r\nAuthorization: Basic "+password+"\r\n\r\n")
	if all, _ := io.ReadAll(c); !strings.HasPrefix(string(all), "HTTP/1.1 403") {
		t.Errorf("a page without TLS, over TLS: %s", all)
	}
}

// TestAttackBrowsersWithCertificatesAndPasswords sends requests as pages of other sites can. Browsers may add a
// client certificate or a stored password to them, and no SameSite keeps those back. Chromium sends the
// password with forms of such pages; with their WebSockets it does not, and nothing demands that of browsers.
func TestAttackBrowsersWithCertificatesAndPasswords(t *testing.T) {
	ca := authtest.NewCA("lab", time.Now(), nil)
	h := build(t, plan{routes: ambientRoutes, files: map[string]string{"ca.pem": string(authtest.PEM(ca)), "htpasswd": "bob:" + bcryptOf(t, "sesame") + "\n"}, more: unwatched + `
client_certificates: {hosts: models.test, ca: ca.pem}
basic: {legacy: {htpasswd: {file: htpasswd}, until: 2099-01-01}}
`})
	certificate := ca.Client("alice", nil).TLS()
	client := h.certClient(false, &certificate, nil)
	ask := func(method, path string, fields map[string]string) *reply {
		t.Helper()
		req, err := http.NewRequest(method, "https://models.test"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range fields {
			req.Header.Set(name, value)
		}
		return h.send(client, req)
	}
	password := "Basic " + base64.StdEncoding.EncodeToString([]byte("bob:sesame"))
	socket := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
	const foreign, demo, own = "https://evil.example", "https://demo.example", "https://models.test"
	for _, c := range []struct {
		name, method, path string
		fields             map[string]string
		admitted           bool
	}{
		{"a program", "POST", "", nil, true},
		{"a page of the host", "POST", "", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": own}, true},
		{"a page of the host in an old browser", "POST", "", map[string]string{"Origin": own}, true},
		{"a picture of another site", "GET", "", map[string]string{"Sec-Fetch-Site": "cross-site"}, true},
		{"a form of another site", "POST", "", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": foreign}, false},
		{"a form of another host", "POST", "", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "https://sub.models.test"}, false},
		{"a form of another site that hides itself", "POST", "", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "null"}, false},
		{"a form of another site in an old browser", "POST", "", map[string]string{"Origin": foreign}, false},
		{"another method", "DELETE", "", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": foreign}, false},
		{"a page that cors admits", "POST", "/shared", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": demo}, true},
		{"a page that cors does not admit", "POST", "/shared", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": foreign}, false},
		{"a page that cors admits without credentials", "POST", "/read", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": foreign}, false},
	} {
		for _, kind := range []string{"/cert", "/basic", "/either"} {
			fields := map[string]string{}
			for name, value := range c.fields {
				fields[name] = value
			}
			if kind == "/basic" {
				fields["Authorization"] = password
			}
			path := kind
			if c.path != "" {
				path = c.path
			}
			hits := h.model.hits.Load()
			r := ask(c.method, path, fields)
			if seen := h.model.hits.Load() - hits; (r.StatusCode == 200) != c.admitted || (seen == 1) != c.admitted || !c.admitted && (r.StatusCode != 403 || r.reason() != "cross_site") {
				t.Errorf("%s, %s: got %d %s, and the upstream saw %d requests", c.name, kind, r.StatusCode, r.body, seen)
			}
			if r := ask("POST", "/cert", nil); r.StatusCode != 200 { // a victim beside
				t.Errorf("after %s: a program got %d %s", c.name, r.StatusCode, r.body)
			}
		}
	}
	// Pages in apps have origins of their own. websocket-client and Netty send the one of their URL.
	ownSocket := strings.Replace(own, "https", "wss", 1) // of a program that takes the scheme of its URL
	for origin, admitted := range map[string]bool{
		ownSocket:           true,
		"tauri://localhost": true, "http://tauri.localhost": true, "capacitor://localhost": true, "https://localhost": true, "vscode-file://vscode-app": true, own: true,
		"wss://evil.example": false, "ws://models.test": false, "wss://models.test:8443": false, "wss://models.test/": false, "http://localhost/": false,
		"vscode-webview://b421f05c-bc2d-4615-afaa-2a4df3cbdfb1": false, "file://": false, "app://.": false, "null": false, "": false, "tauri://localhost, " + own: false, "models.test": false,
	} {
		fields := map[string]string{"Origin": origin}
		for name, value := range socket {
			fields[name] = value
		}
		for path, want := range map[string]bool{"/cert": origin == own || origin == ownSocket, "/shared": admitted} {
			hits := h.model.hits.Load()
			r := ask("GET", path, fields)
			if seen := h.model.hits.Load() - hits; (seen == 1) != want || !want && (r.reason() != "cross_site" || !strings.Contains(r.body, "A program must leave Origin out")) {
				t.Errorf("WebSocket to %s of an app with origin %q: got %d %s, and the upstream saw %d requests", path, origin, r.StatusCode, r.body, seen)
			}
		}
	}
	cause := `there is no Sec-Fetch-Site, and Origin is "https://evil.example"; cors of the route does not admit it with credentials: true; a program must send no Origin, or https://models.test`
	ask("POST", "/cert", map[string]string{"Origin": foreign})
	h.until("a record names the cure", func() bool {
		return slices.ContainsFunc(h.audit.records(t), func(r map[string]any) bool { return r["cause"] == cause })
	})
	// A script of any page puts a token into the request by itself, which then counts.
	r := ask("POST", "/either", map[string]string{"Authorization": "Bearer " + h.token(), "Sec-Fetch-Site": "cross-site", "Origin": foreign})
	if r.StatusCode != 200 {
		t.Errorf("a page with a token: %d %s", r.StatusCode, r.body)
	}
	// A program whose token got lost learns of it.
	for _, lost := range []string{"Bearer", "Bearer undefined"} {
		if r := ask("POST", "/either", map[string]string{"Authorization": lost}); r.StatusCode != 401 || r.reason() != "bad_credential" {
			t.Errorf("%s beside a certificate: %d %s", lost, r.StatusCode, r.body)
		}
	}
	for _, c := range []struct {
		path, origin, token string
		admitted            bool
	}{
		{"/cert", foreign, "", false}, {"/cert", own, "", true}, {"/cert", "", "", true}, {"/cert", "null", "", false},
		{"/basic", foreign, "", false}, {"/basic", "", "", true},
		{"/shared", demo, "", true}, {"/shared", foreign, "", false}, {"/read", foreign, "", false},
		{"/token", foreign, "", false}, {"/token", foreign, h.token(), true},
	} {
		fields := map[string]string{}
		for name, value := range socket {
			fields[name] = value
		}
		if c.origin != "" {
			fields["Origin"] = c.origin
		}
		if c.path == "/basic" {
			fields["Authorization"] = password
		}
		if c.token != "" {
			fields["Sec-WebSocket-Protocol"] = "realtime, openai-insecure-api-key." + c.token
		}
		hits := h.model.hits.Load()
		r := ask("GET", c.path, fields)
		if seen := h.model.hits.Load() - hits; (seen == 1) != c.admitted || !c.admitted && r.reason() != "cross_site" {
			t.Errorf("WebSocket to %s from %q: got %d %s, and the upstream saw %d requests", c.path, c.origin, r.StatusCode, r.body, seen)
		}
	}
	if seen, _ := h.model.seen(); strings.Contains(seen.Header.Get("X-Sallyport-Principal"), "cert:") {
		t.Error("the certificate counted beside the token of a script")
	}
}

// TestAttackSocketsOfPagesBehindAnotherProxy lets a proxy ask about WebSockets, of which it tells in the fields of
// WebSocket itself. Pages of other sites open none with the password of a browser.
func TestAttackSocketsOfPagesBehindAnotherProxy(t *testing.T) {
	password := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bob:sesame-of-bob"))
	for _, dialect := range dialects() {
		h, _ := basicHouse(t, plan{listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: " + dialect + "}", more: "trusted_proxies: 127.0.0.1\n"})
		for origin, permitted := range map[string]bool{"https://models.test": true, "https://evil.example": false, "null": false, "": true} {
			fields := append(told(dialect, "GET", "models.test", "/socket"), password, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
			if origin != "" {
				fields = append(fields, "Origin: "+origin)
			}
			got := h.askAs(fields...)
			if permitted && got.StatusCode != 200 || !permitted && (got.StatusCode != 403 || got.Header.Get("X-Sallyport-Reason") != "cross_site") {
				t.Errorf("%s, Origin %q: got %d %s", dialect, origin, got.StatusCode, got.body)
			}
		}
	}
}

// TestAttackSchemeToldByTheClientBehindAnotherProxy: the URL that nginx tells says how the client called. A field
// of the client's own beside it does not make a page without TLS one of the host.
func TestAttackSchemeToldByTheClientBehindAnotherProxy(t *testing.T) {
	password := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bob:sesame-of-bob"))
	h, _ := basicHouse(t, plan{listen: ", forward_auth: {addr: '127.0.0.1:0', from: 127.0.0.1, dialect: nginx}", more: "trusted_proxies: 127.0.0.1\n"})
	for origin, status := range map[string]int{"https://models.test": 200, "http://models.test": 403} {
		got := h.askAs(append(told("nginx", "GET", "models.test", "/socket"), password, "Origin: "+origin, "X-Forwarded-Proto: http", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")...)
		if got.StatusCode != status {
			t.Errorf("Origin %s: got %d %s; want %d", origin, got.StatusCode, got.body, status)
		}
	}
}
