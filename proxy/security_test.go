package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sallyport/proxy"
)

const policyOfTalisman = "default-src 'self'; object-src 'none'"

// typed answers with the content type, and other fields, that the query asks for.
func typed(w http.ResponseWriter, r *http.Request) {
	w.Header()["Content-Type"] = r.URL.Query()["type"]
	for _, f := range r.URL.Query()["field"] {
		name, value, _ := strings.Cut(f, "=")
		w.Header().Add(name, value)
	}
	if status := r.URL.Query().Get("status"); status != "" {
		var n int
		_, _ = fmt.Sscan(status, &n)
		w.WriteHeader(n)
	}
	if r.URL.Query().Has("stream") {
		_ = http.NewResponseController(w).Flush()
	}
	if r.Method != http.MethodHead && r.URL.Query().Get("status") == "" {
		_, _ = io.WriteString(w, "<p>")
	}
}

func TestAnswersCarrySecurityHeaders(t *testing.T) {
	t.Run("by default", func(t *testing.T) {
		h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", "gunicorn")
			w.Header().Set("X-Powered-By", "Flask")
			w.Header().Set("Content-Type", "application/json")
		}})
		got := h.do("GET", "/", "", nil)
		for name, want := range map[string]string{
			"X-Frame-Options":         "SAMEORIGIN",
			"X-Content-Type-Options":  "nosniff",
			"Content-Security-Policy": policyOfTalisman,
			"Referrer-Policy":         "strict-origin-when-cross-origin",
		} {
			if v := got.Header.Values(name); len(v) != 1 || v[0] != want {
				t.Errorf("%s: %q; want %q", name, v, want)
			}
		}
		for _, name := range []string{"Server", "X-Powered-By", "X-Xss-Protection", "Strict-Transport-Security"} {
			if v := got.Header.Get(name); v != "" {
				t.Errorf("%s: %s; want none", name, v)
			}
		}
	})
	t.Run("the upstream's own win", func(t *testing.T) {
		h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Frame-Options", "DENY") }})
		if v := h.do("GET", "/", "", nil).Header.Values("X-Frame-Options"); len(v) != 1 || v[0] != "DENY" {
			t.Errorf("X-Frame-Options: %q; want DENY", v)
		}
	})
	t.Run("changed by the route", func(t *testing.T) {
		h := build(t, plan{
			handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server", "gunicorn") },
			routes: strings.TrimRight(oneRoute, "\n") + `
    security_headers: {x-frame-options: off, Content-Security-Policy: "default-src 'self' 'unsafe-inline'"}
    keep_server_header: true
`})
		got := h.do("GET", "/", "", nil)
		if got.Header.Get("X-Frame-Options") != "" || got.Header.Get("Content-Security-Policy") != "default-src 'self' 'unsafe-inline'" || got.Header.Get("Server") != "gunicorn" {
			t.Errorf("header %v", got.Header)
		}
	})
}

