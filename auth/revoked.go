package auth

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sallyport/auth/apikey"
	"sallyport/auth/identity"
	"sallyport/proxy/setting"
)

// Kinds of a [Revocation].
const (
	RevokedPrincipal   = "principal"
	RevokedToken       = "jti"
	RevokedKey         = "key"
	RevokedAPIKey      = "apikey"
	RevokedCertificate = "certificate"
)

// Revocation is one line of the file of revocations.
type Revocation struct {
	Kind string // one of the kinds above
	// Source is who issued the credential, such as issuer/corp: of tokens, and of keys of an
	// issuer. Otherwise it is "".
	Source string
	// ID is the qualified name of a principal, the jti of a token, the id of a key, the name of
	// an API key or of one of its secrets, or the fingerprint or serial number and issuer of a
	// certificate.
	ID string
	// Before narrows the revocation of a principal to what was issued before it. Zero means all.
	Before setting.Time
	// Until is when the line may be removed, because what it revokes has ended; zero: never.
	Until setting.Time
}

var errRevocation = errors.New("want principal SOURCE:NAME before TIME, jti issuer/NAME ID, key ID, key issuer/NAME ID, apikey NAME, certificate sha256:HEX or certificate SERIAL ISSUER, and until TIME behind it")

// ParseRevocation reads a line of the file of revocations. Names with white space or invisible
// characters stand in quotes as in Go: otherwise a comment or a mistyped option behind a name would
// be part of it, and the line would revoke nobody.
func ParseRevocation(line string) (r Revocation, err error) {
	kind, rest, _ := strings.Cut(line, " ")
	r.Kind, rest = kind, strings.TrimSpace(rest)
	if kinds := []string{RevokedPrincipal, RevokedToken, RevokedKey, RevokedAPIKey, RevokedCertificate}; !slices.Contains(kinds, kind) {
		unknown := "unknown kind " + headerWord(kind) // which may be a pasted secret
		if near := setting.Nearest(kind, kinds); near != "" {
			return Revocation{}, fmt.Errorf("%s; did you mean %s?", unknown, near)
		}
		return Revocation{}, fmt.Errorf("%s; %w", unknown, errRevocation)
	}
	if rest, err = r.options(rest); err != nil {
		return Revocation{}, err
	}
	switch first, more, two := strings.Cut(rest, " "); {
	case kind == RevokedToken && two, kind == RevokedKey && two && strings.HasPrefix(first, "issuer/"):
		r.Source, rest = first, strings.TrimSpace(more)
	}
	switch {
	case strings.HasPrefix(rest, `"`):
		if rest, err = strconv.Unquote(rest); err != nil {
			return Revocation{}, errors.New("the quoted name does not end, or has text behind it")
		}
	case !r.bare(rest):
		return Revocation{}, errors.New("the name has white space or invisible characters: put it in quotes; options are before TIME and until TIME, and a comment has a line of its own")
	}
	if strings.HasPrefix(rest, apikey.Prefix) && len(rest) == apikey.Len {
		return Revocation{}, errors.New("an API key in the clear; write the name of the key, and replace it")
	}
	r.ID = rest
	if r.Kind == RevokedCertificate {
		r.ID = certificateID(rest)
	}
	if err := r.check(); err != nil {
		return Revocation{}, err
	}
	return r, nil
}

// bare reports whether a name needs no quotes: nothing in it can be meant as something else.
func (r *Revocation) bare(name string) bool {
	if r.Kind == RevokedCertificate { // names of issuers have spaces
		if strings.Contains(name, " #") {
			return false
		}
		name = strings.ReplaceAll(name, " ", "")
	}
	return !strings.ContainsFunc(name, func(c rune) bool { return unicode.IsSpace(c) || invisible(c) })
}

// options cuts before TIME and until TIME off the end of a line.
func (r *Revocation) options(rest string) (string, error) {
	for {
		i := strings.LastIndexByte(rest, ' ')
		head := strings.TrimSpace(rest[:max(i, 0)])
		j := strings.LastIndexByte(head, ' ')
		var to *setting.Time
		switch head[j+1:] {
		case "before":
			to = &r.Before
		case "until":
			to = &r.Until
		}
		if to == nil || j < 0 || strings.HasSuffix(rest, `"`) {
			return rest, nil
		}
		if !to.IsZero() {
			return "", fmt.Errorf("%s stands there twice", head[j+1:])
		}
		if err := to.UnmarshalText([]byte(rest[i+1:])); err != nil {
			return "", fmt.Errorf("%s: %w", head[j+1:], err)
		}
		rest = strings.TrimSpace(head[:j])
	}
}

