package doctor

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// The doctor finds out whether people reach the pages of sign-in behind a proxy that asks.
func TestDoctorLooksForSignInBehindAProxyThatAsks(t *testing.T) {
	issuer, _ := provided(t, clientSecret)
	says := func(status int, reason, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/.sallyport/session" || r.Host != "app.example" {
				t.Errorf("asked for %s of %s", r.URL, r.Host)
			}
			if reason != "" {
				w.Header().Set("X-Sallyport-Reason", reason)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	const cure = "let the proxy in front forward /.sallyport/ of the host to listen.insecure_plain, without asking about it"
	for name, c := range map[string]struct {
		listen string
		front  http.HandlerFunc
		want   []string // of app.example
	}{
		"the gateway answers":  {"replaces_cookie: true", says(401, "", `{"reason": "no_credential"}`), []string{"ok: the proxy in front forwards /.sallyport/ to the gateway"}},
		"the proxy asks":       {"replaces_cookie: true", says(403, "not_for_another_proxy", "<html>"), []string{"fail: the proxy in front asks about /.sallyport/session, so nobody can sign in; " + cure}},
		"the server answers":   {"replaces_cookie: true", says(404, "", `{"reason": "\u001b[2J"}`), []string{"fail: https://app.example/.sallyport/session answers 404; the gateway would answer 401 no_credential, so nobody can sign in; " + cure}},
		"no sessions there":    {"replaces_cookie: false", nil, nil},
		"it cannot be reached": {"replaces_cookie: true", nil, []string{"skipped: the proxy in front cannot be asked from here: "}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.front != nil {
				w.names["app.example"] = "192.0.2.7"
				front := httptest.NewTLSServer(c.front)
				t.Cleanup(front.Close)
				w.opens["192.0.2.7:443"] = front.Listener.Addr().String()
			}
			r, err := Run(t.Context(), w.options(w.file(t, "gateway.yaml", "listen: {https: off, http: off, health: off, control: off, insecure_plain: {addr: '127.0.0.1:0', from: 10.0.0.8}, "+
				"forward_auth: {addr: '127.0.0.1:0', from: 10.0.0.8, dialect: nginx, "+c.listen+"}}\ntrusted_proxies: 10.0.0.8\npublic_https: 443\n"+
				"issuers: {corp: {url: "+issuer.URL+", audience: models}}\nlogins: {corp: {issuer: corp, client_id: gateway, session: {kind: memory}}}\nroutes:\n"+
				route("app.example", "http://127.0.0.1:9", "callers: [login/corp]")+route("'*.example'", "http://127.0.0.1:9", "callers: [login/corp]")+route("plain.example", "http://127.0.0.1:9", "callers: [issuer/corp]"))))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.Findings {
				if f.Check == "sign-in" {
					got = append(got, string(f.State)+": "+f.Text+"; "+f.Cure)
				}
			}
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("found %q; want %q; all: %+v", got, c.want, r.Findings)
			}
		})
	}
}
