package proxy_test

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
)

var updateMatrix = flag.Bool("update", false, "write testdata/matrix.txt anew")

// proof is a credential of the matrix.
type proof struct {
	kind string // as routes list it
	// name is "good", of a caller whose other good proofs have the same alias; "other", of another caller;
	// or what is wrong with it.
	name string
	set  func(*http.Request) // nil if the credential is none of the head
	key  *httpsig.Key        // signs the request
	cert *tls.Certificate    // of the connection
}

// fits reports whether one request can have both.
func (p proof) fits(q proof) bool { return p.kind != q.kind && (p.cert == nil || q.cert == nil) }

// field returns a credential that is a field.
func field(kind, name, field, value string) proof {
	return proof{kind: kind, name: name, set: func(r *http.Request) { r.Header.Add(field, value) }}
}

// matrixProofs returns credentials of every kind.
func matrixProofs(h *house, keys map[string]string, ca authtest.Cert) []proof {
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
	return []proof{
		field("issuer/corp", "good", "Authorization", token("alice", nil)),
		field("issuer/corp", "other", "Authorization", token("bob", nil)),
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
		field("cert", "good", "Client-Cert", sfBytes(ca.Client("batch", nil))),
		field("cert", "other", "Client-Cert", sfBytes(ca.Client("orbit", nil))),
		field("cert", "of another CA", "Client-Cert", sfBytes(authtest.NewCA("lab", time.Now(), nil).Client("batch", nil))),
	}
}

// matrixDemands returns the callers of every route: each kind alone, and each pair in each combination.
func matrixDemands(kinds []string) (all []string) {
	all = append(all, "anonymous")
	all = append(all, kinds...)
	for i, a := range kinds {
		for _, b := range kinds[i+1:] {
			pair := "[" + a + ", " + b + "]"
			all = append(all, pair, "{all: "+pair+"}", "{all: "+pair+", bind: independent}")
		}
	}
	return all
}

// TestDecisionMatrix sends each credential, and each pair of two kinds, to each combination of callers
// that a route may demand, and compares who is let in, or why not, with testdata/matrix.txt.
func TestDecisionMatrix(t *testing.T) {
	keys := map[string]string{"acme": apikey.New(), "orbit": apikey.New(), "old": apikey.New()}
	kinds := []string{"issuer/corp", "key", "apikey", "cert"}
	ca := authtest.NewCA("lab", time.Now(), nil)
	demands := matrixDemands(kinds)
	var routes strings.Builder
	for i, callers := range demands {
		fmt.Fprintf(&routes, "\n  - {host: models.test, path: /%d, upstream: '%%s', callers: %s, rules: [{allow: \"*\"}]}", i, callers)
	}
	h := signed(t, plan{files: map[string]string{"ca.pem": string(authtest.PEM(ca))}, routes: routes.String() + "\n", more: fmt.Sprintf(`
trusted_proxies: 127.0.0.1
client_certificates: {ca: ca.pem, header: {name: Client-Cert, from: 127.0.0.1}}
principals: {batch: ['issuer/corp:alice', 'key:acme', 'apikey:acme', 'cert:CN=batch']}
api_keys:
  acme: {hash: '%s'}
  orbit: {hash: '%s'}
  old: {hash: '%s', not_after: 2020-01-01}
`, apikey.HashText(keys["acme"]), apikey.HashText(keys["orbit"]), apikey.HashText(keys["old"]))})
	proofs := matrixProofs(h, keys, ca)
	clients := map[*tls.Certificate]*http.Client{}
	var got strings.Builder
	n := 0
	ask := func(i int, sent ...proof) {
		n++
		e := errand{target: fmt.Sprintf("/%d", i), key: keyOf("acme-1")}
		var cert *tls.Certificate
		var names []string
		signs := false
		for _, p := range sent {
			names = append(names, p.kind+" "+p.name)
			if p.key != nil {
				e.key, signs = p.key, true
			}
			if p.cert != nil {
				cert = p.cert
			}
		}
		req := e.signed(t).request(t)
		if !signs {
			req.Header.Del("Signature")
			req.Header.Del("Signature-Input")
		}
		for _, p := range sent {
			if p.set != nil {
				p.set(req)
			}
		}
		// Failures of one address count against it, so each request has an address of its own.
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.1.%d.%d", n/250, n%250+1))
		if clients[cert] == nil {
			clients[cert] = h.client(false)
			if cert != nil {
				clients[cert].Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*cert}
			}
		}
		before := h.model.hits.Load()
		r := h.send(clients[cert], req)
		outcome := fmt.Sprintf("%d %s", r.StatusCode, r.reason())
		seen := h.model.hits.Load() - before
		switch {
		case r.StatusCode == 200 && seen == 1:
			up, _ := h.model.seen()
			outcome = "200 " + up.Header.Get("X-Sallyport-Principal")
		case r.StatusCode == 200 || seen != 0:
			t.Errorf("%s with %s: status %d, and the upstream saw %d requests", demands[i], names, r.StatusCode, seen)
		}
		fmt.Fprintf(&got, "%-50s | %-70s | %s\n", demands[i], strings.Join(names, " + "), outcome)
	}
	for i, callers := range demands {
		ask(i)
		for j, p := range proofs {
			listed := strings.Contains(callers, p.kind)
			if listed || p.name == "good" || p.name == "forged" {
				ask(i, p)
			}
			for _, q := range proofs[j+1:] {
				if p.fits(q) && listed && (strings.Contains(callers, q.kind) || q.name == "good") {
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
