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
}