// A page with its own scripts does not work under a policy that its server did not write. So by default
// all answers but pages get the policy.
func TestPagesGetNoContentSecurityPolicyByDefault(t *testing.T) {
	t.Parallel()
	const own = "field=Content-Security-Policy%3Dscript-src+'none'"
	for _, c := range []struct{ name, set, method, query, want string }{
		{"HTML", "", "GET", "type=text/html", ""},
		{"HTML in other letters", "", "GET", "type=Text/HTML%3B+charset%3Dutf-8", ""},
		{"XHTML", "", "GET", "type=application/xhtml%2Bxml", ""},
		{"a script, as a worker runs it", "", "GET", "type=text/javascript%3Bcharset%3Dutf-8", ""},
		{"PDF", "", "GET", "type=application/pdf", ""},
		{"a head", "", "HEAD", "type=text/html", ""},
		{"a stream", "", "GET", "type=text/html%3B+charset%3Dutf-8&stream", ""},
		{"an error page of the upstream", "", "GET", "type=text/html&status=404", ""},
		{"304, whose fields go to the stored page", "", "GET", "status=304", ""},
		{"JSON", "", "GET", "type=application/json", policyOfTalisman},
		{"JSON as a head", "", "HEAD", "type=application/json", policyOfTalisman},
		{"events", "", "GET", "type=text/event-stream&stream", policyOfTalisman},
		{"SVG", "", "GET", "type=image/svg%2Bxml", policyOfTalisman},
		{"XML", "", "GET", "type=application/xml", policyOfTalisman},
		{"a type that begins alike", "", "GET", "type=text/html5", policyOfTalisman},
		{"two types, of which a browser takes the last", "", "GET", "type=text/html&type=text/plain", policyOfTalisman},
		{"two types in one line", "", "GET", "type=text/html,text/plain", policyOfTalisman},
		{"no type", "", "GET", "type=", policyOfTalisman},
		{"the upstream's own, on a page", "", "GET", "type=text/html&" + own, "script-src 'none'"},
		{"the upstream's own, on JSON", "", "GET", "type=application/json&" + own, "script-src 'none'"},
		{"two of the upstream's", "", "GET", "type=text/html&" + own + "&field=Content-Security-Policy%3Dimg-src+*", "script-src 'none', img-src *"},
		{"a report-only policy is none", "", "GET", "type=application/json&field=Content-Security-Policy-Report-Only%3Dimg-src+*", policyOfTalisman},
		{"default by name", "default", "GET", "type=text/html", ""},
		{"Talisman's, on a page", "talisman", "GET", "type=text/html", policyOfTalisman},
		{"Talisman's, on 304", "talisman", "GET", "status=304", policyOfTalisman},
		{"written, on a page", `{content-security-policy: "img-src 'self' data:"}`, "GET", "type=text/html", "img-src 'self' data:"},
		{"other changes leave pages alone", "{x-frame-options: DENY}", "GET", "type=text/html", ""},
		{"off", "off", "GET", "type=application/json", ""},
		{"off in the map", "{content-security-policy: off}", "GET", "type=application/json", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			routes := oneRoute
			if c.set != "" {
				routes = strings.TrimRight(oneRoute, "\n") + "\n    security_headers: " + c.set + "\n"
			}
			h := build(t, plan{handler: typed, routes: routes})
			for _, h2 := range []bool{false, true} {
				req, err := http.NewRequest(c.method, "https://models.test/?"+c.query, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+h.token())
				got := h.send(h.client(h2), req)
				if v := strings.Join(got.Header.Values("Content-Security-Policy"), ", "); v != c.want {
					t.Errorf("%s, %d: policy %q; want %q", got.Proto, got.StatusCode, v, c.want)
				}
				nosniff := got.Header.Get("X-Content-Type-Options") == "nosniff"
				if nosniff != (c.set != "off") {
					t.Errorf("%s: header %v", got.Proto, got.Header)
				}
			}
		})
	}
}

func TestAnswersOfTheGatewayCarryThePolicy(t *testing.T) {
	h := build(t, plan{routes: strings.TrimRight(oneRoute, "\n") + `
  - {host: models.test, path: /page, callers: anonymous, respond: {status: 503, body: "<p>back soon", content_type: text/html}}
`})
	for path, want := range map[string]string{"/": policyOfTalisman, "/page": ""} {
		got := h.do("GET", path, "", map[string]string{"Authorization": ""})
		if v := got.Header.Get("Content-Security-Policy"); v != want || got.Header.Get("X-Frame-Options") != "SAMEORIGIN" {
			t.Errorf("%s: %d, policy %q; want %q", path, got.StatusCode, v, want)
		}
	}
}

