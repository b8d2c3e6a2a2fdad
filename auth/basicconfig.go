package auth

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// BasicConfig is one entry of `basic`: passwords that still count while their users move to tokens
// or keys.
type BasicConfig struct {
	// HTPasswd is where the passwords are.
	HTPasswd HTPasswdConfig `yaml:"htpasswd"`
	// Until is when all of these passwords stop being valid. Mandatory.
	Until setting.Time `yaml:"until"`
}

// HTPasswdConfig names a file of passwords.
type HTPasswdConfig struct {
	// File is a file of htpasswd -B: a user and the bcrypt hash of the password in each line. It
	// is read again when it changes.
	File setting.Path `yaml:"file"`
}

// Check records every fault of the entry, whose place in the configuration is path.
func (c *BasicConfig) Check(path string, f *setting.Faults) {
	if c.HTPasswd.File == "" {
		f.Add(setting.Join(path, "htpasswd.file"), "", "missing", "name the file of passwords; htpasswd -B makes one")
	}
	if c.Until.IsZero() {
		f.Add(setting.Join(path, "until"), "", "missing, and passwords are only for the time of a migration", "write the day on which they end, such as 2027-03-31")
	}
}

// Passwords are the users of an entry of `basic`. They are immutable, except for what was verified.
type Passwords struct {
	source string // such as basic/legacy
	until  time.Time
	users  map[string]*user
	order  []*user // as in the file
}

// user is a line of a file of passwords.
type user struct {
	principal identity.Principal
	hash      []byte // as bcrypt writes it
	// verified is a keyed hash of the password, once that has been verified; nil before. A user
	// has exactly one password, so this is all there is to remember, and it goes with the line.
	verified atomic.Pointer[passwordMark]
}

const (
	maxUser     = 255 // bytes of a user's name
	maxPassword = 72  // bytes that bcrypt reads
	// minCost and maxCost bound the work of a check, which doubles with each. The highest takes
	// about a third of a second of a processor.
	minCost = 4
	maxCost = 12
)

var bcryptForm = regexp.MustCompile(`^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

// ReadPasswords reads the file of an entry with this name, which must have passed Check. It returns
// one [LineError] for each fault, joined.
func ReadPasswords(name string, c *BasicConfig) (*Passwords, error) {
	p := &Passwords{source: "basic/" + name, until: c.Until.Time, users: map[string]*user{}}
	var errs []error
	eachLine(string(c.HTPasswd.File), func(line int, text string, err error) bool {
		if err == nil {
			err = p.add(text)
		}
		if err != nil {
			errs = append(errs, &LineError{File: string(c.HTPasswd.File), Line: line, Err: err})
		}
		return len(errs) < maxLineErrors
	})
	return p, errors.Join(errs...)
}

// add adds a line. Its errors do not repeat the hash, which may be a password.
func (p *Passwords) add(line string) error {
	name, hash, ok := strings.Cut(line, ":")
	switch {
	case !ok:
		return errors.New("want USER:HASH, as htpasswd -B writes it")
	case !validUser(name):
		return fmt.Errorf("the user's name is empty, longer than %d bytes, not UTF-8 or has invisible characters", maxUser)
	case p.users[name] != nil:
		return fmt.Errorf("user %s stands there twice; keep one line", name)
	}
	hash, _, _ = strings.Cut(hash, ":") // nginx allows a comment
	form := bcryptForm.FindStringSubmatch(hash)
	if form == nil {
		return fmt.Errorf("the password of %s is stored as %s, and only bcrypt is taken; run htpasswd -B FILE %s", name, schemeOf(hash), name)
	}
	if cost, _ := strconv.Atoi(form[1]); cost < minCost || cost > maxCost {
		return fmt.Errorf("the hash of %s has cost %d, and %d to %d are taken: each more doubles the work that a guess costs the gateway; run htpasswd -B -C 10 FILE %s", name, cost, minCost, maxCost, name)
	}
	u := &user{hash: []byte(hash), principal: identity.Principal{Source: p.source, Name: name, Expires: p.until}}
	u.principal.Qualify()
	p.users[name] = u
	p.order = append(p.order, u)
	return nil
}

// validUser reports whether a name can be that of a caller.
func validUser(name string) bool {
	return name != "" && len(name) <= maxUser && utf8.ValidString(name) && strings.TrimSpace(name) == name && strings.IndexFunc(name, invisible) < 0
}

// schemeOf names the scheme of a hash.
func schemeOf(hash string) string {
	for _, s := range [...]struct{ prefix, name string }{
		{"$apr1$", "MD5 ($apr1$)"}, {"$1$", "MD5 ($1$)"}, {"$5$", "SHA-256 ($5$)"}, {"$6$", "SHA-512 ($6$)"}, {"{SHA}", "SHA-1 ({SHA})"},
		{"{SSHA}", "SHA-1 ({SSHA})"}, {"{PLAIN}", "plain text ({PLAIN})"}, {"$argon2", "Argon2"}, {"$2", "bcrypt that is cut off, or of an unknown kind"},
	} {
		if strings.HasPrefix(hash, s.prefix) {
			return s.name
		}
	}
	return "crypt or plain text"
}

// adopt takes over what an earlier configuration has verified of users whose hash is the same.
func (p *Passwords) adopt(earlier *Passwords) {
	if earlier == nil {
		return
	}
	for name, u := range p.users {
		if old := earlier.users[name]; old != nil && slices.Equal(old.hash, u.hash) {
			u.verified.Store(old.verified.Load())
		}
	}
}

// ReadAllPasswords reads the files of all entries. The error is that of the first faulty one.
func ReadAllPasswords(all map[string]BasicConfig) (map[string]*Passwords, error) {
	read := make(map[string]*Passwords, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		p, err := ReadPasswords(name, &c)
		if err != nil {
			return nil, fmt.Errorf("basic.%s: %w", name, err)
		}
		read[name] = p
	}
	return read, nil
}
