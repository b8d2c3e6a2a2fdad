package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/clientcert"
)

// boundTo returns claims that bind a token to a certificate.
func boundTo(c authtest.Cert) map[string]any {
	sum := sha256.Sum256(c.Raw)
	return map[string]any{"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}}
}

func (r *register) token(changes map[string]any) string {
	return "Bearer " + r.signer.Token(r.provider.claims(r.clock.Now(), changes))
}

func TestBoundTokenNeedsItsCertificate(t *testing.T) {
	r := newRegister(t)
	mine, other := r.ca.Client("mine", nil), r.ca.Client("other", nil)
	twin := r.ca.Client("mine", nil) // the same name and another certificate
	forged := authtest.NewCA("lab", r.clock.Now(), nil).Client("mine", nil)
	bound, plain := r.token(boundTo(mine)), r.token(nil)
	bad := func(value any) string { return r.token(map[string]any{"cnf": map[string]any{"x5t#S256": value}}) }
	both := boundTo(mine)
	both["cnf"].(map[string]any)["jkt"] = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	unknown := boundTo(mine)
	unknown["cnf"].(map[string]any)["x-future"] = "y"
	const ok = "issuer/corp:alice"
	for name, k := range map[string]struct {
		token                string
		chain                []authtest.Cert
		off, accept, require string
	}{
		"its certificate":       {bound, []authtest.Cert{mine}, TokenBound, ok, ok},
		"another":               {bound, []authtest.Cert{other}, TokenBound, TokenBound, TokenBound},
		"one of the same name":  {bound, []authtest.Cert{twin}, TokenBound, TokenBound, TokenBound},
		"none":                  {bound, nil, TokenBound, TokenBound, TokenBound},
		"one of a strange CA":   {r.token(boundTo(forged)), []authtest.Cert{forged}, TokenBound, TokenBound, TokenBound},
		"not bound":             {plain, []authtest.Cert{mine}, ok, ok, MissingClaim},
		"not bound, none":       {plain, nil, ok, ok, MissingClaim},
		"bound in two ways":     {r.token(both), []authtest.Cert{mine}, TokenBound, TokenBound, TokenBound},
		"an unknown member":     {r.token(unknown), []authtest.Cert{mine}, TokenBound, ok, ok},
		"an empty cnf":          {r.token(map[string]any{"cnf": map[string]any{}}), []authtest.Cert{mine}, TokenBound, TokenBound, TokenBound},
		"cnf is null":           {r.token(map[string]any{"cnf": nil, "x": 1}), []authtest.Cert{mine}, ok, ok, MissingClaim},
		"cnf is text":           {r.token(map[string]any{"cnf": "x"}), []authtest.Cert{mine}, TokenBound, TokenBound, TokenBound},
		"short":                 {bad("AAAA"), []authtest.Cert{mine}, TokenBound, TokenBound, TokenBound},
		"padded":                {bad(boundTo(mine)["cnf"].(map[string]any)["x5t#S256"].(string) + "="), []authtest.Cert{mine}, TokenBound, TokenBound, TokenBound},
		"a list":                {bad([]string{boundTo(mine)["cnf"].(map[string]any)["x5t#S256"].(string)}), []authtest.Cert{mine}, TokenBound, TokenBound, TokenBound},
		"a claim with the path": {r.token(map[string]any{"cnf.x5t#S256": boundTo(mine)["cnf"].(map[string]any)["x5t#S256"]}), []authtest.Cert{mine}, ok, ok, MissingClaim},
	} {
		for bound, want := range map[string]string{"": k.off, BoundOff: k.off, BoundAccept: k.accept, BoundRequire: k.require} {
			r.memory.budget = newBudget(Budget{})
			c := r.chain(bound, nil, "issuer/corp")
			for range 2 { // the second time from the cache
				r.want(name+", bound_tokens "+bound, c, overTLS(head(k.token), k.chain...), want)
			}
		}
	}
}

// TestCachedBoundTokenIsComparedEachTime: a thief of a token that is in the cache has nothing.
func TestCachedBoundTokenIsComparedEachTime(t *testing.T) {
	r := newRegister(t)
	mine, thief := r.ca.Client("mine", nil), r.ca.Client("thief", nil)
	c := r.chain(BoundAccept, nil, "issuer/corp")
	token := r.token(boundTo(mine))
	for range 3 {
		r.want("owner", c, overTLS(head(token), mine), "issuer/corp:alice")
		r.want("thief", c, overTLS(head(token), thief), TokenBound)
		r.want("thief without a certificate", c, overTLS(head(token)), TokenBound)
		proof, err := c.Recheck(t.Context(), overTLS(head(token), thief), Proof{})
		if err == nil {
			t.Errorf("recheck takes the thief for %s", proof.Caller.String())
		}
	}
	_, err := c.Authenticate(t.Context(), overTLS(head(token), thief))
	if got := challenge(c, "m", err); !strings.Contains(got, `error="invalid_token"`) {
		t.Errorf("the challenge is %q, want invalid_token", got)
	}
}

func TestBoundTokenEndsWithItsCertificate(t *testing.T) {
	r := newRegister(t)
	mine := r.ca.Client("mine", nil)
	c := r.chain(BoundAccept, nil, "issuer/corp")
	claims := boundTo(mine)
	claims["exp"] = r.clock.Now().Add(48 * time.Hour).Unix()
	token := r.token(claims)
	r.want("at first", c, overTLS(head(token), mine), "issuer/corp:alice")
	r.clock.Add(25 * time.Hour)
	r.want("after the certificate's end", c, overTLS(head(token), mine), TokenBound)
}

// TestBoundTokenByTheFieldOfABalancer: the field counts from a listed balancer alone.
func TestBoundTokenByTheFieldOfABalancer(t *testing.T) {
	r := newRegister(t)
	mine := r.ca.Client("mine", func(c *x509.Certificate) { c.DNSNames = []string{"a.lab", "b.lab"} })
	c := r.chain(BoundRequire, fromBalancer("Client-Cert"), "issuer/corp")
	h := func() []string { return []string{"authorization", r.token(boundTo(mine)), "client-cert", sf(mine)} }
	r.want("balancer", c, viaBalancer(fields(h()...)), "issuer/corp:alice")
	r.want("stranger", c, overTLS(fields(h()...)), TokenBound)
	r.want("balancer without the field", c, viaBalancer(fields(h()[:2]...), mine), TokenBound)
}

// TestBoundTokenWithoutEntryIsRefused: a host without client_certificates proves no certificate.
func TestBoundTokenWithoutEntryIsRefused(t *testing.T) {
	r := newRegister(t)
	mine := r.ca.Client("mine", nil)
	c := r.chain(BoundAccept, func(c *clientcert.Config) { c.Hosts = []string{"other.example"} }, "issuer/corp")
	r.want("bound", c, overTLS(head(r.token(boundTo(mine))), mine), TokenBound)
	r.want("not bound", c, overTLS(head(r.token(nil)), mine), "issuer/corp:alice")
}