// check returns why nothing could match the revocation, or nil.
func (r *Revocation) check() error {
	source, name, qualified := strings.Cut(r.ID, ":")
	switch {
	case r.Kind != RevokedPrincipal && !r.Before.IsZero():
		return errors.New("before belongs to a principal; a single credential is revoked as a whole")
	case r.ID == "" || strings.ContainsAny(r.ID, "\r\n"):
		return errRevocation
	case r.Kind == RevokedPrincipal:
		if kind, issuer, _ := strings.Cut(source, "/"); kind == "login" && name != "" {
			return errors.New("people who sign in have principals of the issuer: want issuer/NAME:" + name + ", with the issuer of login " + issuer)
		}
		if !qualified || name == "" || !knownSource(source) {
			return errors.New("want the qualified name of the caller as records write it, such as issuer/corp:alice or apikey:notebook")
		}
	case r.Kind == RevokedToken:
		if !strings.HasPrefix(r.Source, "issuer/") {
			return errors.New("want jti issuer/NAME ID: a jti is unique only at its issuer")
		}
	case r.Kind == RevokedCertificate:
		if !isCertificate(r.ID) {
			return errors.New("want sha256: and the fingerprint, or the serial number in hexadecimal and the issuer, such as 1f2a CN=Lab CA")
		}
	}
	return nil
}

// knownSource reports whether principals may have this source.
func knownSource(source string) bool {
	kind, name, named := strings.Cut(source, "/")
	switch kind {
	case "issuer", "basic":
		return name != ""
	case "key", "apikey", "cert":
		return !named
	}
	return false
}

// certificateID returns the id of a certificate in the form of [identity.Principal]. Tools write
// fingerprints and serial numbers in upper case and with colons.
func certificateID(s string) string {
	if digits, ok := strings.CutPrefix(s, apikey.HashPrefix); ok {
		return apikey.HashPrefix + strings.ToLower(strings.ReplaceAll(digits, ":", ""))
	}
	serial, issuer, _ := strings.Cut(strings.TrimSpace(s), " ")
	serial = strings.ToLower(strings.ReplaceAll(serial, ":", ""))
	if digits := strings.TrimLeft(serial, "0"); digits != "" {
		serial = digits
	} else if serial != "" {
		serial = "0"
	}
	// Without a serial number the space stays: the issuer's first word is none.
	return serial + strings.TrimRight(" "+strings.TrimSpace(issuer), " ")
}

// isCertificate reports whether an id in the form of [certificateID] can be one of a certificate.
func isCertificate(id string) bool {
	if digits, ok := strings.CutPrefix(id, apikey.HashPrefix); ok {
		raw, err := hex.DecodeString(digits)
		return err == nil && len(raw) == sha256.Size
	}
	serial, issuer, _ := strings.Cut(id, " ")
	return issuer != "" && serial != "" && strings.Trim(serial, "0123456789abcdef") == ""
}

// String returns the line in its one form.
func (r Revocation) String() string {
	words := []string{r.Kind}
	if r.Source != "" {
		words = append(words, r.Source)
	}
	id := r.ID
	bare, _ := new(Revocation).options(id)
	if bare != id || id != strings.TrimSpace(id) || strings.Contains(id, `"`) || !r.bare(id) {
		id = strconv.Quote(id)
	}
	words = append(words, id)
	for _, o := range []struct {
		word string
		at   setting.Time
	}{{"before", r.Before}, {"until", r.Until}} {
		if !o.at.IsZero() {
			words = append(words, o.word, o.at.UTC().Format(time.RFC3339))
		}
	}
	return strings.Join(words, " ")
}

// Revocations are the credentials that count no longer, although they verify. The nil Revocations
// has none. It is immutable.
type Revocations struct {
	principals map[string]revokedCaller // by qualified name
	ids, keys  map[item]int             // line numbers of credentials, and of keys that verify them
}

// revokedCaller is the revocation of a principal.
type revokedCaller struct {
	before time.Time // zero: all that it ever has
	line   int
}

// item is the id of a credential or key at a source of principals.
type item struct{ source, id string }

