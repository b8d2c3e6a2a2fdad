package login

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names of cookies. Browsers take a cookie whose name begins with __Host- from the host itself only,
// over TLS and for the path /, so that no other host of the site can place one. The session of all hosts
// of a domain has the domain in its name, since browsers send a host those of its parent domains too.
const (
	hostPrefix   = "__Host-"
	securePrefix = "__Secure-" // browsers take it over TLS only
	sessionName  = "sallyport"
	attemptName  = hostPrefix + "sallyport-login."

	// MaxParts is the maximum number of cookies of one session.
	MaxParts = 4
	// partSize is the longest value of one cookie. Browsers drop cookies whose name and value exceed
	// 4096 bytes.
	partSize = 3800

	// maxReadings is how many sessions are looked for among cookies of the same names.
	maxReadings = 16
)

var (
	errTwice = errors.New("two cookies have the name of the session's, so somebody else may have set one")
	errPart  = errors.New("a part of it is missing")
	errForm  = errors.New("it has not the form of a session")
)

// Cookie is the session in the Cookie field of a request, not opened. Its parts lie in the field.
type Cookie struct {
	parts [MaxParts]string
	n     int
}

// Parts returns the parts of the value in order.
func (c *Cookie) Parts() []string { return c.parts[:c.n] }

// Matches reports whether the joined parts are the text. Its time depends on the lengths only if same
// compares so.
func (c *Cookie) Matches(text string, same func(a, b string) bool) bool {
	for _, part := range c.Parts() {
		if len(text) < len(part) || !same(text[:len(part)], part) {
			return false
		}
		text = text[len(part):]
	}
	return text == ""
}

// Text returns the joined parts.
func (c *Cookie) Text() string { return strings.Join(c.Parts(), "") }

// pairs calls f with each cookie of a Cookie field, until f returns false. from and to are where the
// pair stands in the field.
func pairs(field string, f func(name, value string, from, to int) bool) {
	for at := 0; at < len(field); {
		end := strings.IndexByte(field[at:], ';')
		if end < 0 {
			end = len(field)
		} else {
			end += at
		}
		name, value, _ := strings.Cut(field[at:end], "=")
		if !f(trim(name), trim(value), at, end) {
			return
		}
		at = end + 1
	}
}

// trim removes blanks at both ends. [strings.Trim] first makes a table of what to remove, for each cookie
// of each request.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// ReadCookie reads the session of a login from the Cookie field of a request. found is false if there
// is none. It does not allocate unless it refuses.
func (l *Login) ReadCookie(field string) (c Cookie, found bool, err error) {
	var seen [MaxParts]bool
	twice := false
	pairs(field, func(name, value string, _, _ int) bool {
		rest, ours := strings.CutPrefix(name, l.cookie)
		if i := partIndex(rest); ours && i >= 0 {
			twice = twice || seen[i]
			seen[i], c.parts[i] = true, value
		}
		return true
	})
	if twice {
		return Cookie{}, true, refuse(BadSession, errTwice)
	}
	if !seen[0] {
		return Cookie{}, false, nil
	}
	if c.n = countOf(c.parts[0]); c.n == 0 {
		return Cookie{}, true, refuse(BadSession, errForm)
	}
	for i := range c.n {
		if !seen[i] {
			return Cookie{}, true, refuse(BadSession, errPart)
		}
		if len(c.parts[i]) > partSize+2 {
			return Cookie{}, true, refuse(BadSession, errForm)
		}
	}
	return c, true, nil
}

// countOf returns the number of parts that the first part of a session names; 0 if it has another form.
func countOf(first string) int {
	if len(first) < 2 || first[0] < '1' || first[0] > '0'+MaxParts || first[1] != '.' {
		return 0
	}
	return int(first[0] - '0')
}

// Readings returns the sessions that a Cookie field may contain in which several cookies have one name, so
// that [Login.ReadCookie] refuses it. Each host of a domain can set cookies for it, and the person's own
// may be among them. It is nil for sessions of one host, whose cookies no other host can set, and if there
// are too many to try.
func (l *Login) Readings(field string) (all []Cookie) {
	if l.domain == "" {
		return nil
	}
	var values [MaxParts][]string
	pairs(field, func(name, value string, _, _ int) bool {
		rest, ours := strings.CutPrefix(name, l.cookie)
		if i := partIndex(rest); ours && i >= 0 && len(values[i]) <= maxReadings && !slices.Contains(values[i], value) {
			values[i] = append(values[i], value)
		}
		return true
	})
	for _, first := range values[0] {
		some := []Cookie{{parts: [MaxParts]string{first}, n: countOf(first)}}
		for i := 1; i < some[0].n; i++ {
			var longer []Cookie
			for _, c := range some {
				for _, c.parts[i] = range values[i] {
					longer = append(longer, c)
				}
			}
			if some = longer; len(some) == 0 || len(some) > maxReadings {
				break
			}
		}
		if all = append(all, some...); len(all) > maxReadings {
			return nil
		}
	}
	if all = slices.DeleteFunc(all, func(c Cookie) bool { return c.n == 0 }); len(all) == 0 {
		return nil
	}
	return all
}

