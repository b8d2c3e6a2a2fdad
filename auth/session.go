package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/auth/identity"
	"sallyport/auth/login"
	"sallyport/proxy/setting"
)

// sessionCache identifies the sessions of one active Auth in the cache of tokens. Another Auth opens
// the cookies again, because its logins may be configured otherwise.
type sessionCache struct {
	number uint64
	key    *key // verified.key of all of them
}

// dropSessions removes the cached sessions when the Auth is closed. Sessions themselves last.
func (a *Auth) dropSessions() {
	if c := a.sessions.Swap(nil); c != nil {
		c.key.withdrawn.Store(true)
		a.memory.tokens.dropWithdrawn()
	}
}

// newLogin returns the login of one entry of the configuration.
func (a *Auth) newLogin(name string, c login.Config) (*login.Login, error) {
	iss := a.issuers[c.Issuer]
	if iss == nil {
		return nil, fmt.Errorf("there is no issuer %s", setting.Quoted(c.Issuer, shownName))
	}
	return login.New(name, c, newLoginIssuer(iss, a.memory), a.memory.logins)
}

// Login returns the login with this name, nil if there is none.
func (a *Auth) Login(name string) *login.Login { return a.logins[name] }

// sessions checks the sessions of the logins that a route lists.
type sessions struct {
	auth   *Auth
	logins []*login.Login
	stepUp *stepUp // nil: none is demanded
	passed login.Passed
}

// newSessions makes the authenticator for callers that are all "login/NAME".
func (a *Auth) newSessions(callers []string, d *Demand) (Authenticator, error) {
	s := &sessions{auth: a, stepUp: newStepUp(d), passed: d.Passed}
	for _, caller := range callers {
		l := a.logins[strings.TrimPrefix(caller, "login/")]
		if l == nil {
			return nil, fmt.Errorf("unknown caller %q", caller)
		}
		s.logins = append(s.logins, l)
	}
	return s, nil
}

// Logins returns the names of the logins that the chain accepts, in the order of the route.
func (c *Chain) Logins() (names []string) {
	if c == nil {
		return nil
	}
	for i := range c.kinds {
		if s, ok := c.kinds[i].Authenticator.(*sessions); ok {
			for _, l := range s.logins {
				names = append(names, l.Name())
			}
		}
	}
	return names
}

// Traits implements [Authenticator].
func (s *sessions) Traits() Traits { return Traits{Missing: NoCredential, Ambient: true} }

// Challenge implements [Authenticator]. No scheme is registered for cookies; this one is of a draft
// (draft-broyer-http-cookie-auth) and says where a person signs in.
func (s *sessions) Challenge(realm string, _ *Error) string {
	return "Cookie realm=" + quoted(realm) + ", form-action=" + quoted(login.SignInPath) + ", cookie-name=" + quoted(s.logins[0].CookieName())
}

// Authenticate implements [Authenticator].
func (s *sessions) Authenticate(ctx context.Context, r *Request) (Proof, error) {
	return s.prove(ctx, r, false)
}

// Recheck implements [Authenticator]: the request in flight counts as use of its session.
func (s *sessions) Recheck(ctx context.Context, r *Request, _ Proof) (Proof, error) {
	return s.prove(ctx, r, true)
}

// prove returns whom the session of a request proves. Of several logins, the one that sealed it counts.
func (s *sessions) prove(ctx context.Context, r *Request, inFlight bool) (Proof, error) {
	field := r.Head.Fields.Get("cookie")
	if field == "" {
		return Proof{}, ErrNoCredential
	}
	now := s.auth.memory.now()
	var refused *login.Error
	for _, l := range s.logins {
		c, found, err := l.ReadCookie(field)
		if !found {
			continue
		}
		var used use
		var several []login.Cookie
		if err == nil {
			used, err = s.use(l, r, &c, now, inFlight)
		} else if several = l.Readings(field); several != nil {
			used, err = s.useOne(r, several, now, inFlight)
		}
		if err == nil {
			return s.proof(ctx, r, used, now, inFlight)
		}
		if e, ok := errors.AsType[*login.Error](err); ok && (refused == nil || refused.Reason == login.BadSession) {
			refused = e
		}
		if several != nil {
			break // the other logins of the host have the same cookies
		}
	}
	if refused == nil {
		return Proof{}, ErrNoCredential
	}
	return Proof{}, ofSession(refused)
}

// ofSession returns the refusal of a session as one of this package.
func ofSession(refused *login.Error) *Error {
	if refused.Reason == login.Unavailable {
		return &Error{Reason: IssuerUnavailable, Err: sessionCause{refused}}
	}
	return &Error{Reason: refused.Reason, Err: sessionCause{refused}}
}

// use is a session that serves a request, and whom it proves.
type use struct {
	session *login.Session
	caller  *identity.Principal
}

// use returns the session of a cookie, if it serves a request.
func (s *sessions) use(l *login.Login, r *Request, c *login.Cookie, now time.Time, inFlight bool) (use, error) {
	session, err := s.open(l, r.Head.Host, c)
	if err != nil {
		return use{}, err
	}
	serve := session.Use
	if r.Look {
		serve = session.Look
	}
	caller, err := serve(r.Head.Host, now, inFlight)
	return use{session, caller}, err
}

