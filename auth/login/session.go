package login

import (
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/identity"
	"sallyport/auth/login/endfile"
	"sallyport/proxy/setting"
)

// MaxAbsolute is the longest lifetime of a session.
const MaxAbsolute = 30 * 24 * time.Hour

// record is the content of a session. Times are in seconds since 1970.
type record struct {
	id         sessionID
	generation int64 // grows with each change
	memory     bool  // it is kept in the Memory; the cookie has only id and expires

	begun    int64 // by our clock
	issued   int64 // the first ID token, by the issuer's clock
	seen     int64 // the last request when it was sealed
	expires  int64
	authTime int64 // 0: unknown

	issuer, subject, sid    string
	acr                     string // the text of an Authentication
	key                     string // that signed the claims
	claims                  string // JSON
	hint                    packed // the ID token for the issuer's sign-out, without its claims if they are claims; none if it did not fit
	refresh                 packed // refresh token
	access                  packed // access token, if it is passed on
	accessFrom, accessUntil int64  // life of the access token; 0: unknown
	idFrom, idUntil         int64  // life of the ID token, likewise

	ends [3]endfile.End // those that would end it; not sealed
}

// Versions of the content of sessions. Cookies that an earlier release sealed still open, so that no
// update signs people out.
const (
	passedVersion = 3 // with what servers behind the gateway get; only sessions that have it are of this version
	version       = 2
	plainVersion  = 1 // texts as they are
)

func (r *record) encode() []byte {
	w := writer{b: make([]byte, 0, 256+len(r.claims)+r.hint.size()+r.refresh.size()+r.access.size())}
	passes := !r.memory && (r.access != (packed{}) || r.idFrom != 0 || r.idUntil != 0)
	if passes {
		w.number(passedVersion)
	} else {
		w.number(version)
	}
	w.raw(r.id[:])
	w.number(r.expires)
	if r.memory {
		w.number(1)
		return w.b
	}
	w.number(0)
	w.number(r.generation)
	w.number(r.begun)
	for _, n := range [...]int64{r.issued, r.seen, r.authTime, r.accessFrom, r.accessUntil} {
		w.delta(n, r.begun)
	}
	if passes {
		w.delta(r.idFrom, r.begun)
		w.delta(r.idUntil, r.begun)
	}
	var texts writer
	for _, s := range [...]string{r.claims, r.issuer, r.subject, r.sid, r.acr, r.key} {
		texts.common(s)
	}
	texts.packed(r.hint)
	texts.packed(r.refresh)
	if passes {
		texts.packed(r.access)
	}
	w.text(string(compress(texts.shared)))
	w.raw(texts.b)
	return w.b
}

func decodeRecord(b []byte) (record, error) {
	r, rd := record{}, reader{s: string(b)}
	of := rd.number()
	if of != passedVersion && of != version && of != plainVersion {
		return r, errors.New("it is of another version")
	}
	rd.raw(r.id[:])
	r.expires = rd.number()
	if rd.number() == 1 {
		r.memory = true
		return r, rd.end()
	}
	r.generation, r.begun = rd.number(), rd.number()
	if of == plainVersion {
		return r.decodePlain(&rd)
	}
	for _, n := range [...]*int64{&r.issued, &r.seen, &r.authTime, &r.accessFrom, &r.accessUntil} {
		*n = rd.delta(r.begun)
	}
	if of == passedVersion {
		r.idFrom, r.idUntil = rd.delta(r.begun), rd.delta(r.begun)
	}
	rd.decompress()
	for _, s := range [...]*string{&r.claims, &r.issuer, &r.subject, &r.sid, &r.acr, &r.key} {
		*s = rd.common()
	}
	r.hint, r.refresh = rd.packed(), rd.packed()
	if of == passedVersion {
		r.access = rd.packed()
	}
	return r, rd.end()
}

