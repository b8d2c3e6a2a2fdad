package exchange

import (
	"crypto/tls"
	"net/netip"
	"strings"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/audit"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/wire"
)

// FactsOf returns what conditions of rules may ask about a request. credential is the lower-case name
// of the field with the caller's credential; "" for none.
func FactsOf(h *message.Head, client netip.Addr, conn *wire.Conn, credential string) *policy.Facts {
	f := &policy.Facts{
		Method: h.Method, Path: h.Path, Host: h.Host, Client: client, Size: h.ContentLength,
		Headers: make(map[string]string, len(h.Fields)), HTTP: strings.TrimPrefix(h.Version.String(), "HTTP/"),
	}
	if conn != nil {
		f.Peer = conn.Peer.Addr().Unmap()
		if conn.TLS != nil {
			f.TLS = strings.TrimPrefix(tls.VersionName(conn.TLS.Version), "TLS ")
		}
	}
	for _, line := range h.Fields {
		if line.Name == credential || decides(line.Name) {
			continue
		}
		if before, again := f.Headers[line.Name]; again {
			line.Value = before + ", " + line.Value
		}
		f.Headers[line.Name] = line.Value
	}
	return f
}

// decides reports whether a field has credentials, or is one that the gateway acts on. A rule must go by
// what the gateway made of it.
func decides(name string) bool {
	switch name {
	case "authorization", "cookie", "signature", "signature-input", "dpop", "content-digest", "forwarded", "x-real-ip", auth.SubprotocolField:
		return true
	}
	return message.OfConnection(name) || auth.IsAPIKeyField(name) || route.Spoofable(name) || strings.HasPrefix(name, "x-forwarded-")
}

// gatherFacts makes what the conditions of the route's rules may ask, if there are conditions.
func (x *exchange) gatherFacts() {
	if x.route.Policy.NeedsFacts() || x.route.Candidate.NeedsFacts() {
		x.about = FactsOf(x.head, x.client, x.stream.Conn(), x.proof.Field)
	}
}

// recordCall records what the request asks for, and what the candidate rules of the route make of it.
func (x *exchange) recordCall() {
	if x.reading.Call.Dialect == nil {
		return
	}
	named := x.scanned.last()
	call := named.call(&x.reading)
	r := &x.record
	r.Dialect, r.Verb, r.Model, r.Version, r.Signature = call.Dialect.Name(), call.Verb, call.Model, call.Version, call.Signature
	if x.chosen != "" || named.chosen {
		r.AskedVersion = model.Latest
	}
	x.recordServed(call)
	r.Scopes, r.Groups, r.GroupsElsewhere = x.caller.Scopes, x.caller.Groups, x.caller.GroupsElsewhere
	candidate := x.route.Candidate
	if candidate == nil {
		return
	}
	r.RefusedByRules = r.Reason == policy.ReasonForbidden || r.Reason == policy.ReasonInsufficientScope
	var err error
	if x.reading.NeedsBody() && named.by == nil && candidate.AboutModels() {
		// Nobody has read the model, so only a refusal of every model is sure.
		if err = candidate.Screen(&x.caller, call); err == nil {
			return
		}
	} else {
		r.CandidateRule, err = candidate.Judge(&x.caller, call, x.about)
	}
	if r.Candidate = audit.CandidateAllow; err != nil {
		r.Candidate = audit.CandidateDeny
	}
}
