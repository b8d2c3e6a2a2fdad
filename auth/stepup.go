package auth

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"sallyport/auth/identity"
	"sallyport/auth/login"
)

// StepUp is the demand of a route, of which package login holds people to the same form.
type StepUp = login.StepUp

// checkStepUp returns why no chain can hold its callers to the demand for an authentication: some could
// prove themselves by a credential that says nothing about one.
func (d *Demand) checkStepUp() error {
	if d.StepUp == nil {
		return nil
	}
	telling, other := 0, ""
	for _, caller := range d.Callers {
		if TellsAuthentication(caller) {
			telling++
		} else {
			other = caller
		}
	}
	if telling == 0 || other != "" && !d.All {
		return fmt.Errorf("step-up is for tokens and sessions: credentials of caller %q do not say how it was authenticated", other)
	}
	return nil
}

// TellsAuthentication reports whether the credentials of a caller, in the form of [Demand.Callers], say
// how and when their owner was authenticated, by the claims acr and auth_time.
func TellsAuthentication(caller string) bool {
	return strings.HasPrefix(caller, "issuer/") || strings.HasPrefix(caller, "login/")
}

// stepUp is what a route demands of the authentication of its callers. Nil demands nothing.
type stepUp struct {
	*login.StepUp
	acr login.StepUp // the same without the age, for requests in flight: those were admitted in time
}

func newStepUp(d *Demand) *stepUp {
	if d.StepUp == nil {
		return nil
	}
	return &stepUp{d.StepUp, login.StepUp{ACR: d.StepUp.ACR}}
}

// now returns what is demanded of a request.
func (s *stepUp) now(inFlight bool) *login.StepUp {
	if inFlight {
		return &s.acr
	}
	return s.StepUp
}

// checkStepUp refuses a token whose owner was not authenticated as the route demands.
func (b *bearer) checkStepUp(e *verified, inFlight bool) error {
	lacking := b.stepUp.now(inFlight).Lacking(e.acr, e.authTime, b.memory.now(), time.Duration(e.skew)*time.Second)
	if lacking == "" {
		return nil
	}
	return &Error{Reason: StepUpNeeded, Issuer: e.principal.Source[len("issuer/"):], KeyID: e.principal.KeyID, Err: ofToken(lacking, e.principal.Claim)}
}

// checkStepUp refuses a session that did not begin as the route demands.
func (s *sessions) checkStepUp(session *login.Session, caller *identity.Principal, now time.Time, inFlight bool) error {
	lacking := session.Lacking(s.stepUp.now(inFlight), now)
	if lacking == "" {
		return nil
	}
	return &Error{Reason: StepUpNeeded, Err: weakSession{errors.New("the session of " + caller.String() + ": " + lacking)}}
}

// weakSession is the cause if a session does not satisfy the demand of a route.
type weakSession struct{ error }

// OfWeakSession reports whether the error means that the person must prove themselves to the issuer
// again, and that nothing else is wrong.
func (e *Error) OfWeakSession() bool {
	var weak weakSession
	return errors.As(e.Err, &weak)
}

// challenge returns a challenge of RFC 9470, section 3.
func (s *stepUp) challenge(realm string, e *Error) string {
	v := "Bearer realm=" + quoted(realm) + `, error="insufficient_user_authentication", error_description=` + quoted(e.Text())
	if len(s.ACR) > 0 {
		v += ", acr_values=" + quoted(strings.Join(s.ACR, " "))
	}
	if s.MaxAge > 0 {
		v += ", max_age=" + quoted(strconv.FormatInt(int64(s.MaxAge/time.Second), 10))
	}
	return v
}

// AuthenticationOf returns the claims acr and auth_time of a principal, "" and 0 if it has none.
func AuthenticationOf(p *identity.Principal) (acr string, authTime int64) {
	if p.Claim == nil {
		return "", 0
	}
	if values := p.Claim("acr"); len(values) == 1 {
		acr = values[0]
	}
	if values := p.Claim("auth_time"); len(values) == 1 {
		authTime, _ = (&claim{values: values, kind: number}).date(math.Floor)
	}
	return acr, authTime
}