// decodePlain reads the rest of a record of plainVersion.
func (r *record) decodePlain(rd *reader) (record, error) {
	for _, n := range [...]*int64{&r.issued, &r.seen, &r.authTime, &r.accessFrom, &r.accessUntil} {
		*n = rd.number()
	}
	for _, s := range [...]*string{&r.issuer, &r.subject, &r.sid, &r.acr, &r.key, &r.claims} {
		*s = rd.text()
	}
	r.hint, r.refresh = pack(rd.text()), pack(rd.text())
	return *r, rd.end()
}

// Session is a person who has signed in, as one cookie has it. It is safe for concurrent use.
type Session struct {
	record
	login     *Login
	place     string // see [Login.place]
	principal identity.Principal
	live      *live
	checked   atomic.Uint64 // count of ends at which it had not ended, plus one

	sealing sync.Once
	cookies []string // Set-Cookie values of this generation
}

// until returns the end of a session's absolute lifetime, which may be shorter now than when it began.
func (l *Login) until(r *record) int64 {
	return min(r.expires, r.begun+int64(l.config.Absolute/time.Second))
}

func (l *Login) idle() int64 { return int64(l.config.Idle / time.Second) }

func (s *Session) idle() int64 { return s.login.idle() }

// loginNow returns the login of the configuration in use; the session's own if that has another issuer.
func (s *Session) loginNow() *Login {
	if l := s.login.state.current.Load(); l != nil && l.issuer.Issues(s.issuer) {
		return l
	}
	return s.login
}

// idleUntil returns when the idle lifetime ends, in seconds since 1970.
func (s *Session) idleUntil() int64 { return max(s.seen, s.live.seen.Load()) + s.idle() }

// maxRefreshToken is the maximum size of a refresh token in bytes. Everything else that the Memory keeps of a session
// has a maximum too.
const maxRefreshToken = 32 << 10

// newSession returns the session of a record, whose principal the issuer's current configuration
// decides. It refuses those that the login would not begin now: its configuration may have changed.
func (l *Login) newSession(r record, place string) (*Session, error) {
	if !l.issuer.Issues(r.issuer) {
		return nil, fmt.Errorf("it is of the issuer %s", setting.Quoted(r.issuer, 128))
	}
	if size := r.refresh.size(); size > maxRefreshToken {
		return nil, fmt.Errorf("the refresh token has %d bytes, more than %d", size, maxRefreshToken)
	}
	demanded := StepUp{ACR: l.config.ACR}
	if lacking := demanded.Lacking(l.authentication(&r), time.Time{}, 0); lacking != "" {
		return nil, errors.New("its " + lacking)
	}
	p, err := l.issuer.Principal([]byte(r.claims))
	if err != nil {
		return nil, err
	}
	p.ID = "login-" + base64.RawURLEncoding.EncodeToString(r.id[:])
	p.KeyID = r.key
	p.IssuedAt, p.Expires = time.Unix(min(r.begun, r.issued+int64(l.issuer.Skew()/time.Second)), 0), time.Unix(l.until(&r), 0) // begun may be ahead: see state.begin
	p.Login = true
	p.Qualify()
	r.ends = endsOf(&r)
	r.dropTokens(l.config.Passed.And(l.passed()))
	return &Session{record: r, login: l, place: place, principal: p}, nil
}

const purposeSession = "session"

