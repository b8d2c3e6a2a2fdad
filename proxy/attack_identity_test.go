package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// gatewaysOwn are names that only the gateway may write, or that change how the request is read.
// The values are the answers to a client that sends them in their usual spelling. Another spelling is
// refused, except that dropped names are dropped in all spellings.
var gatewaysOwn = map[string]string{
	"x-sallyport-principal": "400", "x-sallyport-scopes": "400", "x-sallyport-request-id": "400", "x-sallyport-future": "400", "x-auth-request-user": "400",
	"x-webauth-user": "400", "lab-mail": "400", "x-lab-groups": "400", "x-webauth-groups": "dropped",
	"x-forwarded-for": "200", "x-forwarded-proto": "200", "x-forwarded-user": "dropped", "x-real-ip": "200", "forwarded": "200", "remote-user": "dropped", "script-name": "200", "x-original-url": "200",
}

// spellings are variants of a name that a lenient server may accept: other separators, other case,
// and repeated separators or ones at its ends.
func spellings(name string) []string {
	const separators = "!#$%&'*+.^_`|~-"
	all := []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]}
	for i := range len(separators) {
		s := separators[i : i+1]
		all = append(all, strings.ReplaceAll(name, "-", s), name+s, s+name, s+name+s)
		for at := range len(name) {
			if name[at] == '-' {
				all = append(all, name[:at]+s+name[at+1:], name[:at]+s+name[at:])
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// spoofHouse has a route for tokens, a public one, and one that sends the caller's identity under
// other names, and one that sends name, address and groups.
func spoofHouse(t *testing.T) (*house, *judge) {
	j := newJudge(t, nil)
	return build(t, plan{audience: "models, groups: groups", routes: j.before("") + strings.ReplaceAll(`
  - {host: models.test, path: /open, upstream: '%s', callers: anonymous, rules: [{allow: "*"}]}
  - {host: other.test, upstream: '%s', callers: anonymous, rules: [{allow: "*"}], identity: {principal: X-Auth-Request-User}}
  - {host: named.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], identity: {name: X-WebAuth-User, email: Lab-Mail, groups: X-Lab-Groups}}
`, "%s", j.URL)}), j
}

// unspoofed checks that the upstream got the caller's identity from the gateway alone.
func unspoofed(t *testing.T, what string, up []*judged) {
	t.Helper()
	for _, r := range up {
		want := "issuer/corp:alice"
		if strings.HasPrefix(r.Target, "/open") {
			want = "anonymous"
		}
		if got := r.get("x-sallyport-principal"); got != want {
			t.Errorf("%s: the upstream was told the principal %q; want %q", what, got, want)
		}
		for _, f := range append(r.Fields, r.Trailers...) {
			if strings.Contains(f[1], "spoofed") {
				t.Errorf("%s: the upstream got %s: %s", what, f[0], f[1])
			}
		}
	}
}

func TestAttackSpoofedIdentity(t *testing.T) {
	t.Parallel()
	h, j := spoofHouse(t)
	usual := h.usual("GET", "/")
	for own, exact := range gatewaysOwn {
		f := h.frames() // a connection has a minute
		var stream uint32 = 1
		for i, name := range spellings(own) {
			want := "400"
			switch {
			case exact == "dropped":
				want = "200"
			case strings.EqualFold(name, own):
				want = exact
			}
			for _, path := range []string{"/closed", "/open/x"} {
				usual[3] = ":path: " + path
				if lower := strings.ToLower(name); lower == name {
					f.headers(stream, true, append(slices.Clone(usual), name+": spoofed")...)
					if got := f.wait(stream); got != want {
						t.Errorf("HTTP/2, %s with %s: %s; want %s", path, name, got, want)
					}
					delete(f.got, stream)
					stream += 2
				}
				if i%20 == 0 || want == "200" { // use a new connection
					got := h.tell("GET " + path + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n" + usual[4] + "\r\n" + name + ": spoofed\r\n\r\n")
					if statuses(got) != want {
						t.Errorf("HTTP/1.1, %s with %s: %s; want %s", path, name, statuses(got), want)
					}
				}
				up := j.taken()
				unspoofed(t, name, up)
				if want == "400" && len(up) > 0 {
					t.Errorf("%s with %s came up", path, name)
				}
			}
		}
		f.c.Close()
	}
	h.end(j, nil)
}

// Such trailers are dropped: the head with the gateway's own fields was sent long before.
func TestAttackSpoofedTrailers(t *testing.T) {
	t.Parallel()
	h, j := spoofHouse(t)
	for own := range gatewaysOwn {
		for batch := range slices.Chunk(spellings(own), 40) {
			for _, path := range []string{"/closed", "/open/x"} {
				got := h.tell("POST " + path + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + h.token() + "\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\n{}\r\n0\r\n" +
					strings.Join(batch, ": spoofed\r\n") + ": spoofed\r\nX-Sum: 1\r\n\r\n")
				if statuses(got) != "200" {
					t.Errorf("%s, HTTP/1.1: %s", own, got)
				}
			}
			f := h.frames()
			lower := slices.DeleteFunc(slices.Clone(batch), func(n string) bool { return n != strings.ToLower(n) })
			f.headers(1, false, h.usual("POST", "/closed", "trailer: x-sum, "+strings.Join(lower, ", "))...)
			f.data(1, false, "{}")
			var tail []string
			for _, n := range lower {
				tail = append(tail, n+": spoofed")
			}
			f.headers(1, true, append(tail, "x-sum: 1")...)
			if got := f.wait(1); got != "200" && !strings.HasPrefix(got, "RST ") {
				t.Errorf("%s, HTTP/2: %s", own, got)
			}
			up := j.taken()
			unspoofed(t, own, up)
			for _, r := range up {
				if fmt.Sprint(r.Trailers) != "[[x-sum 1]]" {
					t.Errorf("%s: trailers %v came up; want x-sum alone", own, r.Trailers)
				}
			}
		}
	}
	h.end(j, nil)
}

// Connection can remove neither the gateway's fields nor others that matter to the upstream.
func TestAttackConnectionNominations(t *testing.T) {
	t.Parallel()
	h, j := spoofHouse(t)
	token := h.token()
	for _, own := range []string{"x-sallyport-principal", "X-Sallyport-Scopes", "X-SALLYPORT-REQUEST-ID", "x-forwarded-for", "X-Forwarded-Proto", "x-forwarded-host", "forwarded", "authorization", "cookie", "content-type", "x_sallyport_principal"} {
		for _, format := range []string{"%s", "close, %s", "%s, close", "close,%s,keep-alive", ",,%s", "\t%s\t", "close\r\nConnection: %s", "keep-alive, %s;q=1", "\"%s\"", "Upgrade, %s"} {
			for _, path := range []string{"/closed", "/open"} {
				nomination := fmt.Sprintf(format, own)
				got := statuses(h.tell("GET " + path + " HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + token + "\r\nUpgrade: websocket\r\nConnection: " + nomination + "\r\n\r\n"))
				if up := j.taken(); got != "400" || len(up) > 0 {
					t.Errorf("%s, Connection: %q: %s, upstream %s; want 400 and nothing", path, nomination, got, targets(up))
				}
			}
		}
	}
	h.end(j, nil)
}

// An issuer lets people choose names, addresses and groups with separators, quotes and line breaks in
// them. No server takes such a value for another person or for more groups.
func TestAttackIdentityValues(t *testing.T) {
	t.Parallel()
	h, j := spoofHouse(t)
	victim := map[string]any{"sub": "alice", "email": "alice@example.com", "email_verified": true, "groups": []string{"ml", "/staff/Data Science"}}
	for _, c := range []struct {
		what   string
		claims map[string]any
		want   [3]string // name, address and groups
	}{
		{"honest", nil, [3]string{"alice", "alice@example.com", "ml,/staff/Data%20Science"}},
		{"a list in a group", map[string]any{"groups": []string{"guests,admin", "guests admin", "guests;admin|admin"}}, [3]string{"alice", "alice@example.com", "guests%2Cadmin,guests%20admin,guests%3Badmin%7Cadmin"}},
		{"JSON and quotes", map[string]any{"groups": []string{`["admin"]`, `"admin"`, "%2Cadmin", "*"}}, [3]string{"alice", "alice@example.com", "%5B%22admin%22%5D,%22admin%22,%252Cadmin,%2A"}},
		{"lines", map[string]any{"sub": "mällory", "groups": []string{"guests\r\nX-Lab-Groups: admin"}}, [3]string{"m%C3%A4llory", "alice@example.com", "guests%0D%0AX-Lab-Groups:%20admin"}},
		{"an escape", map[string]any{"sub": "mallory%00", "email": "a%40b@example.com"}, [3]string{"mallory%2500", "a%2540b@example.com", "ml,/staff/Data%20Science"}},
		{"an address that nobody verified", map[string]any{"email_verified": false}, [3]string{"alice", "", "ml,/staff/Data%20Science"}},
		{"a word for a truth", map[string]any{"email_verified": "yes"}, [3]string{"alice", "", "ml,/staff/Data%20Science"}},
		{"several truths", map[string]any{"email_verified": []bool{true, false}}, [3]string{"alice", "", "ml,/staff/Data%20Science"}},
		{"several addresses", map[string]any{"email": []string{"alice@example.com", "root@example.com"}}, [3]string{"alice", "", "ml,/staff/Data%20Science"}},
		{"an issuer that does not say", map[string]any{"email_verified": nil}, [3]string{"alice", "alice@example.com", "ml,/staff/Data%20Science"}},
		{"nothing", map[string]any{"email": nil, "groups": nil}, [3]string{"alice", "", ""}},
	} {
		claims := h.issuer.Claims("alice", "models.predict")
		for _, from := range []map[string]any{victim, c.claims} {
			for name, value := range from {
				if value == nil {
					delete(claims, name)
				} else {
					claims[name] = value
				}
			}
		}
		token, err := h.issuer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		got := h.tell("GET /closed HTTP/1.1\r\nHost: named.test\r\nConnection: close\r\nAuthorization: Bearer " + token + "\r\n\r\n")
		up := j.taken()
		if statuses(got) != "200" || len(up) != 1 {
			t.Errorf("%s: %s, upstream %s", c.what, got, targets(up))
			continue
		}
		if seen := [3]string{up[0].get("x-webauth-user"), up[0].get("lab-mail"), up[0].get("x-lab-groups")}; seen != c.want {
			t.Errorf("%s: the upstream was told %q; want %q", c.what, seen, c.want)
		}
		for _, name := range []string{"x-webauth-user", "lab-mail", "x-lab-groups"} {
			if n := slices.IndexFunc(up[0].Fields, func(f [2]string) bool { return strings.EqualFold(f[0], name) }); n < 0 {
				t.Errorf("%s: the upstream got no %s, so that a proxy behind could keep another one", c.what, name)
			}
		}
	}
	h.end(j, nil)
}

// Whose token leaves the groups out gets none from the gateway's own field, is covered by deny rules, and the
// record says why. Others pass.
func TestGroupsLeftOutOfTheToken(t *testing.T) {
	h := build(t, plan{audience: "models, groups: groups", routes: `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], identity: {groups: X-Lab-Groups}}
  - {host: models.test, path: /closed, upstream: '%s', callers: issuer/corp, rules: [{deny: "*", who: {group: guests}}, {allow: "*"}]}
`})
	for name, c := range map[string]struct {
		more   map[string]any
		groups string
		closed int
	}{
		"_claim_names": {map[string]any{"_claim_names": map[string]any{"groups": "src1"}}, "", 403},
		"hasgroups":    {map[string]any{"hasgroups": true}, "", 403},
		"no groups":    {nil, "", 200},
		"groups":       {map[string]any{"groups": []string{"ml"}, "hasgroups": true}, "ml", 200},
		"guests":       {map[string]any{"groups": []string{"guests"}}, "guests", 403},
	} {
		claims := h.issuer.Claims("alice", "models.predict")
		for k, v := range c.more {
			claims[k] = v
		}
		token, err := h.issuer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		with := map[string]string{"Authorization": "Bearer " + token}
		r := h.do("GET", "/", "", with)
		up, _ := h.model.seen()
		if values := up.Header["X-Lab-Groups"]; r.StatusCode != 200 || len(values) != 1 || values[0] != c.groups {
			t.Errorf("%s: %d, and the upstream got %q", name, r.StatusCode, values)
		}
		hits := h.model.hits.Load()
		if r := h.do("GET", "/closed", "", with); r.StatusCode != c.closed || (h.model.hits.Load() > hits) != (c.closed == 200) {
			t.Errorf("%s: %d at /closed, want %d", name, r.StatusCode, c.closed)
		}
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, rec := range h.audit.records(t) {
		if rec["groups_elsewhere"] == true {
			said++
		}
	}
	if said != 4 {
		t.Errorf("%d records say that the groups are elsewhere, want 4", said)
	}
}
