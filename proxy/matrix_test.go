package proxy_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
	"sallyport/auth/login"
)

var updateMatrix = flag.Bool("update", false, "write testdata/matrix.txt anew")

// proof is a credential of the matrix.
type proof struct {
	kind string // as routes list it
	// name is "good", of a caller whose other good proofs have the same alias; "other", of another caller;
	// or what is wrong with it.
	name string
	// field and value are a field of the request; "" if the credential is none.
	field, value string
	key          *httpsig.Key // signs the request
}

// fits reports whether one request can have both.
func (p proof) fits(q proof) bool { return p.kind != q.kind && (p.field == "" || p.field != q.field) }

// field returns a credential that is a field.
func field(kind, name, field, value string) proof {
	return proof{kind: kind, name: name, field: field, value: value}
}

// matrixProofs returns credentials of every kind.
func matrixProofs(h *house, asked *authtest.Issuer, keys map[string]string, ca authtest.Cert) []proof {
	l := &lobby{h, h.issuer.Provide("gateway", "s3cret")}
	session := func(person string, claims map[string]any) string {
		l.provider.Person(person, claims)
		return l.browser(false).signInWith("corp")
	}
	ofSite := func(person string) string { // for all hosts of a domain
		l.provider.Person(person, nil)
		b := l.browser(false)
		b.visit("https://" + matrixSite + login.SignInPath)
		return b.cookiesAt(matrixSite)
	}
	leaver := l.browser(false)
	ended := leaver.signInWith("corp")
	leaver.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	token := func(sub string, change func(map[string]any)) string {
		claims := h.issuer.Claims(sub, "models.predict")
		if change != nil {
			change(claims)
		}
		text, err := h.issuer.Sign(claims)
		if err != nil {
			h.t.Fatal(err)
		}
		return "Bearer " + text
	}
	opaque := func(sub string) string {
		asked.Know("opaque-of-"+sub, asked.Claims(sub, "models.predict"))
		return "Bearer opaque-of-" + sub
	}
	strong := asked.Claims("alice", "models.predict")
	strong["acr"] = "mfa"
	asked.Know("opaque-and-strong", strong)
	return []proof{
		field("issuer/corp", "good", "Authorization", token("alice", nil)),
		field("issuer/corp", "other", "Authorization", token("bob", nil)),
		field("issuer/corp", "strong", "Authorization", token("alice", func(c map[string]any) { c["acr"] = "mfa" })),
		field("issuer/opaque", "strong", "Authorization", "Bearer opaque-and-strong"),
		field("login/corp", "strong", "Cookie", session("alice", map[string]any{"acr": "mfa"})),
		field("issuer/corp", "expired", "Authorization", token("alice", func(c map[string]any) { c["exp"], c["iat"] = 1000, 900 })),
		field("issuer/corp", "of another audience", "Authorization", token("alice", func(c map[string]any) { c["aud"] = "others" })),
		field("issuer/corp", "forged", "Authorization", token("alice", nil)+"A"),
		{kind: "key", name: "good", key: keyOf("acme-1")},
		{kind: "key", name: "other", key: keyOf("orbit-1")},
		{kind: "key", name: "forged", key: mustKey("acme-1", "wrong")},
		{kind: "key", name: "unknown", key: keyOf("nobody-1")},
		field("apikey", "good", "X-Api-Key", keys["acme"]),
		field("apikey", "other", "X-Api-Key", keys["orbit"]),
		field("apikey", "expired", "X-Api-Key", keys["old"]),
		field("apikey", "mistyped", "X-Api-Key", keys["acme"][:len(keys["acme"])-1]),
		field("apikey", "unknown", "X-Api-Key", apikey.New()),
		field("issuer/opaque", "good", "Authorization", opaque("alice")),
		field("issuer/opaque", "other", "Authorization", opaque("bob")),
		field("issuer/opaque", "unknown", "Authorization", "Bearer opaque-of-nobody"),
		field("basic/legacy", "good", "Authorization", basicAuth("alice", "sesame-of-alice")),
		field("basic/legacy", "other", "Authorization", basicAuth("bob", "sesame-of-bob")),
		field("basic/legacy", "wrong", "Authorization", basicAuth("alice", "sesame-of-bob")),
		field("login/corp", "good", "Cookie", session("alice", nil)),
		field("login/corp", "other", "Cookie", session("bob", nil)),
		field("login/corp", "cut", "Cookie", ended[:len(ended)-4]),
		field("login/corp", "ended", "Cookie", ended),
		field("login/site", "good", "Cookie", ofSite("alice")),
		field("login/site", "other", "Cookie", ofSite("bob")),
		field("login/site", "of a host", "Cookie", strings.Replace(ended, "__Host-sallyport", "__Secure-sallyport.matrix.test", 1)),
		field("cert", "good", "Client-Cert", sfBytes(ca.Client("batch", nil))),
		field("cert", "other", "Client-Cert", sfBytes(ca.Client("orbit", nil))),
		field("cert", "of another CA", "Client-Cert", sfBytes(authtest.NewCA("lab", time.Now(), nil).Client("batch", nil))),
	}
}