// Open opens the session in a cookie, for a host. The result was not checked against the time and the
// ends of sessions: see [Session.Use].
func (l *Login) Open(host string, c *Cookie) (*Session, error) {
	place := l.place(host)
	r, err := l.unseal(place, c)
	if err != nil {
		return nil, refuse(BadSession, err)
	}
	if r.memory {
		known := l.state.find(r.id)
		if known == nil {
			return nil, refuse(SessionEnded, errors.New("the memory has no such session"))
		}
		return l.current(known)
	}
	s, err := l.newSession(*r, place)
	if err != nil {
		return nil, refuse(BadSession, err)
	}
	l.state.join(s)
	s.live.advance(s)
	if n := s.live.newest.Load(); n.login != l {
		if _, err := l.current(s.live); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var unsealings = sync.Pool{New: func() any { return new(unsealing) }}

func (l *Login) unseal(place string, c *Cookie) (*record, error) {
	u := unsealings.Get().(*unsealing)
	defer unsealings.Put(u)
	sealed, err := c.sealed(u)
	if err != nil {
		return nil, err
	}
	defer clear(sealed) // which is opened in place, and has a refresh token
	b, err := l.keys.open(sealed, l.additional(purposeSession, place))
	if err != nil {
		return nil, err
	}
	r, err := decodeRecord(b)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// current returns the newest session of a live one, under this login's configuration: another
// configuration may name the person otherwise.
func (l *Login) current(known *live) (*Session, error) {
	n := known.newest.Load()
	if n.login == l {
		return n, nil
	}
	s, err := l.newSession(n.record, n.place)
	if err != nil {
		return nil, refuse(BadSession, err)
	}
	s.live = known
	known.newest.CompareAndSwap(n, s)
	return s, nil
}

// advance makes a session the newest one unless a newer one is known.
func (v *live) advance(s *Session) {
	for {
		n := v.newest.Load()
		if n == s || n.generation > s.generation || n.generation == s.generation && n.login == s.login || v.newest.CompareAndSwap(n, s) {
			return
		}
	}
}

var (
	errIdle     = errors.New("no request used it for longer than its idle lifetime")
	errAbsolute = errors.New("its absolute lifetime is over")
	errOther    = errors.New("it is of another host")
	errOver     = errors.New("the person signed out, or the issuer ended it, or newer sessions needed its place in memory, or it is older than the file with ends of sessions")
)

// Use checks that the session serves a request now, and returns whom it proves. inFlight means that
// the request began earlier: it counts as use of the session meanwhile. Use starts a refresh in the
// background when one is due. It does not allocate unless it refuses.
func (s *Session) Use(host string, now time.Time, inFlight bool) (*identity.Principal, error) {
	n, err := s.check(host, now, inFlight)
	if err != nil {
		return nil, err
	}
	at := now.Unix()
	if v := s.live; v.seen.Load() < at {
		v.seen.Store(at)
	}
	n.refreshIfDue(at)
	return &n.principal, nil
}

// Look checks the session like [Session.Use], but does not count as use, and starts no refresh.
func (s *Session) Look(host string, now time.Time, inFlight bool) (*identity.Principal, error) {
	n, err := s.check(host, now, inFlight)
	if err != nil {
		return nil, err
	}
	return &n.principal, nil
}

// check checks that the session serves a request now, and returns its newest form.
func (s *Session) check(host string, now time.Time, inFlight bool) (*Session, error) {
	at := now.Unix()
	v := s.live
	switch {
	case s.login.place(host) != s.place:
		return nil, s.refuse(BadSession, errOther)
	case at >= s.login.until(&s.record):
		return nil, s.refuse(SessionExpired, errAbsolute)
	case !inFlight && at >= s.idleUntil():
		return nil, s.refuse(SessionExpired, errIdle)
	case v.gone.Load():
		return nil, s.refuse(SessionEnded, errOver)
	}
	if count := s.login.state.changes.Load() + 1; s.checked.Load() != count {
		if s.login.state.hasEnded(&s.record) {
			return nil, s.refuse(SessionEnded, errOver)
		}
		s.checked.Store(count)
	}
	n := v.newest.Load()
	if n.login != s.login && n.generation > s.generation { // another configuration refreshed it
		var err error
		if n, err = s.login.current(v); err != nil {
			return nil, err
		}
	}
	if n.generation < s.generation || n.login != s.login {
		n = s
	}
	return n, nil
}

// Beside returns the refusal of a request that had both sessions, which have ended. An attacker may have
// set one, so that the person works under the attacker's name.
func (s *Session) Beside(other *Session) error {
	return refuse(BadSession, fmt.Errorf("there are sessions of %s and %s, and somebody else may have set one: all have ended", s.principal.String(), other.principal.String()))
}

// refuse returns the refusal of the session, whose seal proves whose it is.
func (s *Session) refuse(reason string, cause error) error {
	return refuse(reason, fmt.Errorf("the session of %s: %w", s.principal.String(), cause))
}

// Renewed returns the values of Set-Cookie that the answer to a request must carry, so that the browser
// has the newest session. It is nil if none are due, and does not allocate then.
func (s *Session) Renewed(now time.Time) []string { return s.sealedAnew(now, now.Unix()) }

// Kept returns the same for a request that only asks for the session, which is no use of it. The browser gets
// what refreshes have brought, and the time when a stream last used the session.
func (s *Session) Kept(now time.Time) []string { return s.sealedAnew(now, s.live.seen.Load()) }

// sealedAnew returns the newest session as cookies, if the browser has an older one. used is when it was last
// used, in seconds since 1970.
func (s *Session) sealedAnew(now time.Time, used int64) []string {
	if s.memory || s.live.gone.Load() {
		return nil
	}
	n := s.live.newest.Load()
	if n.login != s.login {
		return nil
	}
	if used-n.seen > n.idle()/8 {
		touched := &Session{record: n.record, login: n.login, place: n.place, principal: n.principal, live: n.live}
		touched.seen = used
		touched.generation++
		if !s.live.newest.CompareAndSwap(n, touched) {
			return nil // the next answer has the newest
		}
		n = touched
	}
	if n.generation <= s.generation {
		return nil
	}
	n.sealing.Do(func() {
		var err error
		if n.cookies, err = n.seal(now); err != nil {
			n.login.memory.log.Warn("session not sealed anew, so the browser keeps an older one", "login", n.login.name, "principal", n.principal.String(), "cause", err)
		}
	})
	return n.cookies
}

// seal returns the Set-Cookie values of the session. If it is too large, it goes without the ID token, unless that
// is passed on.
func (s *Session) seal(now time.Time) ([]string, error) {
	l := s.login
	values := split(l.keys.seal(nil, s.encode(), l.additional(purposeSession, s.place)))
	if values == nil && s.hint != (packed{}) && !l.config.Passed.ID {
		lighter := s.record
		lighter.hint = packed{}
		values = split(l.keys.seal(nil, lighter.encode(), l.additional(purposeSession, s.place)))
	}
	if values == nil {
		return nil, refuse(SessionTooLarge, fmt.Errorf("%d bytes of claims and %d of tokens fit in no %d cookies: keep sessions in memory", len(s.claims), s.refresh.size()+s.access.size(), MaxParts))
	}
	return l.set(values, s.Expires().Sub(now)), nil
}

// Size returns the approximate size of the session in bytes.
func (s *Session) Size() int {
	return 512 + len(s.claims) + s.hint.size() + s.refresh.size() + s.access.size()
}

// Principal returns the person, as of the newest refresh. It must not be modified.
func (s *Session) Principal() *identity.Principal {
	if n := s.live.newest.Load(); n.generation > s.generation && n.login == s.login {
		return &n.principal
	}
	return &s.principal
}

// Login returns the name of the login.
func (s *Session) Login() string { return s.login.name }

// SID returns the session's name at the issuer; "" if it gave none.
func (s *Session) SID() string { return s.sid }

// Authentication returns how and when the person proved who they are, by the ID token of the sign-in: a refresh
// proves nothing new. It is without values if the issuer's configuration names another claim than it did then.
func (s *Session) Authentication() Authentication { return s.login.authentication(&s.record) }

func (l *Login) authentication(r *record) Authentication {
	a, claim := authenticationOf(r.acr, r.authTime), l.issuer.Contexts().Claim
	if a.Claim != claim {
		a.Claim, a.Values = claim, ""
	}
	return a
}

// Begun returns when the session began.
func (s *Session) Begun() time.Time { return time.Unix(s.begun, 0) }

// Expires returns the end of the absolute lifetime.
func (s *Session) Expires() time.Time { return time.Unix(s.login.until(&s.record), 0) }

// IdleExpires returns the end of the idle lifetime, which each use of the session puts off; never later
// than Expires.
func (s *Session) IdleExpires() time.Time {
	return time.Unix(min(s.idleUntil(), s.login.until(&s.record)), 0)
}
