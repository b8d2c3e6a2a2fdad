package auth

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// TestAudienceInAnotherClaim checks tokens whose audience is in client_id. A token that has aud as
// well must fit by both.
func TestAudienceInAnotherClaim(t *testing.T) {
	clock, key := authtest.NewClock(), ecPair("one")
	p := newProvider(t, key.JWK())
	c := p.config()
	c.AudienceClaim, c.Audience = "client_id", setting.List[string]{"models", "batch"}
	a, chain := newAuth(t, clock, c)
	narrow, err := a.Route(Demand{Callers: []string{"issuer/corp"}, Audience: []string{"batch"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		aud, client any
		why, narrow string
	}{
		"no aud":                          {nil, "models", "", WrongAudience},
		"no aud, the route's":             {nil, "batch", "", ""},
		"another client":                  {nil, "mallory", WrongAudience, WrongAudience},
		"neither":                         {nil, nil, WrongAudience, WrongAudience},
		"aud alone":                       {"models", nil, WrongAudience, WrongAudience},
		"both":                            {"models", "batch", "", WrongAudience},
		"the client, for another service": {"payroll", "batch", WrongAudience, WrongAudience},
		"the client, for nobody":          {[]string{}, "batch", WrongAudience, WrongAudience},
		"a number":                        {nil, 7, WrongAudience, WrongAudience},
		"an object":                       {nil, map[string]any{"models": "models"}, WrongAudience, WrongAudience},
		"several":                         {nil, []string{"x", "batch"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			token := key.Token(p.claims(clock.Now(), map[string]any{"aud": x.aud, "client_id": x.client}))
			for range 2 { // checked, then from the cache
				want(t, chain, token, x.why)
				want(t, narrow, token, x.narrow)
			}
		})
	}
	_, err = ask(chain, key.Token(p.claims(clock.Now(), map[string]any{"aud": nil, "client_id": "mallory"})))
	if !strings.Contains(err.Error(), `client_id is "mallory", the route takes "models", "batch"`) {
		t.Errorf("got %v", err)
	}
	_, err = ask(chain, key.Token(p.claims(clock.Now(), map[string]any{"aud": "payroll", "client_id": "batch"})))
	if !strings.Contains(err.Error(), `aud is "payroll", the route takes`) {
		t.Errorf("got %v", err)
	}
}

const tenantA, tenantB, privateAccounts = "72f988bf-86f1-41af-91ab-2d7cd011db47", "00000000-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad"

// TestTenantsOfEntra checks that the tokens of the listed tenants alone are taken, each by a key
// that may sign them, and that a caller's name has its tenant.
func TestTenantsOfEntra(t *testing.T) {
	clock := authtest.NewClock()
	const template = "https://login.microsoftonline.com/{tenantid}/v2.0"
	of := func(tenant string) string { return strings.Replace(template, "{tenantid}", tenant, 1) }
	member := func(issuer string) string { return fmt.Sprintf(`"issuer":%q`, issuer) }
	shared, plain, onlyA, private, elsewhere := ecPair("shared"), ecPair("plain"), ecPair("only-a"), ecPair("private"), ecPair("elsewhere")
	p := newProvider(t, shared.JWK(member(template)), plain.JWK(), onlyA.JWK(member(of(tenantA))), private.JWK(member(of(privateAccounts))), elsewhere.JWK(member("https://login.example/{tenantid}/v2.0")), ecPair("odd").JWK(`"issuer":7`))
	p.Identify(template)
	c := p.config()
	c.URL, c.Tenants, c.Discovery, c.Principal = template, setting.List[string]{tenantA, tenantB}, mustURL(p.URL), "preferred_username"
	var f setting.Faults
	if c.Check("issuers.corp", &f); len(f) > 0 {
		t.Fatal(f)
	}
	a, chain := newAuth(t, clock, c)
	for name, x := range map[string]struct {
		key      authtest.Key
		iss, tid string
		why      string
		caller   string
	}{
		"tenant A":                         {shared, of(tenantA), tenantA, "", tenantA},
		"tenant B":                         {shared, of(tenantB), tenantB, "", tenantB},
		"a key of no issuer":               {plain, of(tenantB), "", "", tenantB},
		"the tenant's own key":             {onlyA, of(tenantA), tenantA, "", tenantA},
		"the key of another tenant":        {onlyA, of(tenantB), tenantB, BadCredential, ""},
		"the key for private accounts":     {private, of(tenantA), tenantA, BadCredential, ""},
		"a key of another cloud":           {elsewhere, of(tenantA), tenantA, BadCredential, ""},
		"a tenant that is not listed":      {private, of(privateAccounts), privateAccounts, BadCredential, ""},
		"the placeholder itself":           {shared, template, tenantA, BadCredential, ""},
		"organizations":                    {shared, of("organizations"), tenantA, BadCredential, ""},
		"tid of another tenant":            {shared, of(tenantA), tenantB, MissingClaim, ""},
		"a tenant, and something after it": {shared, of(tenantA + "/x"), tenantA, BadCredential, ""},
	} {
		t.Run(name, func(t *testing.T) {
			changes := map[string]any{"iss": x.iss, "preferred_username": "root@example.com"}
			if x.tid != "" {
				changes["tid"] = x.tid
			}
			token := x.key.Token(authtest.Claims(x.iss, clock.Now(), changes))
			for range 2 {
				caller, err := ask(chain, token)
				if got := reason(t, err); got != x.why || err == nil && caller.String() != "issuer/corp:"+x.caller+"/root@example.com" {
					t.Errorf("got %s, %v", caller.String(), err)
				}
			}
		})
	}
	if st := a.Status()[0]; len(st.Skipped) != 1 || st.Skipped[0] != "kid odd skipped: its issuer is not a string" {
		t.Errorf("skipped %q", st.Skipped)
	}
	if got := (&IssuerConfig{URL: template, Tenants: c.Tenants}).discovery(); got != of("organizations") {
		t.Errorf("discovery at %s", got)
	}
}

// TestKeyOfAnotherIssuerIsRefused checks the member issuer of keys for an issuer without tenants.
func TestKeyOfAnotherIssuerIsRefused(t *testing.T) {
	clock, own, any, other := authtest.NewClock(), ecPair("own"), ecPair("any"), ecPair("other")
	p := newProvider(t)
	p.Publish(own.JWK(fmt.Sprintf(`"issuer":%q`, p.URL)), any.JWK(`"issuer":"https://login.microsoftonline.com/{tenantid}/v2.0"`), other.JWK(`"issuer":"https://login.microsoftonline.com/`+privateAccounts+`/v2.0"`))
	_, chain := newAuth(t, clock, p.config())
	claims := p.claims(clock.Now(), nil)
	want(t, chain, own.Token(claims), "")
	want(t, chain, any.Token(claims), "") // of the same cloud: keys of version 2 for tokens of version 1
	want(t, chain, other.Token(claims), BadCredential)
	want(t, chain, withoutKid(other, claims), BadCredential)
	_, err := ask(chain, other.Token(claims))
	if !strings.Contains(err.Error(), "issuer corp: the token's key is for tokens of \"https://login.microsoftonline.com/"+privateAccounts+"/v2.0\"") {
		t.Errorf("got %v", err)
	}
}

// TestKeysInAFile checks that an issuer with jwks_file is never asked anything, and how faults of
// the file are reported.
func TestKeysInAFile(t *testing.T) {
	clock, key := authtest.NewClock(), ecPair("one")
	p := newProvider(t)
	file := filepath.Join(t.TempDir(), "jwks.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := p.config()
	c.JWKSFile = setting.Path(file)
	faults := func() string {
		var f setting.Faults
		c.CheckFiles("issuers.corp", &f)
		if len(f) == 0 {
			return ""
		}
		if f[0].Path != "issuers.corp.jwks_file" || f[0].Cure == "" && !strings.Contains(f[0].Problem, "chmod") {
			t.Errorf("got %v", f)
		}
		if _, err := New(Config{Issuers: map[string]IssuerConfig{"corp": c}}, NewMemory(MemoryOptions{})); err == nil {
			t.Errorf("an Auth was made with %v", f)
		}
		return f[0].Error()
	}
	if got := faults(); !strings.Contains(got, "no such file") {
		t.Errorf("missing: %s", got)
	}
	off := strings.Replace(ecPair("k1").JWK(), `"P-256"`, `"P-255"`, 1)
	for text, want := range map[string]string{
		"":                       "not a JSON Web Key Set",
		"<html>":                 "not a JSON Web Key Set",
		`{"keys":[]}`:            "no key in it can be used",
		authtest.KeySet(off):     "kid k1 skipped: its crv is unknown",
		strings.Repeat(" ", 2e6): "larger than 1048576 bytes",
		strings.Replace(authtest.KeySet(key.JWK()), `{"keys"`, `{"keys":[],"keys"`, 1): "a name stands there twice",
	} {
		write(text)
		if got := faults(); !strings.Contains(got, want) {
			t.Errorf("%.40q: got %s, want %s", text, got, want)
		}
	}
	write(authtest.KeySet(key.JWK(), off))
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := faults(); !strings.Contains(got, "can be written by others") {
		t.Errorf("writable: %s", got)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := faults(); got != "" {
		t.Error(got)
	}
	a, chain := newAuth(t, clock, c)
	want(t, chain, key.Token(p.claims(clock.Now(), nil)), "")
	want(t, chain, ecPair("two").Token(p.claims(clock.Now(), nil)), BadCredential)
	clock.Add(maxMaxStale * 10) // these keys never get stale
	want(t, chain, key.Token(p.claims(clock.Now(), nil)), "")
	if st := a.Status()[0]; st.Keys != 1 || st.Fetched.IsZero() || st.LastError != "" || len(st.Skipped) != 1 {
		t.Errorf("got %+v", st)
	}
	if n := p.Requests(); n != 0 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

// TestPlainHTTPIsAnnounced checks that check warns of keys that will be refused, and that the
// refusal says what to write.
func TestPlainHTTPIsAnnounced(t *testing.T) {
	c := IssuerConfig{URL: "http://keycloak:8080/realms/ml", Audience: setting.List[string]{"models"}, Discovery: mustURL("http://127.0.0.1:8080/realms/ml")}
	warned := func() string {
		var f setting.Faults
		c.Warn("issuers.corp", &f)
		return f.Error()
	}
	if got := warned(); !strings.Contains(got, "issuers.corp.discovery") || !strings.Contains(got, "insecure_http: true") {
		t.Errorf("got %q", got)
	}
	c.InsecureHTTP = true
	if got := warned(); got != "" {
		t.Errorf("with insecure_http: %q", got)
	}
	c.InsecureHTTP, c.JWKS = false, mustURL("http://127.0.0.1:8080/certs")
	if got := warned(); got != "" {
		t.Errorf("with jwks: %q", got)
	}

	p := newProvider(t, ecPair("one").JWK())
	document, err := json.Marshal(map[string]string{"issuer": p.URL, "jwks_uri": "http://keycloak:8080/certs"})
	if err != nil {
		t.Fatal(err)
	}
	p.Answer(authtest.Text(string(document)))
	_, chain := newAuth(t, authtest.NewClock(), p.config())
	_, err = ask(chain, ecPair("one").Token(p.claims(authtest.NewClock().Now(), nil)))
	if reason(t, err) != IssuerUnavailable || !strings.Contains(err.Error(), `"http://keycloak:8080/certs" is http, and anyone on the path could replace the keys; write jwks with https, or set insecure_http: true`) {
		t.Errorf("got %v", err)
	}
}
