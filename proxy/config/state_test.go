package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStateLiesWhereTheSystemKeepsIt(t *testing.T) {
	folder := t.TempDir()
	system, given, beside := filepath.Join(folder, "system"), filepath.Join(folder, "given"), filepath.Join(folder, "etc")
	for _, dir := range []string{system, beside} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	old := filepath.Join(beside, "old")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fresh, nowhere := filepath.Join(beside, "new"), filepath.Join(folder, "nowhere")
	for _, c := range []struct{ name, env, system, beside, want string }{
		{"systemd's folder", given, system, fresh, given + "/new"},
		{"the first of several", given + ":/var/lib/other", system, fresh, given + "/new"},
		{"before what lies beside the file", given, system, old, given + "/old"},
		{"the system's folder", "", system, fresh, system + "/new"},
		{"what lies beside the file already stays", "", system, old, old},
		{"no folder of the system", "", nowhere, fresh, fresh},
		{"a file in its place", "", old, fresh, fresh},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("STATE_DIRECTORY", c.env)
			if got := statePlace(c.beside, c.system); got != c.want {
				t.Errorf("got %s; want %s", got, c.want)
			}
		})
	}
}

func TestStatePlacesListOnlyUsedState(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/private/sallyport")
	for text, want := range map[string][]StatePlace{
		"tls: {local: {}}": {{"tls.local.dir", "the local certificate authority", "/var/lib/private/sallyport/sallyport-ca"}},
		"tls: {acme: {email: a@example.com}}\nsigning_keys: {a: {principal: acme, secret: {env: A}}}": {
			{"tls.acme.storage", "certificates by ACME and their keys", "/var/lib/private/sallyport/sallyport-acme"},
			{"integrity.state", "nonces of signed requests", "/var/lib/private/sallyport/sallyport-nonces"},
		},
		"tls: {acme: {email: a@example.com, storage: /srv/acme}}\nsigning_keys: {a: {principal: acme, secret: {env: A}}}\nintegrity: {state: off}": {
			{"tls.acme.storage", "certificates by ACME and their keys", "/srv/acme"},
		},
	} {
		callers := "anonymous"
		if len(text) > 40 {
			callers = "key"
		}
		c, err := Parse("gateway.yaml", []byte(text+"\nroutes: [{host: a.example.com, upstream: 'http://a:1', callers: "+callers+", rules: [{allow: '*'}]}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.StatePlaces()); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}
