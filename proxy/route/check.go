package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sallyport/auth"
	"sallyport/policy/model"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// Check records the faults that are visible within a route. identity holds the folded names of the
// identity fields of all routes.
func (r *Config) Check(at string, identity map[string]bool, f *setting.Faults) {
	r.checkHosts(at, f)
	r.checkRewriting(at, f)
	r.checkHeaders(at, identity, f)
	r.checkAccess(at, f)
	r.checkStepUp(at, f)
	r.checkRespond(at, f)
	r.Compress.check(at+".compress", f)
	if r.CORS != nil {
		r.CORS.check(at+".cors", f)
	}
	r.checkPath(at, f)
	r.Paths.check(at+".paths", f)
	r.checkMethods(at, f)
	r.checkWebsocketToken(at, f)
	r.checkLimits(at, f)
	r.Identity.check(at+".identity", f)
	r.checkPassed(at, identity, f)
	r.checkCodeTypes(at, f)
	r.SecurityHeaders.check(at+".security_headers", f)
}

func (r *Config) checkHosts(at string, f *setting.Faults) {
	if len(r.Host) == 0 {
		f.Add(at+".host", "", "a route without a host", "write the name that clients call, such as models.example.com")
	}
	seen := map[string]bool{}
	for i, h := range r.Host {
		at := setting.Index(at+".host", i)
		if problem, cure := badRouteHost(h); problem != "" {
			f.Add(at, cmp.Or(h, `""`), problem, cure)
			continue
		}
		key, err := message.CanonicalHost(strings.TrimPrefix(h, "*."))
		if strings.HasPrefix(h, "*.") {
			key = "*." + key
		}
		if err == nil && seen[key] {
			f.Add(at, h, "is listed twice", "remove one of the two")
		}
		seen[key] = true
	}
}

