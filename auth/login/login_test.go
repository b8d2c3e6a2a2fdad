package login_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
)

func TestBadConfigurationsAreRefused(t *testing.T) {
	d := newDesk(t)
	for name, change := range map[string]func(*login.Config){
		"no client":         func(c *login.Config) { c.ClientID = "" },
		"unknown issuer":    func(c *login.Config) { c.Issuer = "other" },
		"unknown claims":    func(c *login.Config) { c.Claims = "cookie" },
		"unknown auth":      func(c *login.Config) { c.ClientAuth = "none" },
		"endless":           func(c *login.Config) { c.Absolute = 1000 * time.Hour },
		"negative idle":     func(c *login.Config) { c.Idle = -1 },
		"negative sessions": func(c *login.Config) { c.Sessions = -1 },
		"own state":         func(c *login.Config) { c.Params = map[string]string{"state": "x"} },
		"own redirect":      func(c *login.Config) { c.Params = map[string]string{"redirect_uri": "https://evil.example"} },
	} {
		c := d.config
		change(&c)
		_, err := auth.New(auth.Config{Issuers: map[string]auth.IssuerConfig{"corp": d.rules}, Logins: map[string]login.Config{"corp": c}}, d.memory)
		if err == nil || strings.Contains(err.Error(), "secret-of-client") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAuthorizationRequestIsComplete checks the parameters that the issuer gets.
func TestAuthorizationRequestIsComplete(t *testing.T) {
	d := newDesk(t, func(d *desk) {
		d.config.Scopes, d.config.Params, d.config.Prompt = []string{"profile", "offline_access"}, map[string]string{"domain_hint": "a&b"}, "select_account"
		d.config.MaxAge, d.config.ACR = time.Hour, []string{"mfa", "hwk"}
	})
	u, err := url.Parse(d.browser().begin("/"))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "gateway", "redirect_uri": origin + login.CallbackPath("corp"), "scope": "openid profile offline_access",
		"code_challenge_method": "S256", "domain_hint": "a&b", "prompt": "select_account", "max_age": "3600", "acr_values": "mfa hwk",
	} {
		if q.Get(name) != want || len(q[name]) != 1 {
			t.Errorf("%s is %q, want %q", name, q[name], want)
		}
	}
	for name, length := range map[string]int{"state": len("corp.") + 22, "nonce": 26, "code_challenge": 43} {
		if len(q.Get(name)) != length {
			t.Errorf("%s is %q", name, q.Get(name))
		}
	}
	if q.Has("client_secret") || q.Has("code_verifier") {
		t.Error("a secret goes through the browser")
	}
}

// TestEveryReasonHasText checks what clients are told.
func TestEveryReasonHasText(t *testing.T) {
	seen := map[string]string{}
	for _, reason := range login.Reasons() {
		e := &login.Error{Reason: reason}
		if other := seen[e.Text()]; other != "" || e.Status() < 400 {
			t.Errorf("%s: status %d, and the text of %q", reason, e.Status(), other)
		}
		seen[e.Text()] = reason
	}
	for _, reason := range login.SessionReasons() {
		own, e := &login.Error{Reason: reason}, &auth.Error{Reason: reason}
		if own.Status() != e.Status() || own.Text() != e.Text() || !own.Again() {
			t.Errorf("%s: %d %q and %d %q", reason, own.Status(), own.Text(), e.Status(), e.Text())
		}
	}
}
