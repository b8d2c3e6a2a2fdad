package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sallyport/proxy/setting"
)

// Answer is the request with which a browser returns from the issuer.
type Answer struct {
	Host   string     // as in [Attempt]
	Origin string     // likewise
	Query  string     // without "?"
	Cookie string     // the Cookie field
	Client netip.Addr // by which the browser is limited, such as the first of its /64
}

// Finished is a login that succeeded.
type Finished struct {
	Redirect          // to the page that was asked for, see [Login.ReturnURL]
	Session  *Session // nil if the login failed
}

// answer is the query of an answer.
type answer struct{ code, state, iss, fault string }

const maxAnswer = 16 << 10 // bytes of the query

func parseAnswer(query string) (*answer, error) {
	if len(query) > maxAnswer {
		return nil, errors.New("the answer is too long")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the answer is no query")
	}
	a := &answer{}
	for name, to := range map[string]*string{"code": &a.code, "state": &a.state, "iss": &a.iss, "error": &a.fault} {
		all := values[name]
		if len(all) > 1 {
			return nil, fmt.Errorf("%s stands twice in the answer", name)
		}
		if len(all) == 1 {
			*to = all[0]
		}
	}
	return a, nil
}

// Finish takes the answer of the issuer. With an error, Finished has the cookies that remove the
// attempt, the page that was asked for if that is known, and nothing else.
func (l *Login) Finish(ctx context.Context, from Answer) (Finished, error) {
	done := Finished{}
	a, err := parseAnswer(from.Query)
	if err != nil {
		return done, refuse(StateMismatch, err)
	}
	begun, name, err := l.find(a, &from)
	if name != "" {
		done.Cookies = []string{setCookie(name, "", "", 0)}
	}
	if err != nil {
		done.Location = l.pageIn(a.state, from.Host)
		return done, refuse(StateMismatch, err)
	}
	done.Location, _ = l.ReturnURL(begun.to)
	s, err := l.finish(ctx, a, begun, &from)
	if err != nil {
		return done, err
	}
	cookies, err := s.seal(l.memory.now())
	if err != nil {
		return done, err
	}
	if s.memory {
		l.state.keep(s, l.config.Sessions)
	} else {
		l.state.join(s)
	}
	done.Cookies = slices.Concat(done.Cookies, cookies, l.dropHostSession(from.Cookie))
	done.Session = s
	return done, nil
}

// These refuse answers that are late, see [Error.Late].
var (
	errGone = errors.New("the browser has no cookie of this attempt: another browser began it, it took too long, or it was finished before")
	errUsed = errors.New("the answer was used before")
)

// find returns the attempt to which an answer belongs, and the name of its cookie. The cookie proves
// that this browser began it, so that nobody is made to finish the login of somebody else.
func (l *Login) find(a *answer, from *Answer) (begun *attempt, name string, err error) {
	text, ours := strings.CutPrefix(a.state, l.name+".")
	text, _, _ = strings.Cut(text, ".") // see [Login.stateOf]
	state, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ours || err != nil || len(state) != stateSize || strings.ContainsAny(text, "\r\n") { // which the decoder skips
		return nil, "", errors.New("the state is not one of the login of this path")
	}
	wanted, value, count := attemptName+text[:tagSizeText], "", 0
	pairs(from.Cookie, func(n, v string, _, _ int) bool {
		if n == wanted {
			value = v
			count++
		}
		return true
	})
	switch count {
	case 0:
		return nil, "", errGone
	case 1:
	default:
		return nil, wanted, errTwice
	}
	if begun, err = l.openAttempt(from.Host, value); err != nil {
		return nil, wanted, fmt.Errorf("the cookie of the attempt: %w", err)
	}
	if subtle.ConstantTimeCompare(begun.state[:], state) != 1 {
		return nil, wanted, errors.New("the cookie is of another attempt")
	}
	if begun.origin != from.Origin {
		return nil, wanted, errors.New("the login began at another origin")
	}
	return begun, wanted, nil
}

// finish redeems the code of an answer and returns the session.
func (l *Login) finish(ctx context.Context, a *answer, begun *attempt, from *Answer) (*Session, error) {
	now := l.memory.now()
	if now.Unix()-begun.begun >= int64(attemptTime/time.Second) {
		return nil, refuse(AttemptExpired, fmt.Errorf("it began %d s ago", now.Unix()-begun.begun))
	}
	e, err := l.issuer.Endpoints(ctx)
	if err != nil {
		return nil, refuse(Unavailable, err)
	}
	// Whoever brings made-up codes, one after another, must not flood the issuer.
	if err := l.state.turns.take(ctx, from.Client, maxExchange); err != nil {
		return nil, refuse(Unavailable, fmt.Errorf("%d other logins are being finished: %w", maxExchange, err))
	}
	defer l.state.turns.leave()
	switch {
	case a.iss != "" && !l.issuer.Issues(a.iss):
		return nil, refuse(WrongIssuer, errors.New("iss of the answer is "+setting.Quoted(a.iss, 128)))
	case a.iss == "" && e.NamesIssuer:
		return nil, refuse(WrongIssuer, errors.New("the answer has no iss, and the discovery document says that it has one"))
	case !l.memory.use(begun.state, now):
		return nil, refuse(StateMismatch, errUsed)
	case a.fault == "server_error" || a.fault == "temporarily_unavailable":
		return nil, refuse(Unavailable, errors.New("the issuer says "+a.fault))
	case a.fault != "":
		return nil, refuse(Refused, errors.New("the issuer says "+setting.Quoted(a.fault, 64)))
	case a.code == "":
		return nil, refuse(Refused, errors.New("the answer has neither a code nor an error"))
	}
	ctx, client := l.client(ctx, e, from.Origin)
	t, err := client.Exchange(ctx, a.code, oauth2.VerifierOption(begun.verifier))
	if err != nil {
		return nil, l.exchangeError(err)
	}
	id, err := l.identify(ctx, t, begun.nonce)
	if err != nil {
		return nil, err
	}
	demanded := StepUp{ACR: l.config.ACR, MaxAge: l.config.MaxAge}.And(StepUp{ACR: begun.acr, MaxAge: time.Duration(begun.maxAge) * time.Second}) // the configuration may be newer
	if lacking := demanded.Lacking(id.authentication, now, l.issuer.Skew()); lacking != "" {
		return nil, refuse(WeakerThanAsked, errors.New(lacking))
	}
	r := record{memory: l.config.Memory, generation: 1, begun: l.state.begin(now.Unix()), seen: now.Unix(), issued: id.issued, expires: now.Add(l.config.Absolute).Unix()}
	_, _ = rand.Read(r.id[:]) // never fails
	r.issuer, r.subject, r.sid = id.issuer, id.subject, id.sid
	r.acr, r.authTime = id.authentication.text(), id.authentication.Time
	if err := r.noteTokens(t, now, l.passed()); err != nil {
		return nil, err
	}
	r.noteLife(id, now, l.passed())
	if err := l.claims(ctx, e, t, id, &r); err != nil {
		return nil, err
	}
	s, err := l.newSession(r, l.place(from.Host))
	if err != nil {
		return nil, refuse(BadTokens, err)
	}
	return s, nil
}
