package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/proxy"
)

const revokedRoutes = `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, apikey], rules: [{allow: "*"}]}
`

// TestRevocationCountsAtOnce revokes callers while they have cached tokens and streams. Others go on.
func TestRevocationCountsAtOnce(t *testing.T) {
	key, victim := apikey.New(), apikey.New()
	h := build(t, plan{routes: revokedRoutes, handler: ticking, files: map[string]string{"revoked.txt": "# none yet\n"},
		more: unwatched + fmt.Sprintf("revoked: revoked.txt\napi_keys: {bad: {hash: '%s'}, good: {hash: '%s'}}\n", apikey.HashText(key), apikey.HashText(victim))})
	tokenOf := func(sub, jti string) string {
		claims := h.issuer.Claims(sub, "models.predict")
		claims["jti"] = jti
		token, err := h.issuer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	cut := map[string]string{"apikey:bad": key, "issuer/corp:alice": tokenOf("alice", "a-1"), "issuer/corp:bob": tokenOf("bob", "b-1")}
	kept := map[string]string{"apikey:good": victim, "issuer/corp:carol": tokenOf("carol", "c-1")}
	streams := map[string]io.Reader{}
	for _, all := range []map[string]string{cut, kept} {
		for who, credential := range all {
			streams[who] = h.stream(h.client(true), "/", credential)
		}
	}
	file := filepath.Join(filepath.Dir(h.file), "revoked.txt")
	for _, line := range []string{"apikey bad", "jti issuer/corp a-1", "principal issuer/corp:bob before 2099-01-01", "principal issuer/corp:carol before 2020-01-01"} {
		r, err := proxy.ParseRevocation(line)
		if err != nil {
			t.Fatal(err)
		}
		if added, err := proxy.Revoke(file, r); err != nil || !added {
			t.Fatal(added, err)
		}
	}
	h.reload("changed")
	for who, credential := range cut {
		if _, err := io.Copy(io.Discard, streams[who]); err == nil {
			t.Errorf("the stream of %s ended cleanly; want it cut", who)
		}
		if record := h.recordOf(who); record["reason"] != "withdrawn_in_stream" || !strings.Contains(fmt.Sprint(record["cause"]), "revoked") {
			t.Errorf("record %v", record)
		}
		r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + credential})
		if r.StatusCode != 401 || r.reason() != "revoked" || !strings.Contains(r.Header.Get("Www-Authenticate"), `error="invalid_token"`) {
			t.Errorf("%s: %d %s %v", who, r.StatusCode, r.body, r.Header)
		}
	}
	for who := range kept {
		buf := make([]byte, 64)
		for range 10 {
			if _, err := streams[who].Read(buf); err != nil {
				t.Fatalf("the stream of %s: %v", who, err)
			}
		}
	}
	if n := h.model.hits.Load(); n != 5 {
		t.Errorf("the upstream saw %d requests, want those of 5 streams", n)
	}
	// A broken file keeps the last good one, and the report names the line.
	if err := os.WriteFile(file, []byte("everybody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.reload("refused"); len(r.Faults) != 1 || !strings.Contains(r.Faults.Error(), "revoked.txt:1") {
		t.Errorf("faults %v", r.Faults)
	}
	if r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + key}); r.StatusCode != 401 {
		t.Errorf("after a broken file: %d", r.StatusCode)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	h.reload("refused")
	if r := h.do("GET", "/", "", map[string]string{"Authorization": "Bearer " + key}); r.StatusCode != 401 {
		t.Errorf("without the file: %d", r.StatusCode)
	}
}

