package auth

import (
	"os"
	"path/filepath"
	"testing"

	"sallyport/proxy/setting"
)

// A file that does not exist yet is made by a command to paste, which lets nobody else read it.
func TestCuresOfMissingFilesOfALoginAreCommands(t *testing.T) {
	dir := t.TempDir()
	secret, keys := filepath.Join(dir, "login-secret"), filepath.Join(dir, "session-keys")
	c := LoginConfig{Issuer: "corp", ClientID: "pages", ClientSecret: setting.Place(secret).Secret(), Session: SessionConfig{Keys: setting.Place(keys).Secret()}}
	cures := func() map[string]string {
		var f setting.Faults
		c.CheckFiles("logins.corp", &f)
		found := map[string]string{}
		for _, fault := range f {
			found[fault.Path] = fault.Cure
		}
		return found
	}
	got := cures()
	if want := "put the secret of pages there: install -m 600 /dev/stdin " + secret + ", paste it, and press Enter and Ctrl-D"; got["logins.corp.client_secret"] != want {
		t.Errorf("the secret: %v", got)
	}
	if want := "(umask 077; sallyport keygen --session > " + keys + ") makes a key"; got["logins.corp.session.keys"] != want {
		t.Errorf("the keys: %v", got)
	}
	for _, file := range []string{secret, keys} { // which the commands would overwrite
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got = cures()
	if got["logins.corp.client_secret"] != "put the secret of pages there" || got["logins.corp.session.keys"] != "sallyport keygen --session makes a key" {
		t.Errorf("empty files: %v", got)
	}
	for _, file := range []string{secret, keys} { // whose faults say chmod
		if err := os.Chmod(file, 0o622); err != nil {
			t.Fatal(err)
		}
	}
	if got = cures(); len(got) != 2 || got["logins.corp.client_secret"] != "" || got["logins.corp.session.keys"] != "" {
		t.Errorf("files that others may write: %v", got)
	}
}

// Providers leave claims out whose scope nobody asked for: the most frequent reason why a first sign-in
// fails. The record says so, and only then.
func TestRecordNamesTheCureOfAClaimThatDidNotCome(t *testing.T) {
	var c IssuerConfig
	text := "url: https://login.example.com\naudience: models\nprincipal: preferred_username\nrequire: {email_verified: true}\n"
	if _, faults := setting.Decode("gateway.yaml", []byte(text), &c); len(faults) > 0 {
		t.Fatal(faults)
	}
	iss, err := newIssuer("corp", c)
	if err != nil {
		t.Fatal(err)
	}
	li := newLoginIssuer(iss, NewMemory(MemoryOptions{}))
	const cure = "; list its scope under scopes of the login, or set claims: userinfo"
	for claims, want := range map[string]string{
		`{"sub":"1","preferred_username":"alice","email_verified":true}`:  "",
		`{"sub":"1","email_verified":true}`:                               "the claim of the principal is absent or not a string: preferred_username" + cure,
		`{"sub":"1","preferred_username":"alice"}`:                        `email_verified is absent, require wants "true"` + cure,
		`{"sub":"1","preferred_username":"alice","email_verified":false}`: `email_verified is "false", require wants "true"`,
		`{"sub":"1","preferred_username":"","email_verified":true}`:       "the claim of the principal is empty, too long, or has invisible characters: preferred_username",
	} {
		_, err := li.Principal([]byte(claims))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q", claims, got)
		}
	}
}
