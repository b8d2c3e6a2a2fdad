package login

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sallyport/proxy/setting"
)

// StepUp says how people must have proved who they are to their issuer.
type StepUp struct {
	// ACR are authentication contexts of which one is demanded, the preferred one first; nil for any.
	ACR []string
	// MaxAge is how long ago they may have proved it; 0 for any time.
	MaxAge time.Duration
	// Prompt is the parameter prompt of the authorization request; "" for none.
	Prompt string
}

// IsZero reports whether any authentication satisfies the demand.
func (s *StepUp) IsZero() bool { return len(s.ACR) == 0 && s.MaxAge == 0 }

// Lacking says why an authentication does not satisfy the demand at a time; "" if it does. skew is how far
// the issuer's clock may be off. It does not allocate unless something is lacking.
func (s *StepUp) Lacking(by Authentication, at time.Time, skew time.Duration) string {
	if len(s.ACR) > 0 && !by.hasOne(s.ACR) {
		return by.String() + ", demanded is one of " + setting.QuotedList(s.ACR, 128)
	}
	if s.MaxAge == 0 {
		return ""
	}
	age, late := at.Unix()-by.Time, int64(skew/time.Second)
	switch {
	case by.Time == 0:
		return "auth_time is absent, and max_age is " + setting.Duration(s.MaxAge).String()
	case age > int64(s.MaxAge/time.Second)+late:
		return fmt.Sprintf("auth_time is %d s ago, max_age is %d s, skew is %s", age, int64(s.MaxAge/time.Second), setting.Duration(skew))
	case -age > late:
		return fmt.Sprintf("auth_time is %d s in the future, skew is %s", -age, setting.Duration(skew))
	}
	return ""
}

// And returns the demand that satisfies both this one, of a login, and that of a page. The page's values
// come in its own order, without those that the login does not take, and its prompt counts.
func (s StepUp) And(page StepUp) StepUp {
	both := StepUp{ACR: page.ACR, MaxAge: page.MaxAge, Prompt: cmp.Or(page.Prompt, s.Prompt)}
	shared := s.Shared(page.ACR)
	switch {
	case len(page.ACR) == 0:
		both.ACR = s.ACR
	case len(shared) > 0:
		both.ACR = shared
	}
	if s.MaxAge > 0 && (page.MaxAge == 0 || s.MaxAge < page.MaxAge) {
		both.MaxAge = s.MaxAge
	}
	return both
}

// Shared returns those of some authentication contexts that satisfy the demand.
func (s *StepUp) Shared(acr []string) []string {
	return slices.DeleteFunc(slices.Clone(acr), func(one string) bool { return len(s.ACR) > 0 && !slices.Contains(s.ACR, one) })
}

// Lacking says why the person of the session has to sign in again for a demand at a time; "" if not.
func (s *Session) Lacking(d *StepUp, at time.Time) string {
	return d.Lacking(s.Authentication(), at, s.login.issuer.Skew())
}

// Discard ends sessions because their browser has a new one, or has brought several. Copies of their cookies
// must not serve on. While they end one after another, none of them serves.
func Discard(all ...*Session) {
	for _, s := range all {
		s.live.gone.Store(true)
	}
	for _, s := range all {
		if err := s.login.endSession(s); err != nil {
			s.login.memory.log.Warn("the end of a discarded session is not on disk", "login", s.login.name, "session", s.principal.ID, "cause", err)
		}
	}
}