// TestRevocationDoesNotWaitForOtherFaults: the rest of the configuration is refused. The revoked
// caller's stream ends all the same, and comes back only with the file of before.
func TestRevocationDoesNotWaitForOtherFaults(t *testing.T) {
	key, victim := apikey.New(), apikey.New()
	h := build(t, plan{routes: revokedRoutes, handler: ticking, files: map[string]string{"revoked.txt": "", "keys": ""},
		more: unwatched + fmt.Sprintf("revoked: revoked.txt\napi_key_file: keys\napi_keys: {bad: {hash: '%s'}, good: {hash: '%s'}}\n", apikey.HashText(key), apikey.HashText(victim))})
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(filepath.Dir(h.file), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bad, good := h.stream(h.client(true), "/", key), h.stream(h.client(true), "/", victim)
	write("keys", "broken\n")
	write("revoked.txt", "apikey bad\n")
	if r := h.reload("refused"); !strings.Contains(r.Summary, "; revocations count all the same") || len(r.Faults) == 0 {
		t.Errorf("report %+v", r)
	}
	isCut(t, "bad", bad)
	goesOn(t, "good", good)
	ask := func(want int) {
		t.Helper()
		if r := h.do("HEAD", "/", "", map[string]string{"Authorization": "Bearer " + key}); r.StatusCode != want {
			t.Errorf("status %d, want %d", r.StatusCode, want)
		}
	}
	ask(401)
	write("revoked.txt", "what is this\n")
	h.reload("refused")
	ask(401)
	write("revoked.txt", "")
	write("keys", "")
	h.reload("unchanged")
	ask(200)
}

// TestRevokersDoNotLoseLines adds from many at once, beside one that prunes.
func TestRevokersDoNotLoseLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "revoked.txt")
	if err := os.WriteFile(file, []byte("# kept\nkey ended until 2020-01-01\nkey open"), 0o640); err != nil { // no end of the line
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			r, err := proxy.ParseRevocation(fmt.Sprintf("jti issuer/corp t-%d until 2099-01-01", i))
			if err == nil {
				_, err = proxy.Revoke(file, r)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	removed, link := 0, filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	all.Go(func() {
		n, err := proxy.PruneRevocations(link, time.Now())
		if removed = n; err != nil {
			t.Error(err)
		}
	})
	all.Wait()
	listed, err := proxy.Revocations(file)
	if err != nil || len(listed) != 21 || removed != 1 {
		t.Errorf("%d lines, %d removed, %v; want 21 and 1", len(listed), removed, err)
	}
	text, _ := os.ReadFile(file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 || !strings.HasPrefix(string(text), "# kept\nkey open\n") {
		t.Errorf("%v, %s", info.Mode(), text)
	}
	if added, err := proxy.Revoke(file, listed[5]); added || err != nil {
		t.Errorf("the same line again: %t, %v", added, err)
	}
	if err := os.WriteFile(file, []byte("what is this\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if added, err := proxy.Revoke(file, listed[5]); added || err == nil {
		t.Error("added to a file that no gateway reads")
	}
}

// TestPruneFollowsALink: the file that the link names loses the line, and the link stays.
func TestPruneFollowsALink(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "shared.txt"), filepath.Join(t.TempDir(), "revoked.txt")
	if err := errors.Join(os.WriteFile(file, []byte("key ended until 2020-01-01\nkey open\n"), 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if n, err := proxy.PruneRevocations(link, time.Now()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	text, err := os.ReadFile(file)
	if to, fault := os.Readlink(link); to != file || fault != nil || err != nil || string(text) != "key open\n" {
		t.Errorf("the link is to %q, %v; the file has %q, %v", to, fault, text, err)
	}
}

// refusedRevoked are requests with a credential that is revoked.
func refusedRevoked(t *testing.T) *refusals {
	key := apikey.New()
	r := &refusals{house: build(t, plan{routes: revokedRoutes, more: fmt.Sprintf("revoked: revoked.txt\napi_keys: {bad: {hash: '%s'}}\n", apikey.HashText(key)),
		files: map[string]string{"revoked.txt": "apikey bad\njti issuer/corp gone\nprincipal issuer/corp:bob before 2099-01-01\n"}})}
	ask := func(changes map[string]any) string {
		return r.ask("GET / HTTP/1.1", "Authorization: Bearer "+r.bearer(changes))
	}
	r.expect("revoked", 401, `the key "bad:`+apikey.HashText(key)[7:15]+`" of apikey:bad is revoked (line 1 of revoked)`, r.ask("GET / HTTP/1.1", "X-Api-Key: "+r.secret(key)))
	r.expect("revoked", 401, `the credential of issuer/corp:alice with the id "gone" is revoked (line 2 of revoked)`, ask(map[string]any{"jti": "gone"}))
	r.expect("revoked", 401, "issuer/corp:bob is revoked for what was issued before 2099-01-01T00:00:00Z, and this was issued at … (line 3 of revoked)", ask(map[string]any{"sub": "bob"}))
	r.expect("revoked", 401, "issuer/corp:bob is revoked for what was issued before 2099-01-01T00:00:00Z, and this does not say when it was issued (line 3 of revoked)", ask(map[string]any{"sub": "bob", "iat": nil}))
	return r
}
