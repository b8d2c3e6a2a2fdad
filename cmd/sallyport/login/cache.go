package login

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	maxEntry = 1 << 20 // bytes of a file
	lockPoll = 100 * time.Millisecond
	// A token is refreshed this long before its end, or in the last third of a short life.
	early = time.Minute
)

// Key tells tokens of the cache apart.
type Key struct {
	Issuer    string   `json:"issuer"`
	ClientID  string   `json:"client_id"`
	Scopes    []string `json:"scopes"`
	Audiences []string `json:"audiences"`
	Resources []string `json:"resources"`
	ACRValues []string `json:"acr_values,omitempty"` // the preferred one first
	Claims    string   `json:"claims,omitempty"`
}

// name is the file's, without its extension. The order of scopes does not count.
func (k Key) name() (string, error) {
	for _, list := range []*[]string{&k.Scopes, &k.Audiences, &k.Resources} {
		*list = slices.Compact(slices.Sorted(slices.Values(*list)))
	}
	text, err := json.Marshal(k)
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:16]), err
}

// Entry is a cached token.
type Entry struct {
	Key          Key       `json:"key"`
	AccessToken  string    `json:"access_token"`
	TokenType    string    `json:"token_type"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	Scope        string    `json:"scope,omitempty"`
	ObtainedAt   time.Time `json:"obtained_at"`
	// AuthenticatedAt is when the person proved themselves to the issuer, which no refresh changes.
	AuthenticatedAt time.Time `json:"authenticated_at,omitzero"`
	ExpiresAt       time.Time `json:"expires_at,omitzero"` // zero: the issuer has named no end
}

// Fresh reports whether the access token will last for a while. A nil entry is not fresh.
func (e *Entry) Fresh(now time.Time) bool {
	switch {
	case e == nil:
		return false
	case e.ExpiresAt.IsZero():
		return true
	}
	return now.Before(e.ExpiresAt.Add(-min(early, e.ExpiresAt.Sub(e.ObtainedAt)/3)))
}

// Cache is a folder with tokens of one user, a file each. No other user may read them.
type Cache struct{ dir string }

// OpenCache returns the cache in the user's folder for caches, which it makes if need be.
func OpenCache() (*Cache, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("the folder for cached tokens: %w", err)
	}
	c := &Cache{dir: filepath.Join(base, "sallyport", "tokens")}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the folder for cached tokens: %w", err)
	}
	info, err := os.Lstat(c.dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the folder for cached tokens: %w", err)
	case !info.IsDir() || foreignOwner(info):
		return nil, fmt.Errorf("%s is not a folder of this user: remove it, and it is made anew", c.dir)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("other users can put tokens into %s: remove it, and it is made anew", c.dir)
	}
	return c, nil
}

// Load returns the token of a key, nil if there is none. It refuses files that others can read.
func (c *Cache) Load(k Key) (*Entry, error) {
	e, exposed, err := c.read(k)
	if err == nil && exposed != "" {
		return nil, fmt.Errorf("other users can read or change the cached token %s; somebody may have it: end it with --logout, then log in again", exposed)
	}
	return e, err
}

// Forget removes the token of a key and returns it, nil if there was none that can be read.
func (c *Cache) Forget(k Key) (e *Entry, removed bool, err error) {
	name, err := c.file(k, ".json")
	if err != nil {
		return nil, false, err
	}
	e, _, _ = c.read(k)
	err = os.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return e, err == nil, err
}

// read returns the token of a key, and its file's name if the file's mode lets others have it.
func (c *Cache) read(k Key) (e *Entry, exposed string, err error) {
	name, err := c.file(k, ".json")
	if err != nil {
		return nil, "", err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("reading the cached token: %w; --logout removes it", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("reading the cached token: %w", err)
	case !info.Mode().IsRegular() || foreignOwner(info):
		return nil, "", fmt.Errorf("the cached token %s is not a file of this user; --logout removes it", name)
	case info.Mode().Perm()&0o077 != 0:
		exposed = name
	}
	text, err := io.ReadAll(io.LimitReader(f, maxEntry+1))
	if err != nil {
		return nil, "", fmt.Errorf("reading the cached token: %w", err)
	}
	e = &Entry{}
	if len(text) > maxEntry || json.Unmarshal(text, e) != nil || e.AccessToken == "" {
		return nil, "", fmt.Errorf("%s holds no cached token; --logout removes it", name)
	}
	if of, err := c.file(e.Key, ".json"); err != nil || of != name {
		return nil, "", fmt.Errorf("%s holds a token of another issuer, client or scope; --logout removes it", name)
	}
	return e, exposed, nil
}

// Save stores a token in a file that only this user can read.
func (c *Cache) Save(e *Entry) error {
	name, err := c.file(e.Key, ".json")
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(e, "", " ")
	if err != nil {
		return fmt.Errorf("caching the token: %w", err)
	}
	f, err := os.CreateTemp(c.dir, ".new-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("caching the token: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("caching the token: %w", err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("caching the token: %w", err)
	}
	return nil
}

// Lock waits until no other process logs in with the key: issuers withdraw a refresh token that is
// used twice. It calls waiting if it has to wait. The system releases the lock if the process dies.
func (c *Cache) Lock(ctx context.Context, k Key, waiting func()) (unlock func(), err error) {
	name, err := c.file(k, ".lock")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the cached token: %w", err)
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", name, err), f.Close())
		}
		if !told {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(lockPoll):
		}
	}
}

func (c *Cache) file(k Key, extension string) (string, error) {
	name, err := k.name()
	if err != nil {
		return "", fmt.Errorf("naming the cached token: %w", err)
	}
	return filepath.Join(c.dir, name+extension), nil
}

// foreignOwner reports whether a file belongs to another user.
func foreignOwner(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(stat.Uid) != os.Geteuid()
}