// useOne returns the one good session among several readings of a Cookie field, of any login. Cookies that
// another host of the domain made up therefore lock nobody out. If several sessions are good, the gateway
// cannot tell which is the person's own, and ends all: a foreign one would outlast each new sign-in.
func (s *sessions) useOne(r *Request, several []login.Cookie, now time.Time, inFlight bool) (use, error) {
	var good []use
	var refused error
	for _, l := range s.logins {
		for i := range several {
			one, err := s.use(l, r, &several[i], now, inFlight)
			same := func(u use) bool { return u.caller.ID == one.caller.ID }
			var e *login.Error
			switch {
			case err != nil && errors.As(refused, &e) && e.Reason != login.BadSession: // says more
			case err != nil:
				refused = err
			case !slices.ContainsFunc(good, same):
				good = append(good, one)
			}
		}
	}
	switch len(good) {
	case 0:
		return use{}, refused
	case 1: // unless another request with several has just ended it
		_, err := good[0].session.Look(r.Head.Host, now, inFlight)
		return good[0], err
	}
	all := make([]*login.Session, len(good))
	for i := range good {
		all[i] = good[i].session
	}
	login.Discard(all...)
	return use{}, all[0].Beside(all[1])
}

// proof returns the proof that a session is, unless it does not satisfy the step-up of the route, or has not
// the tokens that the route passes on. The latter is asked of requests alone that begin now.
func (s *sessions) proof(ctx context.Context, r *Request, u use, now time.Time, inFlight bool) (Proof, error) {
	p := Proof{Caller: *u.caller, Field: "cookie", Revocable: true, Session: u.session}
	if s.stepUp != nil {
		if weak := s.checkStepUp(u.session, u.caller, now, inFlight); weak != nil {
			return Proof{}, weak
		}
		p.Authentication = u.session.Authentication()
	}
	if s.passed == (login.Passed{}) || inFlight {
		return p, nil
	}
	var err error
	if p.Tokens, err = u.session.Tokens(ctx, r.Head.Host, s.passed); err != nil {
		if e, ok := errors.AsType[*login.Error](err); ok {
			return Proof{}, ofSession(e)
		}
		return Proof{}, err
	}
	p.Caller = *u.session.Principal() // as of the refresh that may have brought the tokens
	return p, nil
}

// sessionCause is the cause of a refused session, without the reason, which the [Error] has.
type sessionCause struct{ refused *login.Error }

// Error returns the cause.
func (c sessionCause) Error() string { return c.refused.Err.Error() }

// Unwrap returns the error of package login.
func (c sessionCause) Unwrap() error { return c.refused }

// errOtherLogin refuses a cookie that another login is known to have sealed, without trying its keys.
var errOtherLogin = &login.Error{Reason: login.BadSession, Err: errors.New("it is of another login")}

// open returns the session of a cookie, from the cache if it was opened before.
func (s *sessions) open(l *login.Login, host string, c *login.Cookie) (*login.Session, error) {
	tokens, cache := s.auth.memory.tokens, s.auth.sessions.Load()
	if cache == nil {
		return l.Open(host, c)
	}
	var hash uint64
	for _, part := range c.Parts() {
		hash = hash*31 + tokens.hash(part)
	}
	if e := tokens.find(cache.number, hash); e != nil && c.Matches(e.raw, equal) {
		if e.session.Login() != l.Name() {
			return nil, errOtherLogin
		}
		return e.session, nil
	}
	session, err := l.Open(host, c)
	if err != nil {
		return nil, err
	}
	tokens.put(&verified{
		issuer: cache.number, hash: hash, raw: strings.Clone(c.Text()), key: cache.key, session: session,
		notAfter: session.Expires().Unix(), size: int32(entryOverhead + session.Size()),
	})
	return session, nil
}

// BackChannel takes a logout token, for all logins at the issuer that signed it. Failed checks count
// against the address of the request's client, apart from those of other tokens: an issuer may have the
// address of its users, and few send a logout token again. The error is an [*login.Error], or an [*Error] with
// [TooManyFailures]. If one of the logins cannot store the end, that is the error.
func (a *Auth) BackChannel(ctx context.Context, r *Request, raw string) (login.LoggedOut, error) {
	t := tokenPool.Get().(*token)
	defer t.release()
	if err := t.parse(raw); err != nil {
		return login.LoggedOut{}, &login.Error{Reason: login.BadLogoutToken, Err: err}
	}
	now := a.memory.now()
	if !a.memory.logouts.left(r.Peer, now) {
		return login.LoggedOut{}, tooManyFailures(a.memory.logouts, r.Peer)
	}
	var out login.LoggedOut
	refused := error(&login.Error{Reason: login.BadLogoutToken, Err: errors.New("its issuer is that of no login")})
	done, forged, unsaved := false, false, false
	for _, name := range slices.Sorted(maps.Keys(a.logins)) {
		l := a.logins[name]
		if !a.issuers[l.Issuer()].issues(t.registered.iss) {
			continue
		}
		one, err := l.BackChannel(ctx, raw)
		if err == nil {
			out, done = one, true
			continue
		}
		if !unsaved {
			refused = err
		}
		var e *login.Error
		if errors.As(err, &e) {
			forged, unsaved = forged || e.Reason == login.BadLogoutToken, unsaved || e.Reason == login.EndUnsaved
		}
	}
	if done && !unsaved {
		return out, nil
	}
	if forged && !unsaved {
		a.memory.logouts.charge(r.Peer, now)
	}
	return login.LoggedOut{}, refused
}
