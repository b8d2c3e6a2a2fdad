package auth

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// APIKeyConfig is one entry of `api_keys`, by its name.
type APIKeyConfig struct {
	// Hash is the SHA-256 of the key as sallyport keygen --api-key prints it, such as
	// sha256:9f86... Two hashes let an old and a new secret count at once. With @TIME behind
	// it, such as sha256:9f86...@2026-12-31, a secret ends before the other.
	Hash setting.List[string] `yaml:"hash"`
	// Principal is the caller that the key proves. Routes list it as apikey/NAME; rules
	// and audit records write apikey:NAME. Several keys may share one. Default: the name
	// of the key.
	Principal string `yaml:"principal"`
	// Groups are the caller's groups, for rules.
	Groups setting.List[string] `yaml:"groups"`
	// NotAfter is when the key stops being valid. Default: never.
	NotAfter setting.Time `yaml:"not_after"`
	// Rate bounds the requests of this key alone, besides the limits of routes. Both of its
	// secrets count. Default: no bound.
	Rate APIKeyRate `yaml:"rate"`
	// InFlight is how many requests of this key may be in flight at once. Default: no bound.
	InFlight int `yaml:"in_flight"`
}

// APIKeyRate is the rate of one API key.
type APIKeyRate struct {
	// Limit is the rate, such as 10/s.
	Limit setting.Rate `yaml:"limit"`
	// Burst is how many requests may arrive at once after a quiet time. Default: the number in
	// Limit.
	Burst int `yaml:"burst"`
}

// APIKeyLimits are the limits that a key has besides those of routes.
type APIKeyLimits struct {
	Rate     APIKeyRate
	InFlight int // 0: no limit
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
		if _, _, err := parseHash(text); err != nil {
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
	if c.Rate.Limit.IsZero() && c.Rate.Burst != 0 {
		f.Add(at("rate.limit"), "", "missing", "write a rate such as 10/s, 100/m or 1000/h")
	}
	c.Rate.Limit.CheckBurst(at("rate.burst"), c.Rate.Burst, f)
	if c.InFlight < 0 {
		f.Add(at("in_flight"), strconv.Itoa(c.InFlight), "a negative number", "write one above zero, or remove the line for no bound")
	}
}

// parseHash reads a hash and the end of its secret; zero is none. Its errors do not repeat the
// text, which may be a secret.
func parseHash(text string) (hash [sha256.Size]byte, notAfter time.Time, err error) {
	digits, ok := strings.CutPrefix(text, apikey.HashPrefix)
	digits, end, ends := strings.Cut(digits, "@")
	raw, fault := hex.DecodeString(digits)
	switch {
	case strings.HasPrefix(text, apikey.Prefix):
		return hash, notAfter, errors.New("an API key in the clear; only its hash may stand here, and this key must be replaced")
	case !ok || fault != nil || len(raw) != len(hash) || digits != strings.ToLower(digits):
		return hash, notAfter, errors.New("not sha256: and 64 hexadecimal digits in lower case")
	}
	if ends {
		var at setting.Time
		if err := at.UnmarshalText([]byte(end)); err != nil {
			return hash, notAfter, errors.New("not a time behind the @; write one such as sha256:...@2027-02-01")
		}
		notAfter = at.Time
	}
	copy(hash[:], raw)
	return hash, notAfter, nil
}

// Ends returns when the secrets of the key end, in the order of Hash; zero is never.
func (c *APIKeyConfig) Ends() []time.Time {
	all := make([]time.Time, len(c.Hash))
	for i, text := range c.Hash {
		_, at, _ := parseHash(text)
		all[i] = c.earlier(at)
	}
	return all
}

// earlier returns the end of a secret, which is that of the key if that comes first; zero is never.
func (c *APIKeyConfig) earlier(secret time.Time) time.Time {
	if key := c.NotAfter.Time; secret.IsZero() || !key.IsZero() && key.Before(secret) {
		return key
	}
	return secret
}

// SecretID returns the id of a secret of the key with this name, as records write it. i is an
// index in Hash.
func (c *APIKeyConfig) SecretID(name string, i int) string {
	hash, _, _ := parseHash(c.Hash[i])
	return secretID(name, hash[:])
}

func secretID(name string, hash []byte) string {
	return name + ":" + hex.EncodeToString(hash[:hashShown])
}

// APIKeys are the keys of a configuration. The zero APIKeys has none. It is immutable.
type APIKeys struct {
	byHash map[[sha256.Size]byte]*apiKey
	limits map[string]APIKeyLimits // of keys that have some, by name
	ends   []keyEnd                // of the secrets in the file that end, the earliest first
}

// apiKey is a key with one of its secrets.
type apiKey struct {
	principal identity.Principal // Expires is when the secret ends
	limited   string             // the name of the key, if it has limits of its own
}

// keyEnd is when a secret ends.
type keyEnd struct {
	at   int64 // in seconds since 1970
	name string
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
		if err := t.add(name, &c, false); err != nil {
			errs = append(errs, &APIKeyError{Name: name, Err: err})
		}
	}
	if file != "" {
		errs = append(errs, t.addFile(string(file), owners)...)
		slices.SortStableFunc(t.ends, func(a, b keyEnd) int { return cmp.Compare(a.at, b.at) })
	}
	return t, errors.Join(errs...)
}

