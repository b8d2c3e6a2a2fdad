package proxy_test

import (
	"slices"
	"strings"
	"testing"
)

// believed are fields by which servers behind other proxies learn who calls, with endings where the
// list of the gateway leaves them open.
var believed = strings.Fields(`
	Remote-User Remote-Groups Remote-Name Remote-Email X-Remote-User X-Remote-Group X-Remote-Groups X-Remote-Extra-Scopes
	X-WEBAUTH-USER X-WEBAUTH-EMAIL X-Auth-Request-User X-Auth-Request-Email X-Auth-Request-Access-Token X-Vouch-User
	X-Client-Cert X-Client-Cert-Present SSL-Client-Cert SSL-Client-Verify SSL-Client-S-DN X-SSL-Client-Cert X-SSL-Client-CN X-SSL-Cert
	X-Forwarded-Client-Cert X-Forwarded-Tls-Client-Cert X-Forwarded-Tls-Client-Cert-Info Client-Cert Client-Cert-Chain X-ARR-ClientCert X-Amzn-Mtls-Clientcert
	X-Forwarded-User X-Forwarded-Email X-Forwarded-Groups X-Forwarded-Preferred-Username X-Forwarded-Access-Token
	X-User-Id X-JWT-Assertion X-JWT-Payload kubeflow-userid kubeflow-groups Impersonate-User Impersonate-Group Impersonate-Extra-scopes
	X-Goog-Authenticated-User-Email X-Goog-Authenticated-User-ID X-Goog-IAP-JWT-Assertion X-Apigateway-Api-Userinfo X-Endpoint-API-UserInfo
	X-MS-CLIENT-PRINCIPAL X-MS-CLIENT-PRINCIPAL-NAME X-MS-CLIENT-PRINCIPAL-ID X-MS-TOKEN-AAD-ACCESS-TOKEN
	Cf-Access-Jwt-Assertion Cf-Access-Authenticated-User-Email X-Amzn-Oidc-Data X-Amzn-Oidc-Identity X-Amzn-Oidc-Accesstoken
	X-Consumer-ID X-Consumer-Username X-Consumer-Groups X-Credential-Identifier X-Credential-Username X-Anonymous-Consumer X-Authenticated-Userid X-Authenticated-Scope
	X-Pomerium-Jwt-Assertion X-Authentik-Username Tailscale-User-Login OIDC-CLAIM-sub OIDC_access_token SM_USER X-Client-DN X-Client-Verify
`)

const spoofedRoutes = `
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: models.test, path: /socket, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], websocket: true}
  - {host: models.test, path: /passed, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], pass_identity_fields: [Cf-Access-Jwt-Assertion, X_Forwarded_Client_Cert, remote-user, Client-Cert]}
`

// No spelling of a field that servers believe comes up from a client, on any kind of route and over
// either version of HTTP, as fields or as trailers. Its neighbor comes up all the same.
func TestAttackSpoofedIdentityOfOtherProxies(t *testing.T) {
	t.Parallel()
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("") + strings.ReplaceAll(spoofedRoutes, "%s", j.URL)})
	for _, name := range believed {
		f := h.frames() // a connection has a minute
		var stream uint32 = 1
		for batch := range slices.Chunk(spellings(name), 60) {
			lines := strings.Join(batch, ": spoofed\r\n") + ": spoofed\r\n"
			for _, ask := range []string{
				"GET /closed HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer " + h.token() + "\r\n",
				"GET /open HTTP/1.1\r\nConnection: close\r\n",
				"GET /socket HTTP/1.1\r\nConnection: close\r\n",
				"GET /socket HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n" + wsKey + "\r\n",
			} {
				ask = strings.Replace(ask, "\r\n", "\r\nHost: models.test\r\nX-Neighbor: kept\r\n"+lines, 1)
				got := h.tell(ask + "\r\n")
				h.spoofed(j, name, statuses(got))
			}
			got := h.tell("POST /open HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nX-Neighbor: kept\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + lines + "\r\n")
			h.spoofed(j, name+" in trailers", statuses(got))

			lower := slices.DeleteFunc(slices.Clone(batch), func(n string) bool { return n != strings.ToLower(n) })
			for i := range lower {
				lower[i] += ": spoofed"
			}
			f.headers(stream, true, h.usual("GET", "/closed", append(lower, "x-neighbor: kept")...)...)
			h.spoofed(j, name+" over HTTP/2", f.wait(stream))
			delete(f.got, stream)
			stream += 2
		}
		f.c.Close()
	}
	h.end(j, nil)
}

