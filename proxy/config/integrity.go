package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
)

// checkIntegrity records the faults of the section `integrity`, of the keys and of
// principals.
func (c *Config) checkIntegrity(f *setting.Faults) {
	c.Integrity.State.Check("integrity.state", "name a file, or write off", f, off)
	for _, id := range slices.Sorted(maps.Keys(c.SigningKeys)) {
		k := c.SigningKeys[id]
		k.Check("signing_keys."+id, id, f)
	}
	for _, name := range slices.Sorted(maps.Keys(c.APIKeys)) {
		k := c.APIKeys[name]
		k.Check("api_keys."+name, name, f)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Basic)) {
		checkName("basic", name, f)
		b := c.Basic[name]
		b.Check("basic."+name, f)
	}
	i := &c.Integrity
	for _, d := range []struct {
		name  string
		value setting.Duration
		high  time.Duration
	}{{"max_age", i.MaxAge, 15 * time.Minute}, {"skew", i.Skew, 5 * time.Minute}} {
		if d.value.D() > d.high {
			f.Add("integrity."+d.name, d.value.String(), "so long that every signature would have to be remembered for ages", "write "+setting.Duration(d.high).String()+" or less")
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"nonces", i.Nonces}, {"nonces_per_key", i.NoncesPerKey}} {
		if n.value != 0 && (n.value < 1000 || n.value > 100_000_000) {
			f.Add("integrity."+n.name, strconv.Itoa(n.value), "out of bounds", "write a number from 1000 to 100000000")
		}
	}
	if i.Memory != 0 && i.Memory < 1<<20 {
		f.Add("integrity.memory", i.Memory.String(), "less than one body", "write 1MiB or more")
	}
	if i.Publish != "" {
		c.checkKeyRef("integrity.publish", i.Publish, auth.SignResponse, f)
		if k, known := c.SigningKeys[i.Publish]; known && k.PrivateKey.IsZero() {
			f.Add("integrity.publish", i.Publish, "not a key with a private_key: nobody else could verify what it signs", "make one: openssl genpkey -algorithm ed25519")
		}
	}
	c.checkPrincipals(f)
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		u := c.Upstreams[name]
		at := "upstreams." + name + ".integrity"
		if u.Integrity.Sign != "" {
			c.checkKeyRef(at+".sign", u.Integrity.Sign, auth.SignRequest, f)
		}
		if a := u.Credentials.Assertion; a != nil && a.Key != "" {
			c.checkKeyRef("upstreams."+name+".credentials.assertion.key", a.Key, auth.SignAssertion, f)
		}
		for j, id := range u.Integrity.Verify {
			c.checkKeyRef(setting.Index(at+".verify", j), id, auth.VerifyResponse, f)
		}
	}
}

// checkKeyRef records why a name is not that of a key for a use.
func (c *Config) checkKeyRef(at, id, use string, f *setting.Faults) {
	k, known := c.SigningKeys[id]
	switch {
	case !known:
		f.Add(at, id, "there is no such signing key", cureName("signing_keys", id, slices.Sorted(maps.Keys(c.SigningKeys))))
	case !slices.Contains(k.Uses(), use):
		f.Add(at, id, "the key is not for this", "add "+use+" to its use, or name another")
	}
}

// checkPrincipals records the faults of the section `principals`.
func (c *Config) checkPrincipals(f *setting.Faults) {
	owner := map[string]string{}
	for _, alias := range slices.Sorted(maps.Keys(c.Principals)) {
		at := "principals." + alias
		checkName("principals", alias, f)
		proofs := c.Principals[alias]
		if len(proofs) < 2 {
			f.Add(at, "", "one name for less than two proofs", "list the proofs of the same caller, such as [issuer/corp:svc-batch, key:acme]")
		}
		for i, p := range proofs {
			at := setting.Index(at, i)
			if problem, cure := c.badQualified(p); problem != "" {
				f.Add(at, p, problem, cure)
				continue
			}
			if other, taken := owner[p]; taken {
				f.Add(at, p, "belongs to "+other+" already", "a proof is of one caller: keep it in one place")
			}
			owner[p] = alias
		}
	}
}

// badQualified says why p is no qualified name that a proof could have.
func (c *Config) badQualified(p string) (problem, cure string) {
	source, name, qualified := strings.Cut(p, ":")
	issuer, isIssuer := strings.CutPrefix(source, "issuer/")
	basic, isBasic := strings.CutPrefix(source, "basic/")
	switch {
	case !qualified || name == "":
		return "not a qualified name", "write issuer/NAME:SUBJECT, key:NAME, apikey:NAME, basic/NAME:USER or cert:NAME, as the records do"
	case source == "cert":
		return c.badCertificateName(name)
	case source == "key":
		if !slices.Contains(c.keyPrincipals(), name) {
			return "no signing key has the principal " + strconv.Quote(name), cureName("signing_keys", name, c.keyPrincipals())
		}
	case source == "apikey":
		if !c.mayHaveAPIKey(name) {
			return "no API key has the principal " + strconv.Quote(name), cureName("api_keys", name, c.apiKeyPrincipals())
		}
	case isBasic:
		if _, known := c.Basic[basic]; !known {
			return "there is no entry " + strconv.Quote(basic) + " under basic", cureName("basic", basic, slices.Sorted(maps.Keys(c.Basic)))
		}
	case !isIssuer:
		return "no such kind of caller", "write issuer/NAME:SUBJECT, key:NAME, apikey:NAME, basic/NAME:USER or cert:NAME"
	default:
		if _, known := c.Issuers[issuer]; !known {
			return "there is no issuer " + strconv.Quote(issuer), c.cureIssuer(issuer)
		}
	}
	return "", ""
}

