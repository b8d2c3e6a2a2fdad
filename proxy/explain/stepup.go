package explain

import (
	"fmt"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/proxy/exchange"
	"sallyport/proxy/route"
)

// stepUp returns what a route says of the authentication of a caller by the claims acr and auth_time, and
// the refusal if they do not satisfy its step_up.
func (x *Explainer) stepUp(r *route.Route, caller *identity.Principal, at time.Time) (why string, err error) {
	issuer, tells := strings.CutPrefix(caller.Source, "issuer/")
	if !tells {
		return "the token or session beside this credential must satisfy it", nil
	}
	acr, authTime := auth.AuthenticationOf(caller)
	of := x.config.Issuers[issuer]
	if lacking := r.StepUp.Lacking(acr, authTime, at, of.ClockSkew()); lacking != "" {
		return "", exchange.StepUpNeeded(lacking)
	}
	if authTime == 0 {
		return fmt.Sprintf("acr is %q", acr), nil
	}
	return fmt.Sprintf("acr is %q, auth_time is %d s ago", acr, at.Unix()-authTime), nil
}

// recheckStepUp returns whether step_up of the route, as it is now, would refuse a logged request that the
// rules allow. It writes the reason to d.
func (x *Explainer) recheckStepUp(r *route.Route, l *logged, d *Difference) policy.Outcome {
	issuer, tells := strings.CutPrefix(l.Principal, "issuer/")
	issuer, _, _ = strings.Cut(issuer, ":")
	switch {
	case r.StepUp == nil:
		return policy.Allowed
	case l.ACR == "" && l.AuthTime == 0:
		d.Rule, d.Why = "", "not in the record: acr, auth_time"
		return policy.Untold
	}
	skew := time.Duration(0)
	if of, known := x.config.Issuers[issuer]; tells && known {
		skew = of.ClockSkew()
	}
	if r.StepUp.Lacking(l.ACR, l.AuthTime, l.Time, skew) != "" {
		d.Rule, d.Why = "", auth.StepUpNeeded
		return policy.Refused
	}
	return policy.Allowed
}
