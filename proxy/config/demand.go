package config

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
)

// ScopesOf returns the scopes that rules mention to allow something.
func ScopesOf(rules []policy.Rule) []string {
	var all []string
	for i := range rules {
		if len(rules[i].Deny) == 0 {
			all = append(all, rules[i].Who.Scope...)
		}
	}
	return all
}

// DemandOf returns which credentials and signatures a route requires.
func (c *Config) DemandOf(r *route.Config) auth.Demand {
	return auth.Demand{
		Callers: r.Callers.Names(), All: len(r.Callers.All) > 0, Independent: r.Callers.Bind == route.BindIndependent,
		StepUp: r.StepUpDemand(), Audience: r.Audience, Subprotocols: r.Subprotocols(),
		Passed: passedBy(r),
		Signatures: auth.SignatureDemand{
			Always:      r.Integrity.Request == seal.Always,
			Cover:       slices.Clone(r.Integrity.Cover),
			HeadersOnly: r.Integrity.Body == seal.HeadersOnly,
			Authority:   authorities(c),
		},
	}
}

// authorities returns a check of the authority that a request was signed for: with the port that
// clients see, or without one. The caller checks that a route has the host.
func authorities(cfg *Config) func(string) bool {
	ports := []string{"443"}
	if cfg.PublicHTTPS != 0 {
		ports = append(ports, strconv.Itoa(cfg.PublicHTTPS))
	}
	any := false
	for _, addr := range cfg.Listen.HTTPSAddrs() {
		_, port, _ := net.SplitHostPort(addr)
		any = any || port == "0" // port 0, chosen by the system, is for tests
		ports = append(ports, port)
	}
	return func(authority string) bool {
		i := strings.LastIndexByte(authority, ':')
		if i < 0 || strings.HasSuffix(authority, "]") || any {
			return true
		}
		return slices.Contains(ports, authority[i+1:])
	}
}
