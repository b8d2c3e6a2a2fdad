package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"sallyport/auth/fetch"
	"sallyport/auth/login/endfile"
)

const (
	maxRevoke   = 1024             // refresh tokens of one login that wait to be revoked
	maxRevokeOf = 32               // of them, of one subject
	maxRevoking = 32               // requests for that which run at once
	revokeTime  = 20 * time.Second // for all that one revocation fetches
	revokeTries = 2
	revokePause = time.Second
)

// revoke revokes the refresh token of a session that its person has ended (RFC 7009), in the background.
// It does nothing where the issuer has no revocation endpoint, as Entra ID.
//
// It waits for the browser to get to the issuer's own sign-out, if there is one. A revocation ends Keycloak's
// session (TokenRevocationEndpoint), and its sign-out would then find none to tell other hosts of.
//
// The issuer's own sign-out does not make a revocation needless. The browser may not get there, and the issuer
// may have none, as Google. At Okta the refresh token outlives it ("Using the /logout Endpoint and Revoking
// User Tokens"). After it Keycloak 26.7 answers 200 with invalid_token, and nothing else happens.
//
// Issuers differ in what else ends. RFC 7009, section 2.1, lets them end all tokens of the grant. Keycloak
// 26.7 ends the one session; in earlier versions revokeClient in the same class ends the consent, and all
// sessions of the person with this client, in other browsers too. Auth0 ends the refresh token, and the grant
// if the tenant says so. Hence [Config].KeepTokens.
func (s *Session) revoke() {
	if s.refresh == (packed{}) || s.login.config.KeepTokens {
		return
	}
	state, subject := s.login.state, s.ends[endfile.Subject].ID
	if !state.queueRevoke(subject) {
		s.unrevoked(fmt.Errorf("%d others of this person wait", maxRevokeOf))
		return
	}
	if !s.login.memory.start(state.revokes, func(life context.Context) {
		defer state.leaveRevoke(subject)
		s.revokeLater(life)
	}) {
		state.leaveRevoke(subject)
		s.unrevoked(fmt.Errorf("%d others wait, or the gateway stops", maxRevoke))
	}
}

// queueRevoke gives a subject a place among the tokens that wait to be revoked. It reports false if the subject
// has too many, so that nobody takes the places of others by signing in and out over and over.
func (s *state) queueRevoke(subject endfile.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[subject] >= maxRevokeOf {
		return false
	}
	s.waiting[subject]++
	return true
}

// leaveRevoke gives the place back.
func (s *state) leaveRevoke(subject endfile.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[subject]--; s.waiting[subject] == 0 {
		delete(s.waiting, subject)
	}
}

// unrevoked notes that the refresh token was not revoked.
func (s *Session) unrevoked(cause error) {
	s.login.memory.unrevoked.Add(1)
	s.login.memory.log.Warn("the refresh token of a session that has ended was not revoked at the issuer, where it lasts until it expires",
		"login", s.login.name, "principal", s.principal.String(), "session", s.principal.ID, "cause", cause)
}

// Unrevoked returns how many refresh tokens could not be revoked.
func (m *Memory) Unrevoked() uint64 { return m.unrevoked.Load() }

// revokeLater revokes the refresh token once the issuer's own sign-out is over.
func (s *Session) revokeLater(life context.Context) {
	ctx, cancel := context.WithTimeout(life, revokeTime)
	e, err := s.login.issuer.Endpoints(ctx)
	cancel()
	switch {
	case err != nil:
		s.unrevoked(err)
		return
	case e.Revocation == "":
		return
	case e.EndSession != "":
		err = wait(life, s.login.memory.leaving)
	}
	turns := s.login.state.revoking
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-life.Done():
		err = errStopped
	}
	if err != nil {
		s.unrevoked(err)
		return
	}
	s.revokeNow(life)
}

var errStopped = errors.New("the gateway stops")

// wait waits for d, or until the gateway stops.
func wait(life context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-life.Done():
		return errStopped
	}
}

// revokeNow revokes the refresh token, unless the configuration no longer wants that: it, and with it the
// client's secret, may be newer than the session. It tries again if that may help.
func (s *Session) revokeNow(life context.Context) {
	l := s.loginNow()
	if l.config.KeepTokens {
		return
	}
	ctx, cancel := context.WithTimeout(life, revokeTime)
	defer cancel()
	e, err := l.issuer.Endpoints(ctx)
	if err == nil && e.Revocation == "" {
		return
	}
	for try := 0; err == nil; try++ {
		if err = l.askToRevoke(ctx, e.Revocation, s.refresh.text()); err == nil {
			return
		}
		if try+1 == revokeTries || !worthRetrying(err) {
			break
		}
		if wait(ctx, revokePause) == nil {
			err = nil
		}
	}
	s.unrevoked(err)
}

// worthRetrying reports whether another try may succeed: the issuer did not answer, or says that it
// cannot just now (RFC 7009, section 2.2.1).
func worthRetrying(err error) bool {
	var failed *fetch.Error
	if !errors.As(err, &failed) {
		return false
	}
	return failed.Kind == fetch.Unreachable || failed.Status >= http.StatusInternalServerError || failed.Status == http.StatusTooManyRequests
}

// askToRevoke asks the issuer once. Errors contain no token.
func (l *Login) askToRevoke(ctx context.Context, address, token string) error {
	c := &l.config
	form := fetch.Form{Accept: "application/json", Values: url.Values{"token": {token}, "token_type_hint": {"refresh_token"}}}
	switch {
	case c.ClientSecret == "":
		form.Values.Set("client_id", c.ClientID)
	case c.ClientAuth == ClientAuthPost:
		form.Values.Set("client_id", c.ClientID)
		form.Values.Set("client_secret", c.ClientSecret)
	default:
		form.User, form.Password = url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret)
	}
	_, err := l.issuer.Client().Post(ctx, address, &form)
	return err
}
