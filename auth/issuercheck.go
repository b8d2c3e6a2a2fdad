package auth

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// documents is what the path of a document about an issuer has and that of an issuer has not.
const documents = "/.well-known/"

// checkAddresses records the faults of the URLs.
func (c *IssuerConfig) checkAddresses(at func(string) string, f *setting.Faults) {
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		f.Add(at("url"), "", "an issuer needs its URL", "write the value that its tokens have as iss")
		return
	case len(c.Tenants) == 0 && strings.ContainsAny(c.URL, "{}"):
		f.Add(at("url"), c.URL, "braces stand for a name that is missing: no token has them in iss", "write what its tokens have as iss; for several tenants of Entra write {tenantid} and list them under tenants")
		return
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		f.Add(at("url"), c.URL, "not the URL of an issuer", "write one such as https://login.example.com/realms/ml")
		return
	case strings.Contains(u.Path, documents):
		f.Add(at("url"), c.URL, "the URL of a document about the issuer, and not that of the issuer", "write what its tokens have as iss: without "+u.Path[strings.Index(u.Path, documents):])
		return
	}
	if c.JWKSFile != "" {
		c.checkNothingFetched(at, f)
	}
	c.checkAccess(at, f)
	fetched := c.fetched()
	if _, named := fetched["url"]; !named && u.Scheme != "https" && u.Scheme != "http" {
		f.Add(at("url"), c.URL, "not the URL of an issuer", "write one such as https://login.example.com/realms/ml")
	}
	for _, field := range [...]string{"url", "discovery", "jwks"} {
		u := fetched[field]
		switch {
		case u == nil:
		case field == "discovery" && strings.Contains(u.Path, documents):
			f.Add(at(field), u.String(), "the URL of a document, and not what stands before "+documents, "remove "+u.Path[strings.Index(u.Path, documents):])
		default:
			if err := fetch.CheckURL(u, c.InsecureHTTP); err != nil {
				f.Add(at(field), u.String(), err.Error(), "use https, or set insecure_http: true if the network of the issuer is trusted")
			}
		}
	}
}

// fetched returns the URLs of the configuration that the gateway fetches from, by their field.
// With jwks, discovery or jwks_file it never fetches url, which is only a name then.
func (c *IssuerConfig) fetched() map[string]*url.URL {
	all := map[string]*url.URL{}
	if c.JWKSFile != "" {
		return all
	}
	if !c.Discovery.IsZero() {
		all["discovery"] = c.Discovery.URL
	}
	if !c.JWKS.IsZero() {
		all["jwks"] = c.JWKS.URL
	}
	if len(all) == 0 {
		if u, err := url.Parse(c.discovery()); err == nil {
			all["url"] = u
		}
	}
	return all
}

// checkNothingFetched records settings that have no meaning beside jwks_file.
func (c *IssuerConfig) checkNothingFetched(at func(string) string, f *setting.Faults) {
	asked := c.Introspection != nil // and so reached, though not for keys
	for _, other := range []struct {
		field string
		set   bool
	}{
		{"jwks", !c.JWKS.IsZero()}, {"discovery", !c.Discovery.IsZero()}, {"ca", c.CA != "" && !asked}, {"token_file", c.TokenFile != ""},
		{"proxy", !c.Proxy.URL.IsZero() && !asked}, {"insecure_http", c.InsecureHTTP && !asked},
		{"refresh", c.Refresh != 0}, {"max_stale", c.MaxStale != 0},
	} {
		if other.set {
			f.Add(at(other.field), "", "has no meaning beside jwks_file, with which nothing is fetched", "remove one of the two")
		}
	}
}

// Warn records what is no fault but will probably not work.
func (c *IssuerConfig) Warn(path string, f *setting.Faults) {
	u, err := url.Parse(c.URL)
	if err != nil || c.Discovery.IsZero() || !c.JWKS.IsZero() || u.Scheme != "http" || fetch.CheckURL(u, c.InsecureHTTP) == nil {
		return
	}
	f.Add(setting.Join(path, "discovery"), c.Discovery.String(), "the document will probably name keys at http://"+u.Host+", like url, and they will be refused: anyone on the path could replace them",
		"write jwks: with a URL of https or of this machine, or set insecure_http: true if the network of the issuer is trusted")
}

// tenantPlace stands in the URL of Entra's discovery document for the tenant.
const tenantPlace = "{tenantid}"

// mostTenants is how many tenants an issuer may have: each token is compared with all of them.
const mostTenants = 1000

var tenantID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// checkTenants records the faults of tenants.
func (c *IssuerConfig) checkTenants(at func(string) string, f *setting.Faults) {
	if len(c.Tenants) == 0 {
		return
	}
	if rest := strings.Replace(c.URL, tenantPlace, "", 1); rest == c.URL || strings.ContainsAny(rest, "{}") {
		f.Add(at("url"), c.URL, "with tenants, the url has {tenantid} once, and no other braces", "write https://login.microsoftonline.com/{tenantid}/v2.0, or remove tenants")
	}
	if c.Introspection != nil {
		f.Add(at("introspection"), "", "no answer about a token would say of which tenant it is", "remove one of tenants and introspection")
	}
	if len(c.Tenants) > mostTenants {
		f.Add(at("tenants"), strconv.Itoa(len(c.Tenants)), "too many tenants", "list "+strconv.Itoa(mostTenants)+" at most")
	}
	seen := map[string]bool{}
	for i, tenant := range c.Tenants {
		switch {
		case !tenantID.MatchString(tenant):
			f.Add(setting.Index(at("tenants"), i), tenant, "not the id of a tenant as tokens have it", "write the Directory (tenant) ID of Entra, in lower case, such as 72f988bf-86f1-41af-91ab-2d7cd011db47")
		case seen[tenant]:
			f.Add(setting.Index(at("tenants"), i), tenant, "is listed twice", "remove one of the two")
		}
		seen[tenant] = true
	}
}

// urls returns the values of iss that tokens may have.
func (c *IssuerConfig) urls() []string {
	if len(c.Tenants) == 0 {
		return []string{c.URL}
	}
	var all []string
	for _, tenant := range c.Tenants {
		all = append(all, strings.Replace(c.URL, tenantPlace, tenant, 1))
	}
	return all
}

// discovery returns the URL before that of the discovery document; "" for none. Entra has one
// document for all tenants, under the name organizations.
func (c *IssuerConfig) discovery() string {
	switch {
	case !c.Discovery.IsZero():
		return c.Discovery.String()
	case !c.JWKS.IsZero():
		return ""
	}
	return strings.Replace(c.URL, tenantPlace, "organizations", 1)
}