// spoofed checks that the request was answered, and that it came up without its spoofed lines.
func (h *house) spoofed(j *judge, what, status string) {
	h.t.Helper()
	up := j.taken()
	if status != "200" || len(up) != 1 {
		h.t.Errorf("%s: status %s, %d requests came up", what, status, len(up))
		return
	}
	if up[0].get("x-neighbor") != "kept" || strings.Contains(up[0].raw, "spoofed") {
		h.t.Errorf("%s: the upstream got\n%s", what, up[0].raw)
	}
}

// endedWith stops the gateway and its judge, and returns the last record.
func (h *house) endedWith(j *judge) map[string]any {
	h.t.Helper()
	h.end(j, nil)
	all := h.audit.records(h.t)
	return all[len(all)-1]
}

func TestListedIdentityFieldsArePassedInTheirUsualSpelling(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("") + strings.ReplaceAll(spoofedRoutes, "%s", j.URL)})
	got := h.tell("GET /passed HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n" +
		"Cf-Access-Jwt-Assertion: a\r\nCF_ACCESS_JWT_ASSERTION: spoofed\r\nX-Forwarded-Client-Cert: b\r\nClient-Cert: d\r\nClient-Cert-Chain: spoofed\r\nREMOTE-USER: c\r\nRemote_User: spoofed\r\nX-Remote-User: spoofed\r\nCf-Access-Client-Id: spoofed\r\n\r\n")
	up := j.taken()
	if statuses(got) != "200" || len(up) != 1 {
		t.Fatalf("got %s", got)
	}
	for name, want := range map[string]string{"cf-access-jwt-assertion": "a", "x-forwarded-client-cert": "b", "client-cert": "d", "remote-user": "c"} {
		if v := up[0].get(name); v != want {
			t.Errorf("the upstream got %s: %q; want %q", name, v, want)
		}
	}
	if strings.Contains(up[0].raw, "spoofed") {
		t.Errorf("the upstream got\n%s", up[0].raw)
	}
	if rec := h.endedWith(j); rec["dropped"] != "identity" {
		t.Errorf("record %v", rec)
	}
}

// What the route itself writes reaches the upstream, in place of the client's.
func TestRoutesOwnIdentityAndFieldsWin(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("") + strings.ReplaceAll(`
  - {host: models.test, path: /set, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], headers: {request: {set: {Remote-User: fixed}, add: {X-Auth-Request-Groups: [a, b]}}}}
`, "%s", j.URL)})
	got := h.tell("GET /set HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nRemote-User: spoofed\r\nREMOTE_USER: spoofed\r\nX-Auth-Request-Groups: spoofed\r\n\r\n")
	up := j.taken()
	if statuses(got) != "200" || len(up) != 1 || up[0].get("remote-user") != "fixed" || up[0].get("x-auth-request-groups") != "a|b" || strings.Contains(up[0].raw, "spoofed") {
		t.Errorf("got %s; upstream %+v", got, up)
	}
	h.end(j, nil)
}

// Another proxy would forward its client's field itself, so the gateway does not permit the request.
func TestForwardAuthRefusesSpoofedIdentity(t *testing.T) {
	for _, dialect := range dialects() {
		h := asked(t, dialect, spoofedRoutes)
		for _, field := range []string{"Remote-User: mallory", "x_auth_request_user: mallory", "X-Forwarded-User: mallory", "Client-Cert: :AA==:"} {
			got := h.askAs(append(told(dialect, "GET", "models.test", "/open"), field)...)
			if got.StatusCode == 200 || got.reason() != "protected_field" {
				t.Errorf("%s, %s: got %d %s", dialect, field, got.StatusCode, got.body)
			}
		}
		if got := h.askAs(append(told(dialect, "GET", "models.test", "/passed"), "Cf-Access-Jwt-Assertion: a")...); got.StatusCode != 200 {
			t.Errorf("%s, a field that the route passes: got %d %s", dialect, got.StatusCode, got.body)
		}
		if rec := h.endedAfter("field tells servers behind other proxies who calls: client-cert"); rec == nil {
			t.Errorf("%s: no record names the field", dialect)
		}
	}
}

// endedAfter stops the gateway and returns the record whose cause begins with this text; nil if there
// is none.
func (h *house) endedAfter(cause string) map[string]any {
	h.t.Helper()
	h.ended()
	for _, rec := range h.audit.records(h.t) {
		if text, _ := rec["cause"].(string); strings.HasPrefix(text, cause) {
			return rec
		}
	}
	return nil
}
