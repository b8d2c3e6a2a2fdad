package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sallyport/auth/identity"
	"sallyport/auth/login"
)

// StepUp is the demand of a route, of which package login holds people to the same form.
type StepUp = login.StepUp

// Authentication is how and when somebody was authenticated.
type Authentication = login.Authentication

// ClaimACR is the claim that tells how, unless the issuer's configuration names another.
const ClaimACR = login.ClaimACR

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
// how and when their owner was authenticated, by the claim acr, or the one that the
// issuer's configuration names, and auth_time.
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
	lacking := b.stepUp.now(inFlight).Lacking(e.by, b.memory.now(), time.Duration(e.skew)*time.Second)
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

// challenge returns the challenges for a caller who was not authenticated as demanded. The last is that of RFC
// 9470, section 3, with the words by which the issuer is asked. If it is asked by the parameter claims, another
// stands before it, which clients of Entra ID read.
func (s *stepUp) challenge(realm string, by *login.Contexts, e *Error) string {
	v := "Bearer realm=" + quoted(realm) + `, error="insufficient_user_authentication", error_description=` + quoted(e.Text())
	if len(s.ACR) > 0 {
		v += ", acr_values=" + quoted(strings.Join(by.Asked(s.ACR), " "))
	}
	if s.MaxAge > 0 {
		v += ", max_age=" + quoted(strconv.FormatInt(int64(s.MaxAge/time.Second), 10))
	}
	if by.ByClaims && len(s.ACR) > 0 {
		claims := base64.StdEncoding.EncodeToString([]byte(by.Request("access_token", s.ACR)))
		v = "Bearer realm=" + quoted(realm) + `, error="insufficient_claims", claims=` + quoted(claims) + ", " + v
	}
	return v
}

// contexts returns how to ask the issuer of a refused token; that of the first candidate if a session or
// another credential was refused.
func (b *bearer) contexts(e *Error) *login.Contexts {
	for i := range b.candidates {
		if iss := b.candidates[i].iss; iss.name == e.Issuer {
			return &iss.contexts
		}
	}
	return &b.candidates[0].iss.contexts
}
