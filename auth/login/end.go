package login

import (
	"context"
	"errors"
	"math"
	"net/url"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

const maxHint = 8 << 10 // bytes of an ID token in the URL of the issuer's sign-out

// endSession ends one session.
func (l *Login) endSession(s *Session) {
	s.live.gone.Store(true)
	l.state.end(end{endOfSession, string(s.id[:])}, l.memory.now().Unix(), math.MaxInt64)
}

// End ends a session, and returns where the browser goes: to the issuer, which ends its own session
// (OpenID Connect RP-Initiated Logout), or to the page that says so. s may be nil.
func (l *Login) End(ctx context.Context, s *Session, from Answer) Redirect {
	done := Redirect{Location: SignedOutPath, Cookies: l.clear(from.Cookie)}
	if s == nil {
		return done
	}
	l.endSession(s)
	e, err := l.issuer.Endpoints(ctx)
	if err != nil || e.EndSession == "" {
		return done
	}
	to, err := url.Parse(e.EndSession)
	if err != nil {
		return done
	}
	q := to.Query()
	q.Set("client_id", l.config.ClientID)
	q.Set("post_logout_redirect_uri", from.Origin+SignedOutPath)
	if hint := s.live.newest.Load().idToken(); hint != "" && len(hint) <= maxHint {
		q.Set("id_token_hint", hint)
	}
	to.RawQuery = q.Encode()
	done.Location = to.String()
	return done
}

// LoggedOut says whose sessions the issuer ended.
type LoggedOut struct {
	Login, Issuer, Subject, SID string
	ID                          string // jti of the logout token
}

// BackChannel verifies a logout token (OpenID Connect Back-Channel Logout) and ends the sessions with
// its sid or, without one, all sessions of its subject that were issued before.
func (l *Login) BackChannel(ctx context.Context, token string) (LoggedOut, error) {
	verifier, keys := l.verifier("logout+jwt", "JWT")
	t, err := verifier.VerifyLogout(ctx, token)
	if err != nil {
		return LoggedOut{}, keys.tokenError(BadLogoutToken, err)
	}
	out := LoggedOut{Login: l.name, Issuer: t.Issuer, Subject: t.Subject, SID: t.SessionID, ID: t.TokenID}
	return out, l.logOut(t)
}

func (l *Login) logOut(t *oidc.LogoutToken) error {
	now, issued := l.memory.now(), t.IssuedAt.Unix()
	switch {
	case !l.issuer.Issues(t.Issuer):
		return refuse(BadLogoutToken, errors.New("iss is not the issuer of the login"))
	case t.IssuedAt.IsZero() || issued <= 0:
		return refuse(BadLogoutToken, errors.New("iat is absent"))
	case t.IssuedAt.After(now.Add(l.issuer.Skew())):
		return refuse(BadLogoutToken, errors.New("it was issued in the future"))
	case strings.Contains(t.SessionID+t.Subject, "\x00"):
		return refuse(BadLogoutToken, errors.New("sid or sub has a NUL"))
	}
	e := end{endOfSID, named(t.Issuer, t.SessionID)}
	if t.SessionID == "" {
		e = end{endOfSubject, named(t.Issuer, t.Subject)}
	}
	l.state.end(e, now.Unix(), issued)
	return nil
}