// No browser displays the answer to a gRPC call.
func TestCallsGetNoFieldsForDocuments(t *testing.T) {
	for set, nosniff := range map[string]string{"default": "nosniff", "talisman": "nosniff", "off": "", "{content-security-policy: img-src https:}": "nosniff"} {
		h, _ := buildGRPC(t, strings.TrimRight(grpcRoute, "\n")+"\n    security_headers: "+set+"\n")
		for _, token := range []string{"Bearer " + h.token(), ""} {
			res, err := h.call(context.Background(), echo, bytes.NewReader(framedText("hello")), "Authorization", token)
			if err != nil {
				t.Fatal(err)
			}
			if _, status := finish(t, res); (status == "0") != (token != "") {
				t.Errorf("%s, token %t: grpc-status %s", set, token != "", status)
			}
			for _, name := range []string{"Content-Security-Policy", "X-Frame-Options", "Referrer-Policy", "Strict-Transport-Security"} {
				if v := res.Header.Get(name); v != "" {
					t.Errorf("%s, token %t: %s: %s", set, token != "", name, v)
				}
			}
			if v := res.Header.Get("X-Content-Type-Options"); v != nosniff {
				t.Errorf("%s, token %t: X-Content-Type-Options: %q; want %q", set, token != "", v, nosniff)
			}
		}
	}
}

// Browsers obey Strict-Transport-Security for a long time. Only a client that uses TLS and a host name
// may get it, and only for the route's own host.
func TestStrictTransportSecurity(t *testing.T) {
	const byDefault = "max-age=15552000"
	for _, c := range []struct{ name, set, own, proto, host, want string }{
		{"by default", "default", "", "https", "models.test", byDefault},
		{"a balancer that says nothing", "default", "", "", "models.test", byDefault},
		{"over plain HTTP", "default", "", "http", "models.test", ""},
		{"an IPv4 address", "default", "", "https", "192.0.2.1", ""},
		{"an IPv6 address", "default", "", "https", "[2001:db8::1]", ""},
		{"as Talisman", "talisman", "", "https", "models.test", "max-age=31556926; includeSubDomains"},
		{"off", "off", "", "https", "models.test", ""},
		{"off alone", "{strict-transport-security: off}", "", "https", "models.test", ""},
		{"written", "{Strict-Transport-Security: max-age=60}", "", "https", "models.test", "max-age=60"},
		{"the upstream's goes first", "talisman", "max-age=5", "https", "models.test", "max-age=5"},
		{"the upstream's passes though off", "off", "max-age=5", "https", "models.test", "max-age=5"},
		{"the upstream's over plain HTTP", "default", "max-age=5", "http", "models.test", ""},
		{"the upstream's on an address", "default", "max-age=5", "https", "192.0.2.1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			model := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) {
				if c.own != "" {
					w.Header().Set("Strict-Transport-Security", c.own)
				}
			})
			cfg, err := proxy.ParseConfig("gateway.yaml", []byte(`
listen: {https: off, http: off, health: off, insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}}
trusted_proxies: 127.0.0.1
routes:
  - {host: "`+c.host+`", upstream: "`+model.URL+`", callers: anonymous, rules: [{allow: get}], security_headers: `+c.set+`}
`))
			if err != nil {
				t.Fatal(err)
			}
			h := &house{t: t, audit: &lines{}}
			h.start(cfg)
			for _, method := range []string{"GET", "POST"} { // answered by the upstream, and refused
				req, _ := http.NewRequest(method, "http://"+h.addrs.Plain.String()+"/", nil)
				req.Host = c.host
				if c.proto != "" {
					req.Header.Set("X-Forwarded-Proto", c.proto)
				}
				want := c.want
				if method == "POST" && c.own != "" {
					continue
				}
				got := h.send(http.DefaultClient, req)
				if v := strings.Join(got.Header.Values("Strict-Transport-Security"), ", "); v != want {
					t.Errorf("%s: %d, %q; want %q", method, got.StatusCode, v, want)
				}
			}
		})
	}
	t.Run("the upstream's with a development certificate", func(t *testing.T) {
		h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
		}})
		if got := h.do("GET", "/", "", nil); got.StatusCode != 200 || got.Header.Get("Strict-Transport-Security") != "" {
			t.Errorf("%d, header %v", got.StatusCode, got.Header)
		}
	})
}
