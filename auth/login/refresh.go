package login

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

const (
	refreshTime = 20 * time.Second // for all fetches of a refresh
	retryAfter  = 30 * time.Second // after a failed refresh
)

// refreshIfDue starts a refresh in the background when less than a third of the access token's life is
// left, or of the ID token's if that is passed on. One refresh runs for each session. at is in seconds since
// 1970.
func (s *Session) refreshIfDue(at int64) {
	if !s.refreshDue(at) || s.live.refreshing.Load() != nil {
		return
	}
	s.login.memory.start(s.login.state.slots, func(life context.Context) {
		r := s.live.claim()
		if r == nil {
			return
		}
		defer s.live.release(r)
		if s.live.newest.Load().refreshDue(s.login.memory.now().Unix()) { // else that of another request has just ended
			s.refreshNow(life)
		}
	})
}

func (s *Session) refreshDue(at int64) bool {
	if s.refresh == (packed{}) || at < s.live.retry.Load() || s.live.gone.Load() {
		return false
	}
	of := s.login.config.Passed
	return s.accessUntil != 0 && at >= dueAt(s.accessFrom, s.accessUntil) || of.ID && at >= dueAt(s.idFrom, s.idUntil) || s.lacks(of, at) != ""
}

// dueAt returns when a token is to be refreshed.
func dueAt(from, until int64) int64 { return until - (until-from)/3 }

// refreshNow refreshes the session. Until its own lifetime ends, a session serves while the issuer does
// not answer. It ends if the issuer refuses.
func (s *Session) refreshNow(ctx context.Context) {
	v, l := s.live, s.login
	now := l.memory.now()
	if n := v.newest.Load(); n.generation > s.generation && !n.refreshDue(now.Unix()) {
		return // another refresh has just ended
	} else if n.generation > s.generation {
		s = n
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTime)
	defer cancel()
	next, err := s.refreshed(ctx, now)
	var refused *Error
	if errors.As(err, &refused) && refused.Reason != Unavailable {
		l.memory.onEnd(Ended{l.name, s.principal.String(), s.principal.ID, s.sid, fmt.Errorf("at its refresh: %w", err)})
		if err := l.endSession(s); err != nil {
			l.memory.log.Error("the end of a session is not on disk", "login", l.name, "session", s.principal.ID, "cause", err)
		}
		return
	}
	v.failed.Store(refused)
	if err != nil {
		v.retry.Store(now.Add(retryAfter).Unix())
		l.memory.log.Warn("session not refreshed", "login", l.name, "principal", s.principal.String(), "session", s.principal.ID, "cause", err)
	}
	if next == nil {
		return
	}
	for {
		n := v.newest.Load()
		fresh := &Session{record: next.record, login: next.login, place: next.place, principal: next.principal, live: v}
		fresh.generation, fresh.seen = max(n.generation, next.generation)+1, max(n.seen, next.seen)
		if v.newest.CompareAndSwap(n, fresh) {
			if v.left.Load() { // meanwhile, with the token before this one
				fresh.revoke()
			}
			if fresh.refreshDue(now.Unix()) { // the issuer gives none that lives longer
				v.retry.Store(now.Add(retryAfter).Unix())
			}
			return
		}
	}
}

// ends reports whether an error code of a token endpoint says that the person must sign in again. A code
// about the client, or about the issuer itself, says nothing about the person. Dex says invalid_request
// about a refresh token that it has withdrawn.
func ends(code string) bool {
	switch code {
	case "", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
		"server_error", "temporarily_unavailable", "slow_down":
		return false
	}
	return true
}

// refreshed returns the session with new tokens. Both results mean that the tokens are new, so that they
// must be kept, and the claims are not.
func (s *Session) refreshed(ctx context.Context, now time.Time) (*Session, error) {
	l := s.login
	e, err := l.issuer.Endpoints(ctx)
	if err != nil {
		return nil, refuse(Unavailable, err)
	}
	ctx, client := l.client(ctx, e, "")
	t, err := client.TokenSource(ctx, &oauth2.Token{RefreshToken: s.refresh.text()}).Token()
	if code := faultOf(err); ends(code) {
		return nil, refuse(SessionEnded, errors.New("the token endpoint says "+shownCode(code)))
	} else if err != nil {
		return nil, l.exchangeError(err)
	}
	r := s.record
	if err := r.noteTokens(t, now, l.passed()); err != nil {
		return nil, err
	}
	kept := r
	failure := s.loginNow().refreshClaims(ctx, e, t, &r) // a reload may have closed the configuration meanwhile
	var refused *Error
	if late := (untimely{}); errors.As(failure, &late) { // the issuer itself has just refreshed the session
		failure = refuse(Unavailable, late)
	}
	switch {
	case errors.As(failure, &refused) && refused.Reason != Unavailable:
		return nil, failure
	case failure != nil:
		r = kept
	}
	next, err := l.newSession(r, s.place)
	if err != nil {
		return nil, refuse(BadTokens, err)
	}
	return next, failure
}

// sameIssuer reports whether two names, both of the login's issuer, are the same. Google's may lack the
// scheme.
func sameIssuer(a, b string) bool {
	return strings.TrimPrefix(a, "https://") == strings.TrimPrefix(b, "https://")
}

// refreshClaims stores the claims of refreshed tokens in a record. An answer to a refresh need not have
// an ID token.
func (l *Login) refreshClaims(ctx context.Context, e *Endpoints, t *oauth2.Token, r *record) error {
	var id *identification
	if raw, _ := t.Extra("id_token").(string); raw != "" {
		var err error
		if id, err = l.identify(ctx, t, ""); err != nil {
			return err
		}
		if id.subject != r.subject || !sameIssuer(id.issuer, r.issuer) {
			return refuse(BadTokens, errors.New("the refreshed ID token is of another person"))
		}
	}
	r.noteLife(id, l.memory.now(), l.passed())
	return l.claims(ctx, e, t, id, r)
}