// apiKeyPrincipals are whom the API keys of the configuration prove, sorted.
func (c *Config) apiKeyPrincipals() []string {
	var all []string
	for name, k := range c.APIKeys {
		all = append(all, k.PrincipalOr(name))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// APIKey returns the API key of this name, and the file of keys that has it; "" for the
// configuration itself. A name that neither has gives the zero key.
func (c *Config) APIKey(name string) (key auth.APIKeyConfig, file string, err error) {
	key, found := c.APIKeys[name]
	if found || c.APIKeyFile == "" {
		return key, "", nil
	}
	if key, found, err = auth.FindAPIKey(string(c.APIKeyFile), name); found {
		file = string(c.APIKeyFile)
	}
	return key, file, err
}

// mayHaveAPIKey reports whether an API key may prove this caller: one of the configuration
// does, or there is a file of keys, which may change at any time.
func (c *Config) mayHaveAPIKey(principal string) bool {
	return c.APIKeyFile != "" || slices.Contains(c.apiKeyPrincipals(), principal)
}

// keyPrincipals are whom the signing keys prove, sorted.
func (c *Config) keyPrincipals() []string {
	var all []string
	for _, k := range c.SigningKeys {
		if slices.Contains(k.Uses(), auth.VerifyRequest) {
			all = append(all, k.Principal)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Aliases maps each qualified name of `principals` to its alias.
func (c *Config) Aliases() map[string]string {
	all := map[string]string{}
	for alias, proofs := range c.Principals {
		for _, p := range proofs {
			all[p] = alias
		}
	}
	return all
}

// checkRouteIntegrity records the faults of the section on a route, and demands
// that no caller could meet.
func (c *Config) checkRouteIntegrity(r *route.Config, at string, f *setting.Faults) {
	i, path := &r.Integrity, at+".integrity"
	for _, w := range []struct {
		name, value string
		words       []string
	}{
		{"request", i.Request, []string{seal.WhenKey, seal.Always}},
		{"response", i.Response, []string{seal.Sign, off}},
		{"body", i.Body, []string{seal.HoldBody, seal.StreamBody, seal.HeadersOnly}},
		{"events", i.Events, []string{seal.Trailer, seal.Inline}},
	} {
		if w.value != "" && !slices.Contains(w.words, w.value) {
			f.Add(path+"."+w.name, w.value, "no such choice", "write one of "+strings.Join(w.words, ", "))
		}
	}
	c.checkUnsigned(r, path, f)
	c.checkBodyMode(r, path, f)
	for j, name := range i.Cover {
		if !message.ValidName(name) || name != strings.ToLower(name) || message.OfConnection(message.Fold(name)) {
			f.Add(setting.Index(path+".cover", j), name, "not a field that can be signed", "write the lower-case name of a field that nobody on the way changes, such as authorization")
		}
	}
	c.checkBinding(r, at, f)
}

// checkUnsigned records settings about signatures where none are taken.
func (c *Config) checkUnsigned(r *route.Config, path string, f *setting.Faults) {
	i := &r.Integrity
	anonymous := slices.Contains(r.Callers.Names(), route.Anonymous)
	switch {
	case i.Request == seal.Always && anonymous:
		f.Add(path+".request", i.Request, "anonymous callers have no keys", "list the callers, or remove the line")
	case i.Request == seal.Always && len(c.keyPrincipals()) == 0:
		f.Add(path+".request", i.Request, "there is no signing key, so no caller could sign", "add one under signing_keys; sallyport keygen makes one")
	}
	if r.TakesSignatures() {
		return
	}
	_, u, _ := c.UpstreamOf(r)
	for _, s := range []struct {
		name, value string
		given       bool
	}{
		{"body", i.Body, i.Body != ""},
		{"buffer", i.Buffer.String(), i.Buffer != 0 && !u.Integrity.Digests() && !c.readsModel(r)},
		{"cover", strings.Join(i.Cover, ", "), len(i.Cover) > 0},
		{"forward_client_signature", "true", i.ForwardClientSignature},
	} {
		if s.given {
			f.Add(path+"."+s.name, s.value, "the route takes no signatures", "add key to callers, or remove the line")
		}
	}
	if i.Response == seal.Sign && c.Integrity.Publish == "" {
		f.Add(path+".response", i.Response, "callers here have no keys, and the gateway publishes none", "name a key in integrity.publish, or remove the line")
	}
}

// readsModel reports whether bodies may be held in order to read them: for the model, or to count what they
// ask for.
func (c *Config) readsModel(r *route.Config) bool {
	if d := c.DialectOf(r); d.HasBatches() && !d.ActsOnWhole() && r.Limits.Most() != (model.Most{}) {
		return true
	}
	return c.DialectOf(r).ModelInBody() && (r.Limits.NeedModel() || slices.ContainsFunc(c.RulesOf(r), func(r policy.Rule) bool { return r.AboutModels() }))
}

// checkBodyMode records ways to check bodies that would be unsafe on the route.
func (c *Config) checkBodyMode(r *route.Config, path string, f *setting.Faults) {
	i := &r.Integrity
	_, u, _ := c.UpstreamOf(r)
	d := c.DialectOf(r)
	switch {
	case i.Body == seal.StreamBody && !d.ActsOnWhole():
		f.Add(path+".body", i.Body, d.Name()+" servers may act before a body has ended, and so before it is checked", "write buffer, or say what the upstream serves")
	case i.Body == seal.HeadersOnly && c.Listen.InsecurePlain != nil:
		f.Add(path+".body", i.Body, "bodies that nobody signs need TLS up to here, and listen.insecure_plain has none", "write buffer")
	case i.Body != "" && i.Body != seal.HoldBody && i.Buffer != 0 && d.ActsOnWhole() && !u.Integrity.Digests() && !c.readsModel(r):
		f.Add(path+".buffer", i.Buffer.String(), "bodies are not held here", "remove the line, or write body: buffer")
	}
	if size := r.Limits.BodyBytes(); i.Buffer != 0 && int64(i.Buffer) > size {
		f.Add(path+".buffer", i.Buffer.String(), "more than limits.body lets through", "raise limits.body, which is "+setting.Size(size).String())
	}
	memory := int64(c.Integrity.WithDefaults().Memory)
	for _, b := range []struct {
		name string
		size setting.Size
	}{{"buffer", i.Buffer}, {"response_buffer", i.ResponseBuffer}} {
		if int64(b.size) > memory {
			f.Add(path+"."+b.name, b.size.String(), "more than integrity.memory has for all of them", "raise integrity.memory, which is "+setting.Size(memory).String())
		}
	}
	if i.ForwardClientSignature && u.Integrity.Sign != "" {
		f.Add(path+".forward_client_signature", "true", "the upstream gets the gateway's signature", "remove the line, or integrity.sign of the upstream")
	}
}

// checkBinding records demands for two proofs that no caller could have both.
func (c *Config) checkBinding(r *route.Config, at string, f *setting.Faults) {
	all := len(r.Callers.All) > 0
	switch b := r.Callers.Bind; {
	case b != "" && b != route.BindAlias && b != route.BindIndependent:
		f.Add(at+".callers.bind", b, "no such choice", "write alias or independent")
		return
	case b == route.BindIndependent:
		return
	case !all && r.Integrity.Request != seal.Always:
		return
	}
	kinds := callersByKind(r.Callers.Names())
	if r.Integrity.Request == seal.Always && kinds["key"] == nil {
		kinds["key"] = []string{"key"}
	}
	if len(kinds) < 2 || kinds["key"] != nil && len(c.keyPrincipals()) == 0 {
		return // one kind of proof, or a fault that is reported elsewhere
	}
	for _, proofs := range c.Principals {
		missing := false
		for _, callers := range kinds {
			missing = missing || !slices.ContainsFunc(proofs, func(p string) bool {
				return slices.ContainsFunc(callers, func(caller string) bool { return c.provenBy(caller, p) })
			})
		}
		if !missing {
			return
		}
	}
	where := at + ".callers"
	if !all {
		where = at + ".integrity.request"
	}
	var words, pair []string
	for _, kind := range []struct{ kind, word string }{
		{"issuer", "token"}, {"apikey", "API key"}, {"basic", "password"}, {"cert", "certificate"}, {"key", "signature"},
	} {
		callers := kinds[kind.kind]
		if callers == nil {
			continue
		}
		words = append(words, kind.word)
		switch last := callers[len(callers)-1]; {
		case kind.kind == "issuer" || kind.kind == "basic":
			pair = append(pair, callers[0]+":SUBJECT")
		case last != kind.kind:
			pair = append(pair, strings.Replace(last, "/", ":", 1))
		case kind.kind == "key":
			pair = append(pair, "key:"+c.keyPrincipals()[0])
		default:
			pair = append(pair, kind.kind+":NAME")
		}
	}
	f.Add(where, strings.Join(r.Callers.Names(), ", "), "no caller could have both: "+strings.Join(words, " and ")+" must be of one entry under principals, and none has such a pair",
		fmt.Sprintf("write principals: {NAME: [%s]}, or callers: {all: [...], bind: independent}", strings.Join(pair, ", ")))
}
