package proxy_test

import (
	"testing"
)

func TestAllowAndDenyFrom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, how, from string
		status          int
	}{
		{"listed", "allow_from: 127.0.0.0/8", "", 200},
		{"not listed", "allow_from: 10.0.0.0/8", "", 403},
		{"denied", "deny_from: 127.0.0.1", "", 403},
		{"another is denied", "deny_from: 10.0.0.0/8", "", 200},
		{"deny wins", "allow_from: 127.0.0.0/8, deny_from: 127.0.0.1", "", 403},
		{"deny wins in a wider allow", "allow_from: 10.0.0.0/8, deny_from: 10.66.0.0/16", "10.66.1.1", 403},
		{"behind a trusted proxy", "allow_from: 10.0.0.0/8", "10.1.2.3", 200},
		{"the proxy itself is listed", "allow_from: 127.0.0.1", "10.1.2.3", 403},
		{"IPv4 in IPv6 dress", "allow_from: 10.0.0.0/8", "::ffff:10.1.2.3", 200},
		{"IPv4 in IPv6 dress is denied", "deny_from: 10.0.0.0/8", "::ffff:10.1.2.3", 403},
		{"IPv6", "allow_from: 'fd00::/8'", "fd00::1", 200},
		{"IPv4 is not in any IPv6 range", "allow_from: '::/1'", "10.1.2.3", 403},
		{"a zone", "deny_from: 'fe80::/10'", "fe80::1%25eth0", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			routes := `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], ` + c.how + `}
`
			more := ""
			header := map[string]string{}
			if c.from != "" {
				more = "trusted_proxies: 127.0.0.1"
				header["X-Forwarded-For"] = c.from
			}
			h := build(t, plan{routes: routes, more: more})
			if c.status == 200 {
				if got := h.do("GET", "/", "", header); got.StatusCode != 200 {
					t.Errorf("got %d %s", got.StatusCode, got.body)
				}
				return
			}
			h.refused(h.do("GET", "/", "", header), 403, "address_not_allowed")
			// The address is checked before authentication, so a guess at a token reveals nothing.
			header["Authorization"] = "Bearer x.y.z"
			h.refused(h.do("GET", "/", "", header), 403, "address_not_allowed")
		})
	}
}

// Only a trusted proxy can set the client's address.
func TestAllowFromIgnoresForwardedForOfUntrustedPeers(t *testing.T) {
	h := build(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], allow_from: 10.0.0.0/8}
`})
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "X-Client-Ip"} {
		h.refused(h.do("GET", "/", "", map[string]string{name: "10.1.2.3"}), 403, "address_not_allowed")
	}
}

// Flask runs the GET handler for HEAD, so a rule that denies get must deny both.
func TestDenyOfGetRefusesHead(t *testing.T) {
	for _, serves := range []string{"raw", "flask"} {
		t.Run(serves, func(t *testing.T) {
			h := build(t, plan{routes: `
  - {host: models.test, upstream: '%s', serves: ` + serves + `, callers: issuer/corp, rules: [{allow: "*"}, {deny: get}]}
`})
			for _, method := range []string{"GET", "HEAD"} {
				if got := h.do(method, "/admin/reset", "", nil); got.StatusCode != 403 {
					t.Errorf("%s: got %d", method, got.StatusCode)
				}
			}
			h.untouched()
			if got := h.do("POST", "/admin/reset", "", nil); got.StatusCode != 200 {
				t.Errorf("POST: got %d %s", got.StatusCode, got.body)
			}
		})
	}
}