// matrixSite is the host of routes where people have a session for all hosts of a domain.
const matrixSite = "site.matrix.test"

func matrixHost(callers string) string {
	if strings.Contains(callers, "login/site") {
		return matrixSite
	}
	return "models.test"
}

// matrixDemands returns the callers of every route: each kind alone, and each pair in each combination.
// Two of the kinds that stand in Authorization alone are never in one request, and browsers that sign in
// prove nothing else but a certificate.
func matrixDemands(kinds []string) (all []string) {
	all = append(all, "anonymous")
	all = append(all, kinds...)
	for i, a := range kinds {
		for _, b := range kinds[i+1:] {
			pair := "[" + a + ", " + b + "]"
			aPerson, bPerson := strings.HasPrefix(a, "login/"), strings.HasPrefix(b, "login/")
			if aPerson && bPerson {
				continue // a host has sessions of one kind
			}
			all = append(all, pair)
			if strings.Contains(a, "/") && strings.Contains(b, "/") || aPerson && b != "cert" || bPerson {
				continue
			}
			all = append(all, "{all: "+pair+"}", "{all: "+pair+", bind: independent}")
		}
	}
	for _, callers := range []string{
		"issuer/corp", "issuer/opaque", "login/corp", "[issuer/corp, issuer/opaque]", "[issuer/corp, login/corp]",
		"{all: [key, issuer/corp]}", "{all: [issuer/corp, cert]}", "{all: [issuer/opaque, apikey]}", "{all: [login/corp, cert]}",
	} {
		all = append(all, callers+stepUp)
	}
	return all
}

// stepUp follows the callers of routes that demand the authentication of strong proofs.
const stepUp = ", step_up: {acr_values: mfa}"

// lists reports whether callers list a kind: key is not apikey.
func lists(callers, kind string) bool {
	return slices.Contains(strings.FieldsFunc(callers, func(r rune) bool { return strings.ContainsRune("{[:, ]}", r) }), kind)
}

// admitted reports whether a request with these proofs must be let in, whatever testdata/matrix.txt
// says: every proof of a listed kind is good, and there is one, or one of each kind. A token of
// another issuer is of a listed kind where the route lists an issuer.
func admitted(callers string, kinds []string, sent []proof) bool {
	listed, wanted, bound := 0, 0, strings.Contains(callers, "all:") && !strings.Contains(callers, "independent")
	for _, kind := range kinds {
		if lists(callers, kind) {
			wanted++
		}
	}
	for _, p := range sent {
		word, _, _ := strings.Cut(p.kind, "/")
		switch {
		case lists(callers, p.kind) && strings.HasSuffix(callers, stepUp) && (word == "issuer" || word == "login"):
			if listed++; p.name != "strong" {
				return false
			}
		case lists(callers, p.kind):
			if listed++; p.name != "good" && (p.name != "other" || bound) {
				return false
			}
		case word == "issuer" && strings.Contains(callers, word):
			return false
		}
	}
	return callers == "anonymous" || listed > 0 && (listed == wanted || !strings.Contains(callers, "all:"))
}

