package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"sallyport/auth/login/endfile"
)

const (
	maxHint = 8 << 10 // bytes of an ID token in the URL of the issuer's sign-out

	purposeLeave = "leave"
	leaveName    = attemptName + "leaving"
	leaveTime    = time.Minute // from End to Leave
)

// endSession ends one session. After an [*Error] with [EndUnsaved] it has ended all the same. If the clock was set
// back since it began, it ends when it began: an end may become one of all sessions that began before it.
func (l *Login) endSession(s *Session) error {
	s.live.gone.Store(true)
	return unsaved(l.state.end(endfile.Line{
		Kind: endfile.Session, ID: s.ends[endfile.Session].ID, Of: s.ends[endfile.Subject].ID, At: max(l.memory.now().Unix(), s.begun), Until: s.issued,
	}))
}

// unsaved returns the refusal of an end that the file does not have.
func unsaved(err error) error {
	if err == nil {
		return nil
	}
	return refuse(EndUnsaved, err)
}

// End ends a session, and returns where the browser goes: to LeavePath, from where [Login.Leave] sends it
// to the issuer, which ends its own session (OpenID Connect RP-Initiated Logout), or to the page that says
// so. s may be nil. Its refresh token is revoked in the background.
//
// An [*Error] with [EndUnsaved] means that the session has ended, but that a restart could bring it back.
// The Redirect holds then too.
func (l *Login) End(ctx context.Context, s *Session, from Answer) (Redirect, error) {
	if s == nil {
		return Redirect{Location: SignedOutPath, Cookies: l.clear(from.Cookie)}, nil
	}
	s.live.left.Store(true)
	err := l.endSession(s)
	s.live.newest.Load().revoke()
	return l.leaving(ctx, s, from), err
}

// leaving returns where the browser goes whose session has just ended.
func (l *Login) leaving(ctx context.Context, s *Session, from Answer) Redirect {
	done := Redirect{Location: SignedOutPath, Cookies: l.clear(from.Cookie)}
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
	origin := from.Origin
	if at := l.config.SignInHost; at != "" {
		origin = "https://" + at + strings.TrimPrefix(origin, "https://"+from.Host)
	}
	q.Set("post_logout_redirect_uri", origin+SignedOutPath)
	if hint := s.live.newest.Load().idToken(); hint != "" && len(hint) <= maxHint {
		q.Set("id_token_hint", hint)
	}
	if strings.HasPrefix(s.issuer, "https://cognito-idp.") {
		q.Set("logout_uri", q.Get("post_logout_redirect_uri")) // Amazon's own name for it; it knows no other
	}
	to.RawQuery = q.Encode()
	key := rand.Text()
	w := writer{}
	w.number(l.memory.now().Add(leaveTime).Unix())
	w.text(key)
	w.text(to.String())
	sealed := l.keys.seal(nil, w.b, l.additional(purposeLeave, from.Host))
	done.Location = LeavePath + "?" + url.Values{"login": {l.name}, "to": {base64.RawURLEncoding.EncodeToString(sealed)}}.Encode()
	done.Cookies = append(done.Cookies, setCookie(leaveName, key, "", leaveTime))
	return done
}

// Leave takes the request for the location of [Login.End], and returns the issuer's page for sign-out. Its
// address has the ID token, which scripts of the application could read in an answer of ours. So it is
// sealed there, and opens once, for the browser with the cookie of the same answer.
func (l *Login) Leave(from Answer) Redirect {
	done := Redirect{Location: SignedOutPath, Cookies: []string{setCookie(leaveName, "", "", 0)}}
	q, err := url.ParseQuery(from.Query)
	if err != nil {
		return done
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(q.Get("to"))
	if err != nil {
		return done
	}
	b, err := l.keys.open(sealed, l.additional(purposeLeave, from.Host))
	if err != nil {
		return done
	}
	r := reader{s: string(b)}
	until, key, to := r.number(), r.text(), r.text()
	if r.end() != nil || l.memory.now().Unix() >= until {
		return done
	}
	pairs(from.Cookie, func(name, value string, _, _ int) bool {
		if name == leaveName && subtle.ConstantTimeCompare([]byte(value), []byte(key)) == 1 {
			done.Location = to
		}
		return true
	})
	return done
}

// LoggedOut says whose sessions the issuer ended.
type LoggedOut struct {
	Login, Issuer, Subject, SID string
	ID                          string // jti of the logout token
}

// BackChannel verifies a logout token (OpenID Connect Back-Channel Logout) and ends the sessions with
// its sid or, without one, all sessions of its subject that were issued before. Those of logins with the same
// client that a reload has dropped end too: another could bring them back. For the same reason it takes a token
// for a client that this login had before a reload, and ends the sessions of that. With [EndUnsaved] they have
// ended, but a restart could bring them back, so that the issuer should try again.
func (l *Login) BackChannel(ctx context.Context, token string) (LoggedOut, error) {
	verifier, keys := l.verifier("", "logout+jwt", "JWT") // logOut compares the audience
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
	e := endfile.Line{Kind: endfile.SID, ID: named(endfile.SID, t.Issuer, t.SessionID), At: now.Unix(), Until: issued}
	if t.SessionID == "" {
		e.Kind, e.ID = endfile.Subject, named(endfile.Subject, t.Issuer, t.Subject)
	}
	states := l.statesFor(t.Audience)
	if len(states) == 0 {
		return refuse(BadLogoutToken, errors.New("aud is not the client of the login, nor one that it had before"))
	}
	var err error
	for _, s := range states {
		err = errors.Join(err, s.end(e))
	}
	return unsaved(err)
}

// statesFor returns what logins of the clients in an audience share: the login's own, under all names that it
// had, and its earlier ones.
func (l *Login) statesFor(audience []string) (all []*state) {
	if slices.Contains(audience, l.config.ClientID) {
		all = l.memory.statesOf(l.config.ClientID)
	}
	for _, s := range l.memory.earlier(l) {
		if slices.Contains(audience, s.current.Load().config.ClientID) {
			all = append(all, s)
		}
	}
	return all
}

// EndEarlier ends the sessions in a Cookie field that the login gave while it had another client, before a reload.
// They prove nobody now, but would again if the client came back. It returns one of them; nil if there is none.
// An error is as that of [Login.End].
func (l *Login) EndEarlier(from Answer) (ended *Session, err error) {
	for _, earlier := range l.memory.earlier(l) {
		old := earlier.current.Load()
		c, found, twice := old.ReadCookie(from.Cookie)
		if !found {
			continue
		}
		all := []Cookie{c}
		if twice != nil {
			all = old.Readings(from.Cookie)
		}
		for i := range all {
			s, refused := old.Open(from.Host, &all[i])
			if refused != nil || old.state.hasEnded(&s.record) {
				continue
			}
			s.live.left.Store(true)
			err = errors.Join(err, old.endSession(s))
			s.live.newest.Load().revoke()
			ended = s
		}
	}
	return ended, err
}
