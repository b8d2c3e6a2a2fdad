package login

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testCache opens a cache below a folder of the test.
func testCache(t *testing.T) *Cache {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	c, err := OpenCache()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testKey(client string) Key {
	return Key{Issuer: testIssuer, ClientID: client, Scopes: []string{"openid", "models"}}
}

// saved stores a token and returns its file.
func saved(t *testing.T, c *Cache, k Key) string {
	t.Helper()
	if err := c.Save(&Entry{Key: k, AccessToken: "a." + k.ClientID, RefreshToken: "r." + k.ClientID}); err != nil {
		t.Fatal(err)
	}
	name, err := c.file(k, ".json")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTokensAreCachedByKey(t *testing.T) {
	c := testCache(t)
	name := saved(t, c, testKey("terminal"))
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(name)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	k := testKey("terminal")
	k.Scopes = []string{"models", "openid", "models"}
	if e, err := c.Load(k); err != nil || e == nil || e.AccessToken != "a.terminal" {
		t.Errorf("other order of scopes: %+v, %v", e, err)
	}
	for what, change := range map[string]func(*Key){
		"issuer": func(k *Key) { k.Issuer = "https://evil.example" }, "client": func(k *Key) { k.ClientID = "x" },
		"scopes": func(k *Key) { k.Scopes = []string{"openid"} }, "scopes in one": func(k *Key) { k.Scopes = []string{"models openid"} },
		"audiences": func(k *Key) { k.Audiences = []string{"models"} }, "resources": func(k *Key) { k.Resources = []string{"models"} },
		"acr_values": func(k *Key) { k.ACRValues = []string{"mfa"} }, "claims": func(k *Key) { k.Claims = "{}" },
	} {
		k := testKey("terminal")
		change(&k)
		if e, err := c.Load(k); e != nil || err != nil {
			t.Errorf("another %s: %+v, %v", what, e, err)
		}
	}
}

// What others may have read, or put there, is refused. The token of the victim beside still serves.
func TestFilesOfOthersAreRefused(t *testing.T) {
	for what, spoil := range map[string]struct {
		do   func(t *testing.T, c *Cache, name string) error
		want string
	}{
		"readable by the group": {func(_ *testing.T, _ *Cache, name string) error { return os.Chmod(name, 0o640) }, "other users can read or change"},
		"readable by all":       {func(_ *testing.T, _ *Cache, name string) error { return os.Chmod(name, 0o604) }, "other users can read or change"},
		"writable by all":       {func(_ *testing.T, _ *Cache, name string) error { return os.Chmod(name, 0o602) }, "other users can read or change"},
		"a link": {func(_ *testing.T, _ *Cache, name string) error {
			return errors.Join(os.Rename(name, name+".2"), os.Symlink(name+".2", name))
		}, "--logout removes it"},
		"a folder": {func(_ *testing.T, _ *Cache, name string) error {
			return errors.Join(os.Remove(name), os.Mkdir(name, 0o700))
		}, "is not a file of this user"},
		"cut":     {func(_ *testing.T, _ *Cache, name string) error { return os.Truncate(name, 30) }, "holds no cached token"},
		"empty":   {func(_ *testing.T, _ *Cache, name string) error { return os.Truncate(name, 0) }, "holds no cached token"},
		"vast":    {func(_ *testing.T, _ *Cache, name string) error { return os.Truncate(name, 1<<30) }, "holds no cached token"},
		"null":    {func(_ *testing.T, _ *Cache, name string) error { return os.WriteFile(name, []byte("null"), 0o600) }, "holds no cached token"},
		"another": {func(t *testing.T, c *Cache, name string) error { return os.Rename(saved(t, c, testKey("evil")), name) }, "of another issuer, client or scope"},
	} {
		c := testCache(t)
		saved(t, c, testKey("victim"))
		if err := spoil.do(t, c, saved(t, c, testKey("terminal"))); err != nil {
			t.Fatal(err)
		}
		if e, err := c.Load(testKey("terminal")); e != nil || err == nil || !strings.Contains(err.Error(), spoil.want) || strings.Contains(err.Error(), "r.terminal") {
			t.Errorf("%s: %+v, %v", what, e, err)
		}
		if e, err := c.Load(testKey("victim")); err != nil || e == nil || e.AccessToken != "a.victim" {
			t.Errorf("%s: the victim beside: %+v, %v", what, e, err)
		}
		if _, removed, err := c.Forget(testKey("terminal")); !removed || err != nil {
			t.Errorf("%s: forget: %v, %v", what, removed, err)
		}
		if e, err := c.Load(testKey("terminal")); e != nil || err != nil {
			t.Errorf("%s: after forget: %+v, %v", what, e, err)
		}
	}
}

func TestForgottenTokenIsReturnedForItsRevocation(t *testing.T) {
	c := testCache(t)
	if err := os.Chmod(saved(t, c, testKey("terminal")), 0o644); err != nil {
		t.Fatal(err)
	}
	if e, removed, err := c.Forget(testKey("terminal")); err != nil || !removed || e == nil || e.RefreshToken != "r.terminal" {
		t.Errorf("%+v, %v, %v", e, removed, err)
	}
	if e, removed, err := c.Forget(testKey("terminal")); e != nil || removed || err != nil {
		t.Errorf("again: %+v, %v, %v", e, removed, err)
	}
}

func TestFolderThatOthersCanChangeIsRefused(t *testing.T) {
	c := testCache(t)
	for _, mode := range []os.FileMode{0o777, 0o720, 0o702} {
		if err := os.Chmod(c.dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenCache(); err == nil || !strings.Contains(err.Error(), "other users can put tokens into") {
			t.Errorf("%04o: %v", mode, err)
		}
	}
	if err := errors.Join(os.Remove(c.dir), os.Symlink(t.TempDir(), c.dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(); err == nil || !strings.Contains(err.Error(), "not a folder of this user") {
		t.Errorf("a link: %v", err)
	}
}

func TestFreshTokenLastsForAWhile(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		life, age time.Duration
		want      bool
	}{
		{time.Hour, 0, true}, {time.Hour, 59 * time.Minute, false}, {time.Hour, 58 * time.Minute, true},
		{time.Minute, 30 * time.Second, true}, {time.Minute, 41 * time.Second, false}, {time.Minute, time.Hour, false}, {-time.Second, 0, false},
	} {
		e := &Entry{ObtainedAt: now, ExpiresAt: now.Add(c.life)}
		if got := e.Fresh(now.Add(c.age)); got != c.want {
			t.Errorf("life %v, age %v: %v", c.life, c.age, got)
		}
	}
	if e := (*Entry)(nil); e.Fresh(now) {
		t.Error("no token is fresh")
	}
	if e := (&Entry{ObtainedAt: now}); !e.Fresh(now.Add(time.Hour)) {
		t.Error("a token without an end is not fresh")
	}
}

// Issuers withdraw a refresh token that two processes use, so the second waits.
func TestSecondLoginWaitsForTheFirst(t *testing.T) {
	c := testCache(t)
	unlock, err := c.Lock(t.Context(), testKey("terminal"), func() { t.Error("the first waits") })
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Lock(t.Context(), testKey("another"), func() { t.Error("another key waits") })
	if err != nil {
		t.Fatal(err)
	}
	other()
	waits, locked := make(chan bool, 1), make(chan error, 1)
	go func() {
		unlock, err := c.Lock(t.Context(), testKey("terminal"), func() { waits <- true })
		if err == nil {
			unlock()
		}
		locked <- err
	}()
	<-waits
	select {
	case <-locked:
		t.Error("two hold the lock")
	default:
	}
	unlock()
	if err := <-locked; err != nil {
		t.Error(err)
	}
	unlock, err = c.Lock(t.Context(), testKey("terminal"), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Lock(ctx, testKey("terminal"), func() {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