// partIndex returns which part of a session a cookie is, by the rest of its name; -1 for none.
func partIndex(rest string) int {
	switch {
	case rest == "":
		return 0
	case len(rest) == 2 && rest[0] == '.' && rest[1] >= '1' && rest[1] < '0'+MaxParts:
		return int(rest[1] - '0')
	}
	return -1
}

// unsealing is scratch memory for the largest session.
type unsealing struct {
	text, sealed [MaxParts * (partSize + 2)]byte
}

// sealed returns the bytes that the parts encode. They lie in u.
func (c *Cookie) sealed(u *unsealing) ([]byte, error) {
	text := u.text[:0]
	for _, part := range c.Parts() {
		text = append(text, part...)
	}
	text = text[2:] // behind the number of parts
	n, err := base64.RawURLEncoding.Strict().Decode(u.sealed[:], text)
	if err != nil || bytes.IndexByte(text, '\r') >= 0 || bytes.IndexByte(text, '\n') >= 0 {
		return nil, errForm
	}
	return u.sealed[:n], nil
}

// split returns the values of the cookies for a sealed text, nil if it needs too many.
func split(sealed []byte) []string {
	text := base64.RawURLEncoding.EncodeToString(sealed)
	n := (len(text) + partSize - 1) / partSize
	if n > MaxParts {
		return nil
	}
	all := make([]string, n)
	for i := range all {
		all[i] = text[i*partSize : min((i+1)*partSize, len(text))]
	}
	all[0] = strconv.Itoa(n) + "." + all[0]
	return all
}

// partName returns the name of a part of the session.
func (l *Login) partName(i int) string {
	if i == 0 {
		return l.cookie
	}
	return l.cookie + "." + strconv.Itoa(i)
}

// setCookie returns the value of a Set-Cookie field. A lifetime of zero removes the cookie.
func setCookie(name, value, domain string, lifetime time.Duration) string {
	if domain != "" {
		domain = "; Domain=" + domain
	}
	return name + "=" + value + "; Path=/; Max-Age=" + strconv.Itoa(int(lifetime/time.Second)) + "; HttpOnly; Secure; SameSite=Lax" + domain
}

// set returns the Set-Cookie values for a session whose cookies have these values. It removes the
// parts that an earlier, larger one may have left.
func (l *Login) set(values []string, lifetime time.Duration) []string {
	var all []string
	for i := range MaxParts {
		switch {
		case i < len(values):
			all = append(all, setCookie(l.partName(i), values[i], l.config.CookieDomain, lifetime))
		default:
			all = append(all, setCookie(l.partName(i), "", l.config.CookieDomain, 0))
		}
	}
	return all
}

// dropHostSession returns the Set-Cookie values that remove a session of this host alone, if the login's
// are for a domain. It is of an earlier configuration, and would serve again if that returned.
func (l *Login) dropHostSession(field string) (all []string) {
	if l.domain == "" {
		return nil
	}
	pairs(field, func(name, _ string, _, _ int) bool {
		if rest, is := strings.CutPrefix(name, hostPrefix+sessionName); is && partIndex(rest) >= 0 {
			all = append(all, setCookie(name, "", "", 0))
		}
		return len(all) < MaxParts
	})
	return all
}

// clear returns the Set-Cookie values that remove the session and the attempts in a Cookie field.
func (l *Login) clear(field string) []string {
	all := append(l.set(nil, 0), l.dropHostSession(field)...)
	pairs(field, func(name, _ string, _, _ int) bool {
		if strings.HasPrefix(name, attemptName) && len(all) < 2*MaxParts+maxAttempts {
			all = append(all, setCookie(name, "", "", 0))
		}
		return true
	})
	return all
}

// IsCookie reports whether cookies with this name are the gateway's, or reserved for it. They never reach
// an upstream, and no upstream may set one.
func IsCookie(name string) bool {
	rest, ok := strings.CutPrefix(name, hostPrefix)
	if !ok {
		if rest, ok = strings.CutPrefix(name, securePrefix); !ok {
			return false
		}
	}
	rest, ok = strings.CutPrefix(rest, sessionName)
	return ok && (rest == "" || rest[0] == '.' || strings.HasPrefix(rest, "-login."))
}

// Strip returns a Cookie field without the gateway's cookies. The others stay byte for byte; the
// result is "" if there are none.
func Strip(field string) string {
	if !strings.Contains(field, sessionName) {
		return field
	}
	var kept []string
	removed := false
	pairs(field, func(name, _ string, from, to int) bool {
		if IsCookie(name) {
			removed = true
		} else {
			kept = append(kept, field[from:to])
		}
		return true
	})
	if !removed {
		return field
	}
	return strings.TrimLeft(strings.Join(kept, ";"), " ")
}
