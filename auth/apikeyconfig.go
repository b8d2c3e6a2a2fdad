package auth

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// APIKeyConfig is one entry of `api_keys`, by its name.
type APIKeyConfig struct {
	// Hash is the SHA-256 of the key as sallyport keygen --api-key prints it, such as
	// sha256:9f86... Two hashes let an old and a new secret count at once.
	Hash setting.List[string] `yaml:"hash"`
	// Principal is the caller that the key proves. Routes list it as apikey/NAME; rules
	// and audit records write apikey:NAME. Several keys may share one. Default: the name
	// of the key.
	Principal string `yaml:"principal"`
	// Groups are the caller's groups, for rules.
	Groups setting.List[string] `yaml:"groups"`
	// NotAfter is when the key stops being valid. Default: never.
	NotAfter setting.Time `yaml:"not_after"`
}

// hashShown is how many bytes of a hash are in records, to tell the two secrets of a key apart.
const hashShown = 4

// PrincipalOr returns the caller that a key of this name proves.
func (c *APIKeyConfig) PrincipalOr(name string) string {
	if c.Principal != "" {
		return c.Principal
	}
	return name
}

// Check records every fault of the key with this name, whose place in the configuration
// is path. No fault shows what may be a key.
func (c *APIKeyConfig) Check(path, name string, f *setting.Faults) {
	at := func(field string) string { return setting.Join(path, field) }
	switch {
	case strings.HasPrefix(name, apikey.Prefix) && len(name) == apikey.Len:
		f.Add(path, "", "an API key in the clear as a name; this key must be replaced", "run sallyport keygen --api-key NAME")
		return
	case !validPrincipal(name):
		f.Add(path, "", "not a name", "use letters, digits and . _ ~ @ -, up to 64 of them")
	}
	if c.Principal != "" && !validPrincipal(c.Principal) {
		f.Add(at("principal"), c.Principal, "not a name", "use letters, digits and . _ ~ @ -, up to 64 of them")
	}
	switch {
	case len(c.Hash) == 0:
		f.Add(path, "", "the key has no hash", "run sallyport keygen --api-key "+name)
	case len(c.Hash) > 2:
		f.Add(at("hash"), "", fmt.Sprintf("%d secrets of one key", len(c.Hash)), "keep two, the old one and the new one, until all callers have the new one")
	}
	for i, text := range c.Hash {
		if _, err := parseHash(text); err != nil {
			at := at("hash")
			if len(c.Hash) > 1 {
				at = setting.Index(at, i)
			}
			f.Add(at, setting.Redacted, err.Error(), "run sallyport keygen --api-key "+name)
		}
	}
	for i, g := range c.Groups {
		if g == "" || slices.Index(c.Groups, g) < i {
			f.Add(setting.Index(at("groups"), i), g, "empty, or listed twice", "remove it")
		}
	}
}

// parseHash reads a hash. Its errors do not repeat the text, which may be a secret.
func parseHash(text string) (hash [sha256.Size]byte, err error) {
	digits, ok := strings.CutPrefix(text, apikey.HashPrefix)
	raw, fault := hex.DecodeString(digits)
	switch {
	case strings.HasPrefix(text, apikey.Prefix):
		return hash, errors.New("an API key in the clear; only its hash may stand here, and this key must be replaced")
	case !ok || fault != nil || len(raw) != len(hash) || digits != strings.ToLower(digits):
		return hash, errors.New("not sha256: and 64 hexadecimal digits in lower case")
	}
	copy(hash[:], raw)
	return hash, nil
}

// APIKeys are the keys of a configuration. The zero APIKeys has none. It is immutable.
type APIKeys struct {
	byHash map[[sha256.Size]byte]*apiKey
}

// apiKey is a key with one of its secrets.
type apiKey struct {
	principal identity.Principal
	notAfter  time.Time // zero: never
}

// APIKeyError reports a key that cannot be used. It never contains a key or a hash.
type APIKeyError struct {
	Name string // of the key in the configuration; "" for keys of a file
	Line int    // of the file; 0 for the whole file
	Err  error
}

func (e *APIKeyError) Error() string {
	switch {
	case e.Name != "":
		return "API key " + e.Name + ": " + e.Err.Error()
	case e.Line > 0:
		return fmt.Sprintf("API keys, line %d: %v", e.Line, e.Err)
	}
	return "API keys: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *APIKeyError) Unwrap() error { return e.Err }

// maxKeyErrors bounds how many faults of a file are reported.
const maxKeyErrors = 20

// ReadAPIKeys returns the keys of the configuration, which must have passed Check, and
// those of a file; "" is none. It returns one [APIKeyError] for each fault, joined.
//
// A line of the file is a key: its name, its hash or two of them, and then principal=NAME,
// groups=A,B and not_after=TIME in any order. Lines that are empty or begin with # are
// skipped.
func ReadAPIKeys(inline map[string]APIKeyConfig, file setting.Path) (*APIKeys, error) {
	t := &APIKeys{byHash: make(map[[sha256.Size]byte]*apiKey, len(inline))}
	var errs []error
	owners := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(inline)) {
		c := inline[name]
		owners[name] = true
		if err := t.add(name, &c); err != nil {
			errs = append(errs, &APIKeyError{Name: name, Err: err})
		}
	}
	if file != "" {
		errs = append(errs, t.addFile(string(file), owners)...)
	}
	return t, errors.Join(errs...)
}

