package login

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/oauth2"

	"sallyport/proxy/message"
)

// Tokens are tokens of the issuer, as servers behind the gateway get them.
type Tokens struct{ Access, ID string }

// Passed says which of a person's tokens servers behind the gateway get. The zero value is none.
type Passed struct{ Access, ID bool }

// And returns both together.
func (p Passed) And(o Passed) Passed { return Passed{p.Access || o.Access, p.ID || o.ID} }

// Bearer returns the tokens of a caller with a bearer token, which stands for both.
func (p Passed) Bearer(token string) (t Tokens) {
	if p.Access {
		t.Access = token
	}
	if p.ID {
		t.ID = token
	}
	return t
}

// passed returns what the configuration in use passes on. A refresh may begin under an older one.
func (l *Login) passed() Passed {
	if now := l.state.current.Load(); now != nil {
		l = now
	}
	return l.config.Passed
}

// awaitAgain is how soon after a failed refresh a request for which a token has to be refreshed starts the
// next one.
const awaitAgain = 5 * time.Second

// hasJustTried reports whether a refresh so short ago brought no valid token, or ended the session, that a request
// starts none.
func (v *live) hasJustTried(now time.Time) bool {
	return v.gone.Load() || now.Unix() < v.retry.Load()-int64((retryAfter-awaitAgain)/time.Second)
}

// refreshing is a refresh that runs.
type refreshing struct{ done chan struct{} }

// claim returns the refresh that the caller has to run and to end; nil if one runs.
func (v *live) claim() *refreshing {
	r := &refreshing{make(chan struct{})}
	if !v.refreshing.CompareAndSwap(nil, r) {
		return nil
	}
	return r
}

// release ends a refresh, and wakes those who wait for it.
func (v *live) release(r *refreshing) {
	v.refreshing.Store(nil)
	close(r.done)
}

// Tokens returns the person's tokens for a request that begins now. One that is passed on and has ended, or
// that the session lacks, is refreshed first. The error is [Unavailable] if the issuer does not do that, and
// [SessionExpired] if there is no refresh token, or none that brings it: a token that has ended is never
// returned.
func (s *Session) Tokens(ctx context.Context, host string, of Passed) (t Tokens, err error) {
	now := s.login.memory.now()
	n, err := s.check(host, now, false)
	if err != nil {
		return t, err
	}
	if n.lacks(of, now.Unix()) != "" {
		n.awaitRefresh(ctx, now)
		now = s.login.memory.now()
		if n, err = s.check(host, now, false); err != nil {
			return t, err
		}
	}
	if lacking := n.lacks(of, now.Unix()); lacking != "" {
		return t, n.withoutToken(ctx, lacking)
	}
	if of.Access {
		t.Access = n.access.text()
	}
	if of.ID {
		t.ID = n.idToken()
	}
	return t, nil
}

// lacks returns which of the tokens the session has not, or not any more; "" if it has them.
func (s *Session) lacks(of Passed, at int64) string {
	switch {
	case of.Access && (s.access == (packed{}) || s.accessUntil != 0 && at >= sendable(s.accessFrom, s.accessUntil)):
		return "access token"
	case of.ID && (s.hint == (packed{}) || at >= sendable(s.idFrom, s.idUntil)):
		return "ID token"
	}
	return ""
}

// sendable returns until when a token is sent on. It has to live for a moment longer, since the server checks it
// later and by another clock.
func sendable(from, until int64) int64 { return until - min((until-from)/10, 5) }

// awaitRefresh waits for a refresh of the session, which it starts unless one runs, has just failed, or is
// impossible. The refresh goes on when the request ends.
func (s *Session) awaitRefresh(ctx context.Context, now time.Time) {
	v, m := s.live, s.login.memory
	if s.refresh == (packed{}) || v.hasJustTried(now) {
		return
	}
	for {
		r := v.refreshing.Load()
		if r == nil {
			if r = v.claim(); r == nil {
				continue
			}
			if !m.Go(func(life context.Context) {
				defer v.release(r)
				if !v.hasJustTried(now) { // as another request has, before this one's turn
					s.refreshInTurn(life)
				}
			}) {
				v.failed.Store(refuse(Unavailable, errors.New("the gateway stops")))
				v.release(r)
				return
			}
		}
		select {
		case <-r.done:
		case <-ctx.Done():
		}
		return
	}
}

// refreshInTurn refreshes the session, once fewer than [maxRefresh] refreshes of the login run.
func (s *Session) refreshInTurn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, refreshTime)
	defer cancel()
	slots := s.login.state.slots
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		s.refreshNow(ctx)
	case <-ctx.Done():
		s.live.failed.Store(refuse(Unavailable, fmt.Errorf("%d other sessions are being refreshed", maxRefresh)))
	}
}

// withoutToken returns the refusal of a request whose session has a token to pass on no more.
func (s *Session) withoutToken(ctx context.Context, lacking string) error {
	why := "it has no " + lacking + " to pass on that is still valid, and "
	failed := s.live.failed.Load()
	switch {
	case s.refresh == (packed{}):
		return s.refuse(SessionExpired, errors.New(why+"no refresh token (offline_access among the scopes of the login asks for one)"))
	case ctx.Err() != nil:
		return s.refuse(Unavailable, errors.New(why+"the request ended before the refresh"))
	case failed != nil:
		return s.refuse(Unavailable, fmt.Errorf("%sits refresh failed: %w", why, failed.Err))
	}
	return s.refuse(SessionExpired, errors.New(why+"its refresh brought none"))
}

// noteTokens stores the refresh token of an answer and the life of its access token; and that token itself if
// it is passed on.
func (r *record) noteTokens(t *oauth2.Token, now time.Time, of Passed) error {
	r.refresh, r.access, r.accessFrom, r.accessUntil = pack(t.RefreshToken), packed{}, 0, 0
	if t.ExpiresIn > 0 {
		r.accessFrom, r.accessUntil = now.Unix(), now.Unix()+min(t.ExpiresIn, int64(MaxAbsolute/time.Second))
	}
	switch {
	case !of.Access:
	case len(t.AccessToken) > message.MaxToken:
		return refuse(BadTokens, fmt.Errorf("the access token has %d bytes, and servers get no more than %d: let the issuer put less into it, or leave identity.access_token out", len(t.AccessToken), message.MaxToken))
	case !message.ValidToken(t.AccessToken):
		return refuse(BadTokens, errors.New("the access token has characters that no field can carry to a server"))
	default:
		r.access = pack(t.AccessToken)
	}
	return nil
}

// noteLife stores the life of an ID token that is passed on, by our clock. Without a new one, that of the former
// counts.
func (r *record) noteLife(id *identification, now time.Time, of Passed) {
	switch {
	case !of.ID:
		r.idFrom, r.idUntil = 0, 0
	case id != nil:
		r.idFrom, r.idUntil = now.Unix(), now.Unix()+min(max(id.expires-id.issued, 1), int64(MaxAbsolute/time.Second))
	}
}

// dropTokens forgets what was kept for servers alone, and is not passed on any more.
func (r *record) dropTokens(of Passed) {
	if !of.Access {
		r.access = packed{}
	}
	if !of.ID {
		r.idFrom, r.idUntil = 0, 0
	}
}