func badRouteHost(h string) (problem, cure string) {
	rest := strings.TrimPrefix(h, "*.")
	canonical, err := message.CanonicalHost(rest)
	address, _ := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"))
	switch {
	case h == "" || h == "*" || h == "*.":
		return "not a host name", `write the name that clients call, or "*.example.com" for any one label`
	case strings.Contains(h, "://"):
		return "a URL where a host is meant", "write the name alone"
	case strings.Contains(h, "/"):
		return "a host with a path", "write the path in the field path"
	case strings.Contains(rest, "*"):
		return "a star that is not the whole first label", `write "*.example.com", or list the names`
	case address.IsValid():
		return badAddressHost(h, address)
	case strings.Contains(h, ":"):
		return "a host with a port", "write the name alone; ports are those of listen.https"
	case err != nil && !ascii(h):
		return "a host name that is not ASCII", "write it as xn--, as DNS does"
	case err != nil:
		return "not a host name", "write one such as models.example.com"
	}
	if last := canonical[strings.LastIndexByte(canonical, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		// Some clients parse 127.1 as an address, and a star would match part of one.
		return "neither a name nor an address", "write an address in full, such as 127.0.0.1"
	}
	return "", ""
}

// badAddressHost says why an address cannot be a host. It must be the address that clients dial:
// they send no server name then.
func badAddressHost(h string, a netip.Addr) (problem, cure string) {
	bracketed := strings.HasPrefix(h, "[") && strings.HasSuffix(h, "]")
	switch {
	case strings.HasPrefix(h, "*."):
		return "a star before an address", "write the address alone"
	case a.Zone() != "":
		return "an address with a zone, which means something on this machine only", "write the address that clients dial"
	case a.IsUnspecified():
		return "stands for every address, and no client dials it", "list the addresses that clients dial, such as 127.0.0.1"
	case a.Is4In6():
		return "an IPv4 address written as IPv6", "write " + a.Unmap().String()
	case a.Is6() && !bracketed:
		return "an IPv6 address without brackets", fmt.Sprintf(`write "[%s]"`, a)
	case a.Is4() && strings.ContainsAny(h, "[]"):
		return "brackets are for IPv6", "write " + a.String()
	}
	return "", ""
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

func (r *Config) checkPath(at string, f *setting.Faults) {
	at += ".path"
	path := strings.TrimPrefix(r.Path, "=")
	canonical, forms, err := message.CanonicalPath(path)
	switch {
	case r.Path == "":
	case strings.HasPrefix(r.Path, "~") || strings.HasPrefix(r.Path, "^"):
		f.Add(at, r.Path, "regular expressions are not read", "write the path that all have in common, or several routes")
	case path == "" || path[0] != '/':
		f.Add(at, r.Path, "not a path", "write one that begins with a slash, such as /v1; =/v1 for that path alone")
	case strings.Contains(path, "*"):
		f.Add(at, r.Path, "a path with a star", "write the path before it: /v1 holds all of /v1/...")
	case err != nil || forms != 0:
		f.Add(at, r.Path, "a path that no request can have: it would be refused as ambiguous", "write one without //, dots alone, escapes, ; ? or #")
	case canonical != path:
		f.Add(at, r.Path, "not in its canonical form, in which paths are compared", "write "+canonical)
	}
}

func (r *Config) checkMethods(at string, f *setting.Faults) {
	for i, m := range r.Methods {
		at := setting.Index(at+".methods", i)
		switch {
		case m == "*":
			f.Add(at, m, "stands for all methods", "remove the line")
		case !message.ServedMethod(m):
			f.Add(at, m, "not a method that can be forwarded", "write some such as [GET, POST]")
		case slices.Index(r.Methods, m) < i:
			f.Add(at, m, "is listed twice", "remove one of the two")
		}
	}
	if r.Websocket && len(r.Methods) > 0 && !slices.Contains(r.Methods, "GET") {
		f.Add(at+".websocket", "true", "the route does not take GET, by which WebSocket begins", "add GET to methods, or remove the line")
	}
}

// checkWebsocketToken records forms of tokens that no request of the route could have.
func (r *Config) checkWebsocketToken(at string, f *setting.Faults) {
	at += ".websocket_token"
	for i, name := range r.WebsocketToken {
		at := setting.Index(at, i)
		switch {
		case auth.SubprotocolForm(name) == 0:
			f.Add(at, cmp.Or(name, `""`), "not a form of tokens that is known", "write kubernetes, openai, or [kubernetes, openai]")
		case slices.Index(r.WebsocketToken, name) < i:
			f.Add(at, name, "is listed twice", "remove one of the two")
		}
	}
	switch {
	case len(r.WebsocketToken) == 0:
	case !r.Websocket:
		f.Add(at, "", "the route allows no WebSocket, which alone has such tokens", "write websocket: true, or remove the line")
	case r.Respond != nil:
		f.Add(at, "", "the route answers itself, and opens no WebSocket", "remove the line")
	}
}

func (r *Config) checkLimits(at string, f *setting.Faults) {
	at += ".limits"
	names := limitNames{}
	for i := range r.Limits.Rate {
		rate := &r.Limits.Rate[i]
		path := setting.Index(at+".rate", i)
		rate.Check(path, f)
		r.checkShared(path, &rate.Scope, f)
		names.check(path, rate.Name, f)
	}
	for i := range r.Limits.InFlight.Entries {
		entry := &r.Limits.InFlight.Entries[i]
		path := setting.Index(at+".in_flight", i)
		entry.Check(path, f)
		r.checkShared(path, &entry.Scope, f)
		names.check(path, entry.Name, f)
	}
	if n := r.Limits.InFlight.Number; n < 0 {
		f.Add(at+".in_flight", strconv.Itoa(n), "a negative number", "write one above zero, or remove the line for no bound")
	}
	if n := r.Limits.Batch; n < 0 {
		f.Add(at+".batch", strconv.Itoa(n), "a negative number", "write one above zero, or remove the line for no bound")
	}
}

// limitNames are the names of entries of limits.
type limitNames map[string]bool

// check records a name that another entry has too: clients could not tell the two apart.
func (n limitNames) check(path, name string, f *setting.Faults) {
	if name != "" && n[name] {
		f.Add(path+".name", name, "another entry has this name", "choose another one")
	}
	n[name] = true
}

// checkShared records an entry by principal where all callers are one principal.
func (r *Config) checkShared(path string, s *limit.Scope, f *setting.Faults) {
	if slices.Contains(s.Per, "principal") && slices.Contains(r.Callers.Names(), Anonymous) {
		f.Add(path+".per", strings.Join(s.Per, ", "), "anonymous callers are all one principal", "write address, or route")
	}
}

// CheckLimits records what limits name that no request to servers of a dialect has: verbs, models, batches
// and tensors.
func (r *Config) CheckLimits(at string, d *model.Dialect, f *setting.Faults) {
	if r.Limits.Batch != 0 && !d.HasBatches() {
		f.Add(at+".limits.batch", strconv.Itoa(r.Limits.Batch), "the gateway does not know what makes a batch in requests to "+d.Name()+" servers",
			"remove the line, or name the server's kind by serves: tensorflow, v2, triton, mlflow, openai or ollama; limits.body limits the bytes of any request")
	}
	if r.Limits.TensorBytes != 0 && !d.HasTensors() {
		f.Add(at+".limits.tensor_bytes", r.Limits.TensorBytes.String(), "the gateway knows no tensors in requests to "+d.Name()+" servers",
			"write limits.body, which limits the bytes of any request, or name the server's kind by serves: tensorflow, v2, triton or mlflow")
	}
	for i := range r.Limits.Rate {
		checkScope(setting.Index(at+".limits.rate", i), &r.Limits.Rate[i].Scope, d, f)
	}
	for i := range r.Limits.InFlight.Entries {
		checkScope(setting.Index(at+".limits.in_flight", i), &r.Limits.InFlight.Entries[i].Scope, d, f)
	}
}

func checkScope(path string, s *limit.Scope, d *model.Dialect, f *setting.Faults) {
	for i, v := range s.Verbs {
		if problem, cure := d.CheckVerb(v); problem != "" {
			f.Add(setting.Index(path+".verbs", i), v, problem, cure)
		}
	}
	if s.NeedsModel() && !d.NamesModels() {
		f.Add(path, "", "requests to this server do not say which model they ask for", "remove model and models, or name the server's kind by serves, such as openai, ollama or tensorflow")
		return
	}
	for i, m := range s.Models {
		if name, err := d.CanonicalModel(m.String()); err != nil {
			f.Add(setting.Index(path+".models", i), m.String(), "no model of this server has such a name", "write the name as the server lists it, with stars for parts of it")
		} else if name != m.String() {
			f.Add(setting.Index(path+".models", i), m.String(), "the gateway knows this model by another name", "write "+name)
		}
	}
}