// TestDecisionMatrix sends each credential, and each pair of two kinds, to each combination of callers
// that a route may demand, and compares who is let in, or why not, with testdata/matrix.txt.
func TestDecisionMatrix(t *testing.T) {
	t.Parallel()
	keys := map[string]string{"acme": apikey.New(), "orbit": apikey.New(), "old": apikey.New()}
	kinds := []string{"issuer/corp", "issuer/opaque", "basic/legacy", "key", "apikey", "login/corp", "login/site", "cert"}
	ca := authtest.NewCA("lab", time.Now(), nil)
	demands := matrixDemands(kinds)
	var routes strings.Builder
	for i, callers := range demands {
		fmt.Fprintf(&routes, "\n  - {host: %s, path: /%d, upstream: '%%s', callers: %s, rules: [{allow: \"*\"}]}", matrixHost(callers), i, callers)
	}
	opaque := authtest.Start(t)
	h := signed(t, plan{files: map[string]string{
		"ca.pem": string(authtest.PEM(ca)), "secret": "s3cret\n", "session-keys": login.NewKey(),
		"htpasswd": "alice:" + bcryptOf(t, "sesame-of-alice") + "\nbob:" + bcryptOf(t, "sesame-of-bob") + "\n",
	}, issuers: fmt.Sprintf("  opaque: {url: '%s', audience: models, introspection: {client_id: gateway, client_secret: {file: secret}}}\n", opaque.URL), routes: routes.String() + "\n", more: fmt.Sprintf(`
trusted_proxies: 127.0.0.1
client_certificates: {ca: ca.pem, header: {name: Client-Cert, from: 127.0.0.1}}
principals: {batch: ['issuer/corp:alice', 'key:acme', 'apikey:acme', 'cert:CN=batch', 'issuer/opaque:alice', 'basic/legacy:alice']}
logins: {corp: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {keys: {file: session-keys}}}, site: {issuer: corp, client_id: gateway, client_secret: {file: secret}, session: {keys: {file: session-keys}, cookie_domain: matrix.test}}}
basic: {legacy: {htpasswd: {file: htpasswd}, until: 2099-01-01}}
api_keys:
  acme: {hash: '%s'}
  orbit: {hash: '%s'}
  old: {hash: '%s', not_after: 2020-01-01}
`, apikey.HashText(keys["acme"]), apikey.HashText(keys["orbit"]), apikey.HashText(keys["old"]))})
	proofs := matrixProofs(h, opaque, keys, ca)
	client := h.client(false)
	var got strings.Builder
	n := 0
	ask := func(i int, sent ...proof) {
		n++
		e := errand{authority: matrixHost(demands[i]), target: fmt.Sprintf("/%d", i), key: keyOf("acme-1")}
		var names []string
		signs := false
		for _, p := range sent {
			names = append(names, p.kind+" "+p.name)
			if p.key != nil {
				e.key, signs = p.key, true
			}
		}
		req := e.signed(t).request(t)
		if !signs {
			req.Header.Del("Signature")
			req.Header.Del("Signature-Input")
		}
		for _, p := range sent {
			if p.field != "" {
				req.Header.Add(p.field, p.value)
			}
		}
		// Failures of one address count against it, so each request has an address of its own.
		req.Header.Set("Sec-Fetch-Site", "same-origin") // as a page of the host sends with a session
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.1.%d.%d", n/250, n%250+1))
		before := h.model.hits.Load()
		r := h.send(client, req)
		outcome := fmt.Sprintf("%d %s", r.StatusCode, r.reason())
		seen := h.model.hits.Load() - before
		switch {
		case r.StatusCode == 200 && seen == 1:
			up, _ := h.model.seen()
			outcome = "200 " + up.Header.Get("X-Sallyport-Principal")
		case r.StatusCode == 200 || seen != 0:
			t.Errorf("%s with %s: status %d, and the upstream saw %d requests", demands[i], names, r.StatusCode, seen)
		}
		if want := admitted(demands[i], kinds, sent); want != (r.StatusCode == 200) {
			t.Errorf("%s with %s: %s; must be let in: %t", demands[i], names, outcome, want)
		}
		fmt.Fprintf(&got, "%-50s | %-70s | %s\n", demands[i], strings.Join(names, " + "), outcome)
	}
	for i, callers := range demands {
		ask(i)
		for j, p := range proofs {
			if p.name == "strong" && !strings.HasSuffix(callers, stepUp) {
				continue // it is like a good one
			}
			listed := lists(callers, p.kind)
			if listed || p.name == "good" || p.name == "forged" {
				ask(i, p)
			}
			for _, q := range proofs[j+1:] {
				if p.fits(q) && (q.name != "strong" || strings.HasSuffix(callers, stepUp)) && listed && (lists(callers, q.kind) || q.name == "good") {
					ask(i, p, q)
				}
			}
		}
	}
	file := filepath.Join("testdata", "matrix.txt")
	if *updateMatrix {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.Split(string(want), "\n")
	for line := range strings.SplitSeq(got.String(), "\n") {
		if !slices.Contains(wanted, line) {
			t.Errorf("not in %s, which -update writes anew:\n%s", file, line)
		}
	}
	if len(wanted) != strings.Count(got.String(), "\n")+1 {
		t.Errorf("%s has %d lines, want %d", file, len(wanted), strings.Count(got.String(), "\n")+1)
	}
}
