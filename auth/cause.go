package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sallyport/proxy/setting"
)

// Causes are for the audit record, so they are short. They repeat a token's claims only if its
// signature was verified: otherwise a stranger could make a record name somebody else.

// The longest texts that a cause repeats, in bytes. See [setting.Quoted].
const (
	shownID     = 48 // a key id, an algorithm or a client
	shownName   = 64 // an issuer or a subject
	shownValues = 56 // the values of a claim
)

// ofToken returns a cause that also names the token's subject, client and issuer, by its claims. The
// issuer comes last, because long causes are cut. The token's signature must have been verified.
func ofToken(what string, claim func(name string) []string) error {
	var whose []string
	for _, c := range [...]struct {
		name string
		most int
	}{{"sub", shownName}, {"azp", shownID}, {"iss", shownName}} {
		if values := claim(c.name); len(values) > 0 {
			whose = append(whose, c.name+" "+setting.Quoted(values[0], c.most))
		}
	}
	return &tokenCause{what, strings.Join(whose, ", ")}
}

// tokenCause is a cause with the owner of the token.
type tokenCause struct{ what, whose string }

func (c *tokenCause) Error() string {
	if c.whose == "" {
		return c.what
	}
	return c.what + "; its " + c.whose
}

// values returns the values of a claim in quotes, or "absent" if there are none.
func values(all []string) string {
	if len(all) == 0 {
		return "absent"
	}
	return setting.QuotedList(all, shownValues)
}

// seconds formats a number of seconds with its unit.
func seconds(n int64) string { return strconv.FormatInt(n, 10) + " s" }

// short formats a duration as the configuration writes it, such as 1m.
func short(d time.Duration) string { return setting.Duration(d).String() }

// expired returns the cause for a token that has expired.
func expired(exp, now int64, skew time.Duration) string {
	return "expired " + seconds(now-exp) + " ago, skew is " + short(skew)
}

// notYetValid returns the cause for a token whose time has not come.
func notYetValid(nbf, now int64, skew time.Duration) string {
	return "valid in " + seconds(nbf-now) + " (nbf), skew is " + short(skew)
}

// unknownIssuer returns the cause for a token whose claim iss matches no issuer of the route. It
// does not repeat the claim, because no signature was verified.
func (b *bearer) unknownIssuer(iss string) error {
	var urls []string
	for i := range b.candidates {
		c := b.candidates[i].iss
		if how := difference(iss, c.url); how != "" {
			return fmt.Errorf("iss differs from the url of issuer %s, %s, only by %s", c.name, setting.Quoted(c.url, 2*shownName), how)
		}
		urls = append(urls, c.url)
	}
	what := "iss matches no issuer of the route"
	if iss == "" {
		what = "iss is absent"
	}
	return errors.New(what + "; the route takes " + setting.QuotedList(urls, 2*shownName))
}

// difference returns how two spellings of one issuer differ, or "" if they differ in more than one way.
func difference(a, b string) string {
	switch {
	case strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/"):
		return "a slash at its end"
	case strings.EqualFold(a, b):
		return "letter case"
	case "https"+strings.TrimPrefix(a, "http") == b, "https"+strings.TrimPrefix(b, "http") == a:
		return "http and https"
	}
	return ""
}

// headerWord returns alg, typ or another word of somebody unknown in quotes. It does not repeat a long
// value or unusual characters.
func headerWord(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("+-./", r)
	}) < 0
	if !plain || len(s) > 16 {
		return "of unusual form"
	}
	return setting.Quoted(s, 16)
}

// unknownKeyError is the cause of a token that none of the known keys verifies. It wraps the error of the key set.
type unknownKeyError struct {
	text string
	err  error
}

// Error returns the cause.
func (e *unknownKeyError) Error() string { return e.text }

// Unwrap returns the error of the key set.
func (e *unknownKeyError) Unwrap() error { return e.err }

// unknownKey returns the cause for a token whose key the issuer does not have.
func (iss *issuer) unknownKey(s *keySet, t *token, err error) error {
	kid := "no kid"
	if t.hasKid {
		kid = "kid " + setting.Quoted(t.kid, shownID)
	}
	if set := s.current.Load(); set != nil && errors.Is(err, errUnknownKey) {
		return &unknownKeyError{fmt.Sprintf("issuer %s: the token has %s and alg %s; none of the issuer's %d keys matches", iss.name, kid, headerWord(t.alg), len(set.list)), err}
	}
	return fmt.Errorf("issuer %s: the token has %s and alg %s: %w", iss.name, kid, headerWord(t.alg), err)
}

// tooManyFailures returns the error for a credential that is refused unchecked, because the client's
// address has used up its budget of failed checks.
func tooManyFailures(b *budget, peer netip.Addr) *Error {
	return &Error{Reason: TooManyFailures, Err: fmt.Errorf("more than %d failed checks from %s; one is forgiven every %s", b.burst/b.every, peer.WithZone(""), b.every)}
}
