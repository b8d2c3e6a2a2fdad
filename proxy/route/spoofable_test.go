package route

import (
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

// The search looks at one entry, so the entries must be sorted, and none may be the beginning of
// another. The screen by the first bytes must pass them all.
func TestListOfSpoofableFieldsIsSearchable(t *testing.T) {
	beginning := func(i int) string { return strings.TrimSuffix(spoofable[i], "*") }
	for i, entry := range spoofable {
		if bare(entry) != strings.TrimSuffix(beginning(i), "-") || !message.ValidName(beginning(i)) {
			t.Errorf("%s is not a bare name", entry)
		}
		if !mayBeSpoofable(beginning(i)) {
			t.Errorf("the screen stops %s", entry)
		}
		if i > 0 && beginning(i-1) >= beginning(i) {
			t.Errorf("%s is not after %s", entry, spoofable[i-1])
		}
		for j := range spoofable {
			if j != i && strings.HasSuffix(spoofable[j], "*") && strings.HasPrefix(beginning(i), beginning(j)) {
				t.Errorf("%s is covered by %s", entry, spoofable[j])
			}
		}
	}
}

func TestSpoofable(t *testing.T) {
	for name, want := range map[string]bool{
		"remote-user": true, "Remote_User": true, "__remote__user.": true, "x-ms-client-principal": true, "x-ms-client-principal-id": true, "cf-access-jwt-assertion": true,
		"-cf-access-x": true, "sm_user": true, "X~Consumer~Groups": true,
		"x-user": true, "X_User": true, "x-auth-email": true, "X-Auth-User": true, "x-auth-username": true, "x-token-subject": true, "x-token-user-email": true, "x-userinfo": true,
		"shib-session-id": true,
		// Clients send these for reasons of their own: a kind of client, and a credential.
		"x-user-agent": false, "x-auth-token": false, "x-access-token": false, "x-token": false,
		"": false, "-": false, "remote-users": false, "remote-addr": false, "x-forwarded-for": false, "x-user-idx": false, "cf-ray": false, "cf-access": false,
		"accept": false, "user-agent": false, "zz": false, "aa": false, "xremote-user": false,
	} {
		if got := Spoofable(name); got != want {
			t.Errorf("%q: %t; want %t", name, got, want)
		}
	}
}

func TestPassedFieldIsPassedInItsUsualSpellingOnly(t *testing.T) {
	p := NewPassed([]string{"Cf-Access-Jwt-Assertion", "X_Remote_User"})
	var kept []string
	for _, name := range []string{"cf-access-jwt-assertion", "cf_access_jwt_assertion", "cf-access-client-id", "x-remote-user", "x_remote_user", "accept"} {
		if !p.Drops(name) {
			kept = append(kept, name)
		}
	}
	if want := []string{"cf-access-jwt-assertion", "x-remote-user", "accept"}; !slices.Equal(kept, want) {
		t.Errorf("kept %q; want %q", kept, want)
	}
}

func TestSpoofableAllocatesNothing(t *testing.T) {
	names := []string{"accept", "cookie", "content-type", "x-request-id", "x-remote-user", "traceparent", "user-agent"}
	p := NewPassed([]string{"x-user-id"})
	if n := testing.AllocsPerRun(100, func() {
		for _, name := range names {
			p.Drops(name)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
