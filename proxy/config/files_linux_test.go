package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/proxy/setting"
	"sallyport/proxy/setting/settingtest"
)

// writable is a configuration in which each line after the first makes the gateway write a file.
const writable = `
issuers: {corp: {url: https://login.example.com, audience: models}}
routes: [{host: a.example.com, upstream: 'http://a:1', callers: [issuer/corp, key], rules: [{allow: "*"}]}]
listen: {https: "127.0.0.1:8443", control: DIR/control.sock}
tls: {TLS}
signing_keys: {acme-1: {principal: acme, secret: {file: acme.secret}}}
integrity: {state: DIR/nonces}
audit: {file: DIR/audit.log}
`

// writeWritable writes the configuration. All files that the gateway writes are in a folder of the
// given mode. It returns the names of the configuration and of the folder.
func writeWritable(t *testing.T, tls string, mode os.FileMode) (name, dir string) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "var")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(top, "gateway.yaml")
	text := strings.NewReplacer("DIR", dir, "TLS", strings.ReplaceAll(tls, "DIR", dir)).Replace(writable)
	for file, content := range map[string]string{
		name: text, filepath.Join(top, "acme.secret"): "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, own := range []string{filepath.Dir(top), top} {
		if err := os.Chmod(own, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return name, dir
}

func TestCheckFindsWhatServeCouldNotWrite(t *testing.T) {
	for tls, path := range map[string]string{"local: {dir: DIR/ca}": "tls.local.dir", "acme: {email: a@example.com, storage: DIR/acme}": "tls.acme.storage"} {
		name, _ := writeWritable(t, tls, 0o555)
		c, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		settingtest.AsNobody(t, func() {
			err := c.CheckFiles()
			for _, want := range []string{path, "integrity.state", "audit.file", "listen.control"} {
				if err == nil || !strings.Contains(err.Error(), name+":") || !strings.Contains(err.Error(), ": "+want+": ") {
					t.Errorf("%s is no fault: %v", want, err)
				}
			}
			if want := "user " + setting.Myself() + " may not write in "; err != nil && strings.Count(err.Error(), want) != 4 {
				t.Errorf("got\n%v\nwant four times %q", err, want)
			}
		})
		name, _ = writeWritable(t, tls, 0o777)
		if c, err = Load(name); err != nil {
			t.Fatal(err)
		}
		settingtest.AsNobody(t, func() {
			if err := c.CheckFiles(); err != nil {
				t.Errorf("in a folder that can be written: %v", err)
			}
		})
	}
}

func TestCheckFindsFilesThatServeRefuses(t *testing.T) {
	name, dir := writeWritable(t, "local: {dir: DIR/ca}", 0o755)
	for file, content := range map[string]string{"nonces": "listen: :443\n", "control.sock": "", "ca": ""} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "audit.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(name), "acme.secret"), 0o664); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	err = c.CheckFiles()
	for _, want := range []string{
		"integrity.state: ", "is not a state file; ", "listen.control: ", "the file exists and is not a socket; remove it", "tls.local.dir: ",
		"audit.file: ", "is a folder; name a file in it", "signing_keys.acme-1: ", "chmod go-w ",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the faults lack %q:\n%v", want, err)
		}
	}
}

func TestCheckSaysWhoMustReadASecret(t *testing.T) {
	name, _ := writeWritable(t, "local: {dir: DIR/ca}", 0o777)
	if err := os.Chmod(filepath.Join(filepath.Dir(name), "acme.secret"), 0); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	settingtest.AsNobody(t, func() {
		if err := c.CheckFiles(); err == nil || !strings.HasSuffix(err.Error(), "permission denied; let user "+setting.Myself()+" read it") {
			t.Errorf("got %v", err)
		}
	})
	if err := os.Remove(filepath.Join(filepath.Dir(name), "acme.secret")); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), "no such file or directory; correct the path or the content; sallyport keygen makes a new key") {
		t.Errorf("got %v", err)
	}
}

// An empty file says that no nonce was used before, so nobody else may have made it.
func TestCheckFindsNoncesThatOthersCouldHaveWritten(t *testing.T) {
	for mode, refused := range map[os.FileMode]bool{0o755: false, 0o777: true, 0o777 | os.ModeSticky: true, 0o775: true} {
		name, dir := writeWritable(t, "local: {dir: DIR/ca}", mode)
		c, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckFiles(); err != nil {
			t.Errorf("%v: without a file: %v", mode, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "nonces"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		err = c.CheckFiles()
		if want := "others may write in its folder, so they could have written it; chmod go-w " + dir; refused != (err != nil) || refused && !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v", mode, err)
		}
	}
}

// A gateway that once ran as root leaves a lock that another user cannot take.
func TestCheckFindsALockOfAnotherUser(t *testing.T) {
	name, dir := writeWritable(t, "local: {dir: DIR/ca}", 0o777)
	lock := filepath.Join(dir, "nonces.lock")
	if err := os.WriteFile(lock, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	settingtest.AsNobody(t, func() {
		want := "its lock, " + lock + ": user " + setting.Myself() + " may not write to it: permission denied; "
		if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v", err)
		}
	})
}