// Limits returns the limits of the keys that have some of their own, by their names. The caller
// must not modify them.
func (t *APIKeys) Limits() map[string]APIKeyLimits { return t.limits }

// GroupsOf returns the groups of the keys that prove a principal, by its name without "apikey:".
func (t *APIKeys) GroupsOf(name string) (groups []string) {
	for _, k := range t.byHash {
		if k.principal.Name == name {
			groups = append(groups, k.principal.Groups...)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// FileEnd returns the key of the file whose secret ends next after now, and how many end within
// the given time after it, itself included. ok is false if none ends.
func (t *APIKeys) FileEnd(now time.Time, within time.Duration) (name string, at time.Time, count int, ok bool) {
	first := func(after int64) int {
		i, _ := slices.BinarySearchFunc(t.ends, after, func(e keyEnd, at int64) int { return cmp.Compare(e.at, at+1) })
		return i
	}
	i := first(now.Unix())
	if i == len(t.ends) {
		return "", time.Time{}, 0, false
	}
	next := t.ends[i]
	return next.name, time.Unix(next.at, 0), first(next.at+int64(within/time.Second)) - i, true
}

// add enters a key under each of its hashes.
func (t *APIKeys) add(name string, c *APIKeyConfig, inFile bool) error {
	limits, limited := APIKeyLimits{c.Rate, c.InFlight}, ""
	if limits != (APIKeyLimits{}) {
		if t.limits == nil {
			t.limits = map[string]APIKeyLimits{}
		}
		t.limits[name], limited = limits, name
	}
	for _, text := range c.Hash {
		hash, end, err := parseHash(text)
		if err != nil {
			return err
		}
		if other := t.byHash[hash]; other != nil {
			return fmt.Errorf("has the same hash as a secret of key %s; make a key for each", other.principal.KeyID)
		}
		end = c.earlier(end)
		t.byHash[hash] = &apiKey{qualifiedKey(name, c, hash[:], end), limited}
		if inFile && !end.IsZero() {
			t.ends = append(t.ends, keyEnd{end.Unix(), name})
		}
	}
	return nil
}

// addFile adds the keys of a file. names has the names that are taken.
func (t *APIKeys) addFile(file string, names map[string]bool) (errs []error) {
	eachKeyLine(file, func(line int, name string, c *APIKeyConfig, err error) bool {
		switch {
		case err != nil:
		case names[name]:
			err = fmt.Errorf("key %s stands there twice; put its two hashes in one line", name)
		default:
			names[name] = true
			err = t.add(name, c, true)
		}
		if err != nil {
			errs = append(errs, &APIKeyError{Line: line, Err: err})
		}
		return len(errs) < maxLineErrors
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

// APIKeysOf returns the keys of a file by their names. The error is that of the first bad line.
func APIKeysOf(file string) (all map[string]APIKeyConfig, err error) {
	all = map[string]APIKeyConfig{}
	eachKeyLine(file, func(line int, name string, c *APIKeyConfig, fault error) bool {
		if fault != nil {
			err = &APIKeyError{Line: line, Err: fault}
			return false
		}
		all[name] = *c
		return true
	})
	return all, err
}

// eachKeyLine calls f for each key of a file, or with a fault of its line; line 0 is the whole
// file. It stops if f returns false.
func eachKeyLine(file string, f func(line int, name string, c *APIKeyConfig, err error) bool) {
	eachLine(file, func(line int, text string, err error) bool {
		if err != nil {
			return f(line, "", nil, err)
		}
		name, c, err := parseKeyLine(text)
		return f(line, name, &c, err)
	})
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
		case isOption && option == "rate":
			err = c.Rate.Limit.UnmarshalText([]byte(value))
		case isOption && option == "burst":
			c.Rate.Burst, err = positive(option, value)
		case isOption && option == "in_flight":
			c.InFlight, err = positive(option, value)
		case strings.HasPrefix(word, apikey.Prefix):
			_, _, err = parseHash(word)
		default:
			err = errors.New("want NAME sha256:HASH, and principal=, groups=, not_after=, rate=, burst= or in_flight=; sallyport keygen --api-key NAME prints a line")
		}
		if err != nil {
			return "", c, err
		}
	}
	if strings.HasPrefix(name, apikey.Prefix) && len(name) == apikey.Len {
		_, _, err = parseHash(name)
		return "", c, err
	}
	var f setting.Faults
	c.Check("", name, &f)
	if len(f) > 0 {
		return "", c, errors.New(f[0].Error())
	}
	return name, c, nil
}

// positive reads a number above zero. Its error does not repeat the value, which may be a secret.
func positive(option, value string) (int, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s= wants a number above zero", option)
	}
	return int(n), nil
}

// Principals returns the names of the callers that keys prove, sorted.
func (t *APIKeys) Principals() []string {
	seen := map[string]bool{}
	for _, k := range t.byHash {
		seen[k.principal.Name] = true
	}
	return slices.Sorted(maps.Keys(seen))
}
