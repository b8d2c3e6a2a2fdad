package route

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// HeadersConfig is the section `headers` of a route.
type HeadersConfig struct {
	// Request changes the fields of requests to the upstream.
	Request FieldsConfig `yaml:"request"`
	// Response changes the fields of the upstream's answers to the client.
	Response FieldsConfig `yaml:"response"`
}

// FieldsConfig says which header fields change, and how. Names are compared as lenient servers do:
// X_Tenant equals x-tenant.
type FieldsConfig struct {
	// Set gives a field this value, whatever was sent. Clients then cannot send a request field of
	// this name, in any spelling, on any route to the same servers, whatever their upstream is called.
	Set map[string]string `yaml:"set"`
	// Remove lists fields to remove.
	Remove setting.List[string] `yaml:"remove"`
	// Add appends one or more lines with this name to those received.
	Add map[string]setting.List[string] `yaml:"add"`
}

// Edits change the fields of a message. The zero Edits change nothing. They are immutable.
type Edits struct {
	drop map[string]bool // bare names to drop
	Put  message.Fields  // added after fields were dropped
}

// NewEdits compiles a checked section. also lists further names to drop.
func NewEdits(c *FieldsConfig, also map[string]bool) Edits {
	e := Edits{drop: map[string]bool{}}
	for name := range also {
		e.drop[bare(name)] = true
	}
	for _, name := range c.Remove {
		e.drop[bare(name)] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		e.drop[bare(name)] = true
		e.Put.Add(strings.ToLower(name), c.Set[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.Add)) {
		for _, value := range c.Add[name] {
			e.Put.Add(strings.ToLower(name), value)
		}
	}
	return e
}

// Drops reports whether a line with this name, in any spelling that servers fold, is removed.
func (e *Edits) Drops(name string) bool { return len(e.drop) > 0 && e.drop[bare(name)] }

// Apply changes fields in place.
func (e *Edits) Apply(f *message.Fields) {
	if len(e.drop) > 0 {
		f.DelFunc(func(line message.Field) bool { return e.Drops(line.Name) })
	}
	*f = append(*f, e.Put...)
}

// OwnedFields returns, for each route, the folded names of fields that routes to the same servers
// set, and authorization if one of them writes a token there. A server cannot know by which route a
// request came. servers returns the servers of a route, see [upstream.Config.Servers]. Two routes that share a server count as routes to all servers of
// both, because two endpoints may be ports of one server.
func OwnedFields(routes []Config, servers func(*Config) []string) []map[string]bool {
	byServer := map[string]map[string]bool{}
	owned := make([]map[string]bool, len(routes))
	for i := range routes {
		owned[i] = map[string]bool{}
		for name := range routes[i].Headers.Request.Set {
			owned[i][message.Fold(name)] = true
		}
		if names := routes[i].Identity.Names(); names.InAuthorization() != "" {
			owned[i][authorization] = true
		}
		for _, name := range servers(&routes[i]) {
			byServer[name] = map[string]bool{}
		}
	}
	for spread := true; spread; {
		spread = false
		for i := range routes {
			before := len(owned[i])
			for _, name := range servers(&routes[i]) {
				maps.Copy(owned[i], byServer[name])
			}
			spread = spread || len(owned[i]) > before
			for _, name := range servers(&routes[i]) {
				before := len(byServer[name])
				maps.Copy(byServer[name], owned[i])
				spread = spread || len(byServer[name]) > before
			}
		}
	}
	return owned
}

// checkHeaders records the faults of the section. identity are the folded names
// of the identity fields of all routes.
func (r *Config) checkHeaders(at string, identity map[string]bool, f *setting.Faults) {
	at += ".headers"
	r.Headers.Request.check(at+".request", f, func(folded string, remove bool) (problem, cure string) {
		if identity[folded] || strings.HasPrefix(folded, "x-sallyport-") {
			return "is the gateway's own, by which upstreams learn who calls", "rename it, or switch it off, under identity"
		}
		return protectedRequestField(folded, remove)
	})
	r.Headers.Response.check(at+".response", f, func(folded string, remove bool) (problem, cure string) {
		if r.CORS != nil && strings.HasPrefix(folded, "access-control-") {
			return "is written by cors", "say it there"
		}
		return protectedResponseField(folded)
	})
}

// check records faults; protected says why a name must not be changed.
func (c *FieldsConfig) check(at string, f *setting.Faults, protected func(folded string, remove bool) (problem, cure string)) {
	seen := map[string]string{}
	name := func(at, name, what string, remove bool) {
		folded := message.Fold(name)
		problem, cure := protected(folded, remove)
		other, taken := seen[folded]
		switch {
		case !message.ValidName(name):
			f.Add(at, name, "not a field name", "write one such as X-Tenant")
		case problem != "":
			f.Add(at, name, problem, cure)
		case taken && (other == what || remove):
			f.Add(at, name, "is under "+other+" too", "keep one of the two: set replaces what was sent")
		}
		seen[folded] = what
	}
	for _, n := range slices.Sorted(maps.Keys(c.Set)) {
		path := at + ".set." + n
		name(path, n, "set", false)
		checkFieldValue(path, c.Set[n], f)
	}
	for _, n := range slices.Sorted(maps.Keys(c.Add)) {
		path := at + ".add." + n
		name(path, n, "add", false)
		for i, v := range c.Add[n] {
			checkFieldValue(setting.Index(path, i), v, f)
		}
	}
	for i, n := range c.Remove {
		name(setting.Index(at+".remove", i), n, "remove", true)
	}
}

// variable matches nginx variables, which migrated configurations may contain.
var variable = regexp.MustCompile(`\$\{?[a-z_]+`)

func checkFieldValue(at, value string, f *setting.Faults) {
	switch {
	case value == "":
		f.Add(at, `""`, "no value", "write the value, or list the name under remove")
	case len(value) > 4096:
		f.Add(at, "", "longer than 4096 bytes", "write less")
	case !message.ValidValue(value):
		f.Add(at, value, "not a field value", "write printable characters in one line")
	case variable.MatchString(value):
		f.Add(at, value, "variables are not read", "upstreams learn the client's address, scheme and host from X-Forwarded-For, -Proto and -Host, and the caller from the fields under identity")
	}
}

// protectedRequestField says why no route may set or remove a request field; "" if it may.
func protectedRequestField(folded string, remove bool) (problem, cure string) {
	switch folded {
	case "host":
		return "is not for routes to write", "write host: under the upstream"
	case "authorization", "cookie", "x-api-key", "api-key", "dpop", "signature", "signature-input", "content-digest":
		if remove {
			return "", ""
		}
		return "is what proves who calls, and no credential may stand in this file", "remove it; insecure_forward_authorization sends the caller's own token"
	}
	switch {
	case Replaced(folded):
		return "is always the gateway's to write or to remove", "X-Forwarded-For, -Proto, -Host and Forwarded are sent without being asked for"
	case message.OfConnection(folded), overridesMethod(folded), strings.HasPrefix(folded, "content-"), strings.HasPrefix(folded, "sec-"):
		return "decides how a message is read", "remove it"
	}
	return "", ""
}

// protectedResponseField says why no route may change a response field; "" if it may.
func protectedResponseField(folded string) (problem, cure string) {
	switch folded {
	case "content-type", "content-language", "content-disposition", "content-location", "content-security-policy", "content-security-policy-report-only":
		return "", ""
	case RequestIDField:
		return "is the gateway's own", "remove it"
	}
	switch {
	case strings.HasPrefix(folded, "x-sallyport-"):
		return "is the gateway's own", "remove it"
	case message.OfConnection(folded), strings.HasPrefix(folded, "content-"), strings.HasPrefix(folded, "sec-"),
		strings.HasPrefix(folded, "signature"), folded == "repr-digest", folded == "www-authenticate":
		return "decides how a message is read or whether it is believed", "remove it"
	}
	return "", ""
}
