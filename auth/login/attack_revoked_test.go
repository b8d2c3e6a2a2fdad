package login_test

import (
	"testing"

	"sallyport/auth"
	"sallyport/auth/login"
)

// TestRevokedPersonSignsOut signs a person out while all that is theirs is revoked. When the revocation is taken
// back, the copy of the cookie that somebody made does not serve.
func TestRevokedPersonSignsOut(t *testing.T) {
	d := newDesk(t)
	b, victim := d.browser(), d.browser()
	b.signIn()
	victim.signIn()
	all, err := revocations(t, "principal issuer/corp:alice")
	if err != nil {
		t.Fatal(err)
	}
	d.auth.Revoke(all)
	look := request(host, b.field())
	look.Look = true
	p, err := d.chain.Authenticate(t.Context(), look)
	wantReason(t, "the look", err, auth.CredentialRevoked)
	if p.Session == nil || !p.Caller.IsZero() {
		t.Fatalf("the session to end is %v, of caller %q", p.Session, p.Caller.String())
	}
	if _, err := d.login.End(t.Context(), p.Session, login.Answer{Host: host, Origin: origin}); err != nil {
		t.Fatal(err)
	}
	if p, err := d.chain.Authenticate(t.Context(), request(host, victim.field())); reasonOf(err) != auth.CredentialRevoked || p.Session != nil {
		t.Errorf("a request: %v, with the session %v", err, p.Session)
	}
	d.auth.Revoke(nil)
	b.refused(login.SessionEnded)
	victim.serves("issuer/corp:alice")
}
