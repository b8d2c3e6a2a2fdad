package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"sallyport/proxy/message"
)

// IsBasic reports whether a value of Authorization or WWW-Authenticate has the scheme Basic (RFC 7617).
func IsBasic(value string) bool {
	scheme, _, _ := strings.Cut(value, " ")
	return strings.EqualFold(scheme, "Basic")
}

// passwordMark is a keyed hash of a password.
type passwordMark [sha256.Size]byte

// passwordMemory is what checks of passwords share over reloads.
//
// A check takes bcrypt's time, so that a guesser could use up the processors. Three bounds prevent
// it: a password that was verified is remembered, and depends on none of the others; failed checks
// are counted by client address; and few checks run at once, of the addresses in turn.
type passwordMemory struct {
	secret [32]byte     // keys the marks
	seed   maphash.Seed // chooses the hash for unknown users
	budget *budget
	gate   *gate
	// tables are those of the Auth that was activated last, by name; guarded by Memory.mu.
	tables map[string]*Passwords
}

// passwordBudget allows fewer failures than for tokens: a check costs a thousand times as much.
func passwordBudget() Budget { return Budget{Burst: 20, Every: time.Second} }

func newPasswordMemory() *passwordMemory {
	m := &passwordMemory{seed: maphash.MakeSeed(), budget: newBudget(passwordBudget()), gate: newGate()}
	_, _ = rand.Read(m.secret[:]) // never fails
	return m
}

// activate lets the tables of a configuration take over what was verified. The caller holds
// Memory.mu.
func (m *passwordMemory) activate(tables map[string]*Passwords) {
	for name, p := range tables {
		p.adopt(m.tables[name])
	}
	m.tables = tables
}

// mark returns the keyed hash of a password of at most maxPassword bytes. It does not allocate.
func (m *passwordMemory) mark(password []byte) passwordMark {
	var b [len(m.secret) + maxPassword]byte
	n := copy(b[:], m.secret[:])
	n += copy(b[n:], password)
	return sha256.Sum256(b[:n])
}

// passwordAuth checks the passwords of one entry of `basic`.
type passwordAuth struct {
	memory *Memory
	table  *Passwords
}

// newBasic makes the authenticator for one caller "basic/NAME".
func (a *Auth) newBasic(callers []string, _ *Demand) (Authenticator, error) {
	if len(callers) > 1 {
		return nil, fmt.Errorf("%s and %s: a password is checked against one entry of basic", callers[0], callers[1])
	}
	table := a.passwords[strings.TrimPrefix(callers[0], "basic/")]
	if table == nil {
		return nil, fmt.Errorf("unknown caller %q", callers[0])
	}
	return &passwordAuth{a.memory, table}, nil
}

// Traits implements [Authenticator].
func (b *passwordAuth) Traits() Traits { return Traits{Missing: NoCredential, Ambient: true} }

// Challenge implements [Authenticator].
func (b *passwordAuth) Challenge(realm string, _ *Error) string {
	return "Basic realm=" + quoted(realm) + `, charset="UTF-8"`
}

// Authenticate implements [Authenticator].
func (b *passwordAuth) Authenticate(ctx context.Context, r *Request) (Proof, error) {
	return b.prove(ctx, r, b.memory.passwords.budget)
}

// Recheck implements [Authenticator]: the password is checked as if it were new.
func (b *passwordAuth) Recheck(ctx context.Context, r *Request, _ Proof) (Proof, error) {
	return b.prove(ctx, r, nil)
}