// add enters a key under each of its hashes.
func (t *APIKeys) add(name string, c *APIKeyConfig) error {
	for _, text := range c.Hash {
		hash, err := parseHash(text)
		if err != nil {
			return err
		}
		if other := t.byHash[hash]; other != nil {
			return fmt.Errorf("has the same hash as a secret of key %s; make a key for each", other.principal.KeyID)
		}
		t.byHash[hash] = &apiKey{qualifiedKey(name, c, hash[:]), c.NotAfter.Time}
	}
	return nil
}

// maxAPIKeyFile is the maximum size of a file of API keys: what a reload compares.
const maxAPIKeyFile = setting.MaxDigested

// addFile adds the keys of a file. names has the names that are taken.
func (t *APIKeys) addFile(file string, names map[string]bool) (errs []error) {
	eachKeyLine(file, func(line int, name string, c *APIKeyConfig, err error) bool {
		switch {
		case err != nil:
		case names[name]:
			err = fmt.Errorf("key %s stands there twice; put its two hashes in one line", name)
		default:
			names[name] = true
			err = t.add(name, c)
		}
		if err != nil {
			errs = append(errs, &APIKeyError{Line: line, Err: err})
		}
		return len(errs) < maxKeyErrors
	})
	return errs
}

// FindAPIKey returns the key of this name in a file of keys.
func FindAPIKey(file, name string) (key APIKeyConfig, found bool, err error) {
	eachKeyLine(file, func(line int, n string, c *APIKeyConfig, fault error) bool {
		switch {
		case fault != nil:
			err = &APIKeyError{Line: line, Err: fault}
		case n == name:
			key, found = *c, true
		}
		return err == nil && !found
	})
	return key, found, err
}

// eachKeyLine calls f for each key of a file, or with a fault of its line; line 0 is the whole
// file. It stops if f returns false.
func eachKeyLine(file string, f func(line int, name string, c *APIKeyConfig, err error) bool) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
	case !info.Mode().IsRegular(): // opening a named pipe would block
		err = fmt.Errorf("%s is not a regular file", file)
	case info.Size() > maxAPIKeyFile:
		err = fmt.Errorf("%s is larger than %d bytes", file, maxAPIKeyFile)
	default:
		err = setting.WrittenByOwner(file, info)
	}
	var opened *os.File
	if err == nil {
		opened, err = os.Open(file)
	}
	if err != nil {
		f(0, "", nil, err)
		return
	}
	defer opened.Close()
	lines := bufio.NewScanner(io.LimitReader(opened, maxAPIKeyFile))
	n := 0
	for lines.Scan() {
		n++
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		name, c, err := parseKeyLine(text)
		if !f(n, name, &c, err) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		f(n+1, "", nil, err)
	}
}

// parseKeyLine reads a line of a file of keys. Its errors repeat no word that may be a key.
func parseKeyLine(line string) (name string, c APIKeyConfig, err error) {
	words := strings.Fields(line)
	name = words[0]
	for _, word := range words[1:] {
		option, value, isOption := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(word, apikey.HashPrefix):
			c.Hash = append(c.Hash, word)
		case isOption && option == "principal":
			c.Principal = value
		case isOption && option == "groups":
			c.Groups = strings.Split(value, ",")
		case isOption && option == "not_after":
			err = c.NotAfter.UnmarshalText([]byte(value))
		case strings.HasPrefix(word, apikey.Prefix):
			_, err = parseHash(word)
		default:
			err = errors.New("want NAME sha256:HASH, and principal=, groups= or not_after=; sallyport keygen --api-key NAME prints a line")
		}
		if err != nil {
			return "", c, err
		}
	}
	if strings.HasPrefix(name, apikey.Prefix) && len(name) == apikey.Len {
		_, err = parseHash(name)
		return "", c, err
	}
	var f setting.Faults
	c.Check("", name, &f)
	if len(f) > 0 {
		return "", c, errors.New(f[0].Error())
	}
	return name, c, nil
}

// Principals returns the names of the callers that keys prove, sorted.
func (t *APIKeys) Principals() []string {
	seen := map[string]bool{}
	for _, k := range t.byHash {
		seen[k.principal.Name] = true
	}
	return slices.Sorted(maps.Keys(seen))
}
