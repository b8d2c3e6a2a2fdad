package auth

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// CheckFiles records why a file of the issuer cannot be used, except for its ca.
func (c *IssuerConfig) CheckFiles(path string, f *setting.Faults) {
	c.checkAccessFiles(path, f)
	if c.JWKSFile == "" {
		return
	}
	if _, err := readKeyFile(string(c.JWKSFile)); err != nil {
		f.Add(setting.Join(path, "jwks_file"), string(c.JWKSFile), err.Error(), setting.CureUnreadable(err, "save there what the issuer serves at its jwks_uri"))
	}
}

// readKeyFile reads a JSON Web Key Set as strictly as one that is fetched.
func readKeyFile(name string) (*keys, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // opening a named pipe would block
		return nil, errors.New("not a regular file")
	}
	if err := setting.WrittenByOwner(name, info); err != nil {
		return nil, err
	}
	opened, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	text, err := io.ReadAll(io.LimitReader(opened, fetch.MaxBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > fetch.MaxBytes:
		return nil, fmt.Errorf("larger than %d bytes", fetch.MaxBytes)
	}
	var set jwkSet
	if json.Unmarshal(text, &set) != nil {
		return nil, errors.New("not a JSON Web Key Set, or a name stands there twice")
	}
	found, err := readKeys(&set, time.Time{})
	if none := (noKeyError)(nil); errors.As(err, &none) {
		err = errors.New("no key in it can be used")
		if len(none) > 0 {
			err = fmt.Errorf("no key in it can be used: %w", none)
		}
	}
	return found, err
}
