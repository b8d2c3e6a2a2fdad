package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/policy"
	"sallyport/proxy/limit"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// Faults are all faults of a configuration: what the errors of [Load] and
// [Config.CheckFiles] are.
type Faults = setting.Faults

// RouteInfo is one route as it was understood, with every default filled in.
type RouteInfo struct {
	Name      string   `json:"name"`
	Host      []string `json:"host"`
	Path      string   `json:"path"`
	Paths     []string `json:"paths"`   // what the route sets for ambiguous paths, as in "encoded_slash keep"
	Methods   []string `json:"methods"` // ["*"] for all
	Upstream  string   `json:"upstream"`
	Serves    string   `json:"serves"`
	Endpoints []string `json:"endpoints"`
	Callers   []string `json:"callers"`
	Audience  []string `json:"audience"`
	StepUp    string   `json:"step_up"` // in words; "" for none
	Rules     []string `json:"rules"`   // each in words
	Candidate []string `json:"candidate_rules"`
	Splits    []string `json:"split_upstreams"` // names of the upstreams that splits choose from
	Rewrite   []string `json:"rewrite"`         // which versions and upstreams are chosen, each in words
	Body      string   `json:"limit_body"`
	Batch     int      `json:"limit_batch"`        // 0: no bound
	Tensor    string   `json:"limit_tensor_bytes"` // "" for no bound
	Rate      []string `json:"limit_rate"`
	InFlight  int      `json:"limit_in_flight"`    // of the whole route; 0: no bound
	Places    []string `json:"limit_in_flight_by"` // of entries, each in words
	Timeouts  string   `json:"timeouts"`
	Websocket bool     `json:"websocket"`
	Tokens    []string `json:"websocket_token"` // forms of tokens in subprotocols
	Durable   string   `json:"audit_durable"`
	// Insecure lists the insecure settings that affect the route.
	Insecure []string `json:"insecure"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
}

// Table lists the routes, in the order of the file.
func (c *Config) Table() []RouteInfo {
	table := make([]RouteInfo, 0, len(c.Routes))
	for i := range c.Routes {
		r := &c.Routes[i]
		name, u, _ := c.UpstreamOf(r)
		t := c.TimeoutsOf(r)
		info := RouteInfo{
			Name: r.Name, Host: r.Host, Path: r.Path, Paths: r.Paths.InWords(), Methods: r.Methods,
			Upstream: name, Serves: c.DialectOf(r).Name(), Callers: r.Callers.Names(), Audience: c.audienceOf(r), StepUp: r.StepUp.InWords(),
			Body:     setting.Size(r.Limits.BodyBytes()).String(),
			Batch:    r.Limits.Batch,
			InFlight: r.Limits.InFlight.Number, Places: []string{}, Websocket: r.Websocket, Durable: string(c.DurabilityOf(r)),
			Endpoints: []string{}, Rules: []string{}, Candidate: []string{}, Rate: []string{}, Insecure: []string{},
			Tokens:  append([]string{}, r.WebsocketToken...),
			Rewrite: r.Rewrite.Words(), Splits: append([]string{}, r.Rewrite.Upstreams()...),
			Timeouts: fmt.Sprintf("connect %s, head %s, idle %s, total %s", t.Connect, t.Head, t.Idle, t.Total),
		}
		if own := c.OwnTimeouts(r); len(u.GRPC) > 0 && own.Head == 0 && own.Idle == 0 {
			info.Timeouts += "; for gRPC head and idle are the caller's deadline, else 1h"
		}
		if r.Respond != nil {
			info.Upstream = fmt.Sprintf("answered here: %d", r.Respond.Status)
		}
		if n := r.Limits.TensorBytes; n > 0 {
			info.Tensor = n.String()
		}
		if len(info.Methods) == 0 {
			info.Methods = []string{"*"}
		}
		for _, e := range u.Rest {
			info.Endpoints = append(info.Endpoints, e.String())
		}
		for _, rule := range c.RulesOf(r) {
			info.Rules = append(info.Rules, ruleInWords(&rule))
		}
		for _, rule := range c.CandidateRulesOf(r) {
			info.Candidate = append(info.Candidate, ruleInWords(&rule))
		}
		for _, rate := range r.Limits.Rate {
			words := rate.Words()
			if rate.Burst > 0 {
				words += fmt.Sprintf(", burst %d", rate.Burst)
			}
			info.Rate = append(info.Rate, words+ofInWords(&rate.Scope))
		}
		for _, place := range r.Limits.InFlight.Entries {
			info.Places = append(info.Places, place.Words()+ofInWords(&place.Scope))
		}
		info.Insecure = append(info.Insecure, c.insecureOf(r, name, u)...)
		if c.source != nil {
			o := c.source.routes[i]
			info.File, info.Line = o.doc.File, o.doc.Line(o.path)
		}
		table = append(table, info)
	}
	return table
}

// insecureOf returns the settings that make a route less secure, of its upstream and its issuers too.
func (c *Config) insecureOf(r *route.Config, name string, u upstream.Config) (all []string) {
	if r.ForwardAuthorization {
		all = append(all, "insecure_forward_authorization")
	}
	if r.Identity.InsecureHTTP {
		all = append(all, "identity.insecure_http")
	}
	if u.InsecureSkipVerify {
		all = append(all, "insecure_skip_verify of upstream "+name)
	}
	if u.Credentials.InsecureHTTP {
		all = append(all, "credentials.insecure_http of upstream "+name)
	}
	if o := u.Credentials.OAuth2; o != nil && o.InsecureHTTP {
		all = append(all, "credentials.oauth2.insecure_http of upstream "+name)
	}
	for _, caller := range r.Callers.Names() {
		issuer := c.issuerOf(caller)
		words := "insecure_http of issuer " + issuer
		if c.Issuers[issuer].InsecureHTTP && !slices.Contains(all, words) { // issuer/NAME and a login of it may both be listed
			all = append(all, words)
		}
	}
	return all
}

// ofInWords describes the requests that an entry of limits counts; "" for all.
func ofInWords(s *limit.Scope) string {
	var of []string
	if len(s.Models) > 0 {
		var models []string
		for _, m := range s.Models {
			models = append(models, m.String())
		}
		of = append(of, "models "+strings.Join(models, " "))
	}
	if len(s.Verbs) > 0 {
		of = append(of, "verbs "+strings.Join(s.Verbs, " "))
	}
	if len(s.Groups) > 0 {
		of = append(of, "groups "+strings.Join(s.Groups, " "))
	}
	if of == nil {
		return ""
	}
	return " (" + strings.Join(of, "; ") + ")"
}

// DurabilityOf returns how durable the records of a route are. The route's setting takes precedence
// over that of the whole file; the default is [setting.NotDurable].
func (c *Config) DurabilityOf(r *route.Config) setting.Durability {
	return cmp.Or(r.Audit.Durable, c.Audit.Durable, setting.NotDurable)
}

// audienceOf lists the audiences that a token for the route may have.
func (c *Config) audienceOf(r *route.Config) []string {
	if len(r.Audience) > 0 {
		return r.Audience
	}
	all := []string{}
	for _, caller := range r.Callers.Names() {
		if name, ok := strings.CutPrefix(caller, "issuer/"); ok {
			all = append(all, c.Issuers[name].Audience...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ruleInWords is a rule as in "allow get, post of small or tiny-* if scope is models.predict".
func ruleInWords(r *policy.Rule) string {
	words := "allow " + strings.Join(r.Allow, ", ")
	if len(r.Deny) > 0 {
		words = "deny " + strings.Join(r.Deny, ", ")
	}
	if len(r.Models) > 0 && !r.AllModels() {
		words += " of " + strings.Join(r.Models, " or ")
	}
	for i, v := range r.Versions {
		if i == 0 {
			words += " in version " + string(v)
			continue
		}
		words += " or " + string(v)
	}
	var who []string
	add := func(what string, values []string) {
		if len(values) > 0 {
			who = append(who, what+" is "+strings.Join(values, " or "))
		}
	}
	add("scope", r.Who.Scope)
	add("group", r.Who.Group)
	for _, claim := range slices.Sorted(maps.Keys(r.Who.Claim)) {
		add("claim "+claim, r.Who.Claim[claim])
	}
	add("principal", r.Who.Principal)
	if r.When != "" {
		who = append(who, strings.Join(strings.Fields(r.When), " "))
	}
	if len(who) > 0 {
		words += " if " + strings.Join(who, " and ")
	}
	return words
}