// prove checks the password of a request. A password that was verified before depends on neither
// budget nor gate.
func (b *passwordAuth) prove(ctx context.Context, r *Request, budget *budget) (Proof, error) {
	var buf basicBuffer
	name, password, err := basicOf(r.Head, &buf)
	if err != nil {
		return Proof{}, err
	}
	m := b.memory.passwords
	if now := b.memory.now(); !now.Before(b.table.until) {
		return Proof{}, &Error{Reason: BasicEnded, Err: fmt.Errorf("the passwords of %s ended at %s (until)", b.table.source, utc(b.table.until))}
	} else if cause := unusable(password); cause != nil {
		return Proof{}, &Error{Reason: BasicUnknown, Err: cause}
	}
	u, mark := b.table.users[string(name)], m.mark(password)
	if u.remembers(&mark) {
		return Proof{Caller: u.principal, Field: "authorization"}, nil
	}
	if !budget.left(r.Peer, b.memory.now()) {
		return Proof{}, tooManyFailures(budget, r.Peer)
	}
	if err := m.gate.enter(ctx, m.budget.owner(r.Peer)); err != nil {
		return Proof{}, &Error{Reason: BasicBusy, Err: err}
	}
	defer m.gate.exit()
	// Others of the same address may have failed meanwhile, or the same user may have passed.
	switch {
	case u.remembers(&mark):
		return Proof{Caller: u.principal, Field: "authorization"}, nil
	case !budget.left(r.Peer, b.memory.now()):
		return Proof{}, tooManyFailures(budget, r.Peer)
	}
	if !b.matches(u, name, password) {
		budget.charge(r.Peer, b.memory.now())
		cause := fmt.Errorf("%s has no user of this name", b.table.source)
		if u != nil {
			cause = fmt.Errorf("the password is not that of %s", u.principal.String())
		}
		return Proof{}, &Error{Reason: BasicUnknown, Err: cause}
	}
	verified := mark // so that mark itself does not move to the heap
	u.verified.Store(&verified)
	return Proof{Caller: u.principal, Field: "authorization"}, nil
}

// remembers reports whether the password of the user with this mark was verified before. A nil user
// remembers none.
func (u *user) remembers(mark *passwordMark) bool {
	if u == nil {
		return false
	}
	known := u.verified.Load()
	return known != nil && subtle.ConstantTimeCompare(known[:], mark[:]) == 1
}

// matches compares the password with the hash of a user. For unknown users, who are nil, it compares
// with the hash of another one, chosen by the name, so that the time tells nobody who is a user.
func (b *passwordAuth) matches(u *user, name, password []byte) bool {
	compared := u
	if u == nil {
		if len(b.table.order) == 0 {
			return false
		}
		compared = b.table.order[maphash.Bytes(b.memory.passwords.seed, name)%uint64(len(b.table.order))]
	}
	return bcrypt.CompareHashAndPassword(compared.hash, password) == nil && u != nil
}

// maxBasic is the maximum length of Basic's encoded part: enough for every user and password.
const maxBasic = 512

// basicBuffer has room for a decoded user and password.
type basicBuffer [maxBasic]byte

// decode decodes what stands behind Basic. It allocates only for longer texts than any user has.
func (b *basicBuffer) decode(raw string) ([]byte, error) {
	if len(raw) > maxBasic {
		return base64.StdEncoding.DecodeString(raw)
	}
	var encoded basicBuffer
	n, err := base64.StdEncoding.Decode(b[:], encoded[:copy(encoded[:], raw)])
	return b[:n], err
}

// basicOf returns the user and the password of the only Authorization line, in buf. An API key there
// is no password: its prefix decides.
func basicOf(head *message.Head, buf *basicBuffer) (name, password []byte, err error) {
	value, lines := "", 0
	for i := range head.Fields {
		if head.Fields[i].Name == "authorization" {
			value = head.Fields[i].Value
			lines++
		}
	}
	switch key, _ := keyInAuthorization(value); {
	case lines > 1:
		return nil, nil, bad(errors.New("more than one Authorization field"))
	case !IsBasic(value) || key != "":
		return nil, nil, ErrNoCredential
	case tokenInQuery(head.Query):
		return nil, nil, bad(errors.New("a second token in the query"))
	}
	_, raw, _ := strings.Cut(value, " ")
	raw = strings.TrimLeft(raw, " ")
	if len(raw) > maxBasic {
		return nil, nil, &Error{Reason: BasicUnknown, Err: fmt.Errorf("%d bytes after Basic, more than a user and a password have", len(raw))}
	}
	text, fault := buf.decode(raw)
	name, password, two := bytes.Cut(text, []byte(":"))
	if fault != nil || !two {
		return nil, nil, &Error{Reason: BasicUnknown, Err: errors.New("not base64 of USER:PASSWORD")}
	}
	return name, password, nil
}

// unusable returns why this cannot be a password, or nil. Everything after byte 72 would not count,
// so that such a password is refused rather than cut.
func unusable(password []byte) error {
	switch {
	case len(password) > maxPassword:
		return fmt.Errorf("the password has %d bytes, and bcrypt reads %d of them", len(password), maxPassword)
	case bytes.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("the password has control characters (RFC 7617, section 2)")
	}
	return nil
}