// ReadRevocations reads a file of revocations; "" is none. It returns one [LineError] for each
// fault, joined.
//
// A line is a revocation as [ParseRevocation] reads it. Lines that are empty or begin with # are
// skipped. A line holds until it is removed: until only says when that is safe.
func ReadRevocations(file setting.Path) (*Revocations, error) {
	if file == "" {
		return nil, nil
	}
	all := &Revocations{principals: map[string]revokedCaller{}, ids: map[item]int{}, keys: map[item]int{}}
	err := EachRevocation(string(file), func(line int, r *Revocation) { all.add(line, r) })
	if len(all.principals)+len(all.ids)+len(all.keys) == 0 {
		return nil, err // so that requests pay nothing
	}
	return all, err
}

// EachRevocation calls f with each revocation of a file. The error joins one [LineError] for each
// fault.
func EachRevocation(file string, f func(line int, r *Revocation)) error {
	var errs []error
	eachLine(file, func(line int, text string, err error) bool {
		var r Revocation
		if err == nil {
			r, err = ParseRevocation(text)
		}
		if err != nil {
			errs = append(errs, &LineError{File: file, Line: line, Err: err})
			return len(errs) < maxLineErrors
		}
		f(line, &r)
		return true
	})
	return errors.Join(errs...)
}

func (all *Revocations) add(line int, r *Revocation) {
	switch r.Kind {
	case RevokedPrincipal:
		old, listed := all.principals[r.ID]
		if !listed || r.Before.IsZero() || !old.before.IsZero() && old.before.Before(r.Before.Time) {
			all.principals[r.ID] = revokedCaller{r.Before.Time, line}
		}
	case RevokedToken:
		all.ids[item{r.Source, r.ID}] = line
	case RevokedAPIKey:
		all.keys[item{"apikey", r.ID}] = line
	case RevokedCertificate:
		items := all.ids
		if strings.HasPrefix(r.ID, apikey.HashPrefix) {
			items = all.keys
		}
		items[item{"cert", r.ID}] = line
	case RevokedKey:
		all.keys[item{cmp.Or(r.Source, "key"), r.ID}] = line
	}
}

// refusal returns the refusal of a principal whose credential is revoked, or nil. It looks up once for
// each kind of revocation that the file has, and never allocates for what is not revoked.
func (all *Revocations) refusal(p *identity.Principal) *Error {
	if all == nil {
		return nil
	}
	if len(all.principals) > 0 {
		if e, listed := all.principals[p.String()]; listed {
			if cause := e.cause(p); cause != "" {
				return all.refuse(p, e.line, cause)
			}
		}
	}
	if line, listed := all.id(p); listed {
		return all.refuse(p, line, "the credential of "+p.String()+" with the id "+setting.Quoted(p.ID, shownName)+" is revoked")
	}
	if line, listed := all.key(p); listed {
		return all.refuse(p, line, "the key "+setting.Quoted(p.KeyID, shownName)+" of "+p.String()+" is revoked")
	}
	return nil
}

// cause returns why the revocation of a principal is about this credential; "" if it is not.
func (e *revokedCaller) cause(p *identity.Principal) string {
	what := p.String() + " is revoked"
	switch {
	case e.before.IsZero():
		return what
	case p.IssuedAt.IsZero():
		return what + " for what was issued before " + utc(e.before) + ", and this does not say when it was issued"
	case p.IssuedAt.Before(e.before):
		return what + " for what was issued before " + utc(e.before) + ", and this was issued at " + utc(p.IssuedAt)
	}
	return ""
}

// id returns the line that revokes a credential by its id.
func (all *Revocations) id(p *identity.Principal) (line int, listed bool) {
	if len(all.ids) == 0 || p.ID == "" {
		return 0, false
	}
	line, listed = all.ids[item{p.Source, p.ID}]
	return line, listed
}

// key returns the line that revokes the key of a credential, or a certificate by its fingerprint. An API key is revoked by its name, or one
// of its secrets is by its id.
func (all *Revocations) key(p *identity.Principal) (line int, listed bool) {
	if len(all.keys) == 0 || p.KeyID == "" {
		return 0, false
	}
	line, listed = all.keys[item{p.Source, p.KeyID}]
	if name, _, secret := strings.Cut(p.KeyID, ":"); !listed && secret && p.Source == "apikey" {
		line, listed = all.keys[item{p.Source, name}]
	}
	return line, listed
}

func (all *Revocations) refuse(p *identity.Principal, line int, cause string) *Error {
	return &Error{Reason: CredentialRevoked, KeyID: p.KeyID, Err: fmt.Errorf("%s (line %d of revoked)", cause, line)}
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
