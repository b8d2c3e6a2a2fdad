package explain

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/identity"
	"sallyport/policy"
	"sallyport/proxy/exchange"
	"sallyport/proxy/route"
)

// stepUp returns what a route says of the authentication of a caller by the issuer's claim for it and
// auth_time, and the refusal if they do not satisfy its step_up.
func (x *Explainer) stepUp(r *route.Route, caller *identity.Principal, at time.Time) (why string, err error) {
	issuer, tells := strings.CutPrefix(caller.Source, "issuer/")
	if !tells {
		return "the token or session beside this credential must satisfy it", nil
	}
	of := x.config.Issuers[issuer]
	by := auth.AuthenticationOf(caller, of.ACRClaim())
	if lacking := r.StepUp.Lacking(by, at, of.ClockSkew()); lacking != "" {
		return "", exchange.StepUpNeeded(lacking)
	}
	if by.Time == 0 {
		return by.String(), nil
	}
	return fmt.Sprintf("%s, auth_time is %d s ago", by, at.Unix()-by.Time), nil
}

// recheckStepUp returns whether step_up of the route, as it is now, would refuse a logged request that the
// rules allow. It writes the reason to d.
func (x *Explainer) recheckStepUp(r *route.Route, l *logged, d *Difference) policy.Outcome {
	if r.StepUp == nil {
		return policy.Allowed
	}
	issuer, tells := strings.CutPrefix(l.Principal, "issuer/")
	issuer, _, _ = strings.Cut(issuer, ":")
	claim, skew := auth.ClaimACR, time.Duration(0)
	if of, known := x.config.Issuers[issuer]; tells && known {
		claim, skew = of.ACRClaim(), of.ClockSkew()
	}
	by := auth.Authentication{Claim: cmp.Or(l.ACRClaim, auth.ClaimACR), Values: l.ACR, Time: l.AuthTime}
	switch {
	case by.Values == "" && by.Time == 0, by.Claim != claim && len(r.StepUp.ACR) > 0:
		d.Rule, d.Why = "", "not in the record: "+claim+", auth_time"
		return policy.Untold
	case r.StepUp.Lacking(by, l.Time, skew) != "":
		d.Rule, d.Why = "", auth.StepUpNeeded
		return policy.Refused
	}
	return policy.Allowed
}
