package config

import (
	"slices"

	"sallyport/policy"
	"sallyport/proxy/route"
)

// DecidingRoute builds the part of a route that decides on a request once its caller is known. It needs
// no file beside the configuration.
func (c *Config) DecidingRoute(of *route.Config) (*route.Route, error) {
	r := &route.Route{
		Name:         of.Name,
		Methods:      slices.Clone(of.Methods),
		Dialect:      c.DialectOf(of),
		Access:       route.NewAccess(of),
		Logins:       of.Callers.Logins(),
		StepUp:       of.StepUpDemand(),
		Paths:        route.NewPaths(&of.Paths, c.DialectOf(of)),
		Fixed:        route.NewFixed(of.Respond),
		WebSocket:    of.Websocket,
		Subprotocols: of.Subprotocols(),
		CodeTypes:    of.CodeTypes,
		Release:      route.NewRelease(of.Rewrite),
		Limits:       route.Limits{Body: of.Limits.BodyBytes(), Inflated: of.Limits.Inflated.Or(64 << 20), Most: of.Limits.Most()},
	}
	var err error
	if r.Rewriting, err = route.NewRewriting(of); err != nil {
		return nil, err
	}
	r.Policy, r.Candidate, err = c.PoliciesOf(of)
	return r, err
}

// PoliciesOf returns the compiled rules of a route, and its candidate rules; nil if it has none.
func (c *Config) PoliciesOf(r *route.Config) (rules, candidate *policy.Policy, err error) {
	all := c.RulesOf(r)
	if r.Respond != nil && len(all) == 0 {
		all = route.EveryoneAllowed()
	}
	d := c.DialectOf(r)
	if rules, err = policy.New(d, placeOf("rules", &r.Rules), all); err != nil || r.CandidateRules.IsZero() {
		return rules, nil, err
	}
	candidate, err = policy.New(d, placeOf("candidate_rules", &r.CandidateRules), c.CandidateRulesOf(r))
	return rules, candidate, err
}

// placeOf returns the place of rules in the configuration, as causes and records name it.
func placeOf(key string, ref *route.RulesRef) string {
	if ref.Policy != "" {
		return "policies." + ref.Policy
	}
	return key
}
