package login_test

import (
	"strings"
	"testing"

	"sallyport/auth/login"
)

// TestOneLoginServesHostsOfDomain signs in at one host and asks at others.
func TestOneLoginServesHostsOfDomain(t *testing.T) {
	d := newDesk(t, func(d *desk) { d.config.CookieDomain = "models.example" })
	b := d.browser()
	b.signIn()
	if len(b.cookies) != 1 || b.cookies["__Secure-sallyport"] == "" {
		t.Errorf("cookies: %v", b.cookies)
	}
	for host, reason := range map[string]string{
		"models.example": "", "a.models.example": "", "b.a.models.example": "", "evilmodels.example": login.BadSession, "example": login.BadSession, "models.example.evil": login.BadSession,
	} {
		_, err := b.at(host)
		wantReason(t, host, err, reason)
	}
	if _, err := d.login.Begin(t.Context(), login.Attempt{Host: "other.example", Origin: "https://other.example", To: "/"}); err == nil {
		t.Error("a login begins at a host without its cookies")
	}
	r := d.login.End(t.Context(), nil, login.Answer{Host: host, Origin: origin, Cookie: b.field()})
	if r.Location != login.SignedOutPath || !strings.HasSuffix(r.Cookies[0], "; Domain=models.example") {
		t.Errorf("%+v", r)
	}
}
