package route

import (
	"slices"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// spoofable are the bare names of request fields by which applications behind other proxies learn
// who calls: proxies that authenticate set them, and the applications believe them. A star stands
// for any ending. The names are sorted, and none begins with another's beginning, so that one search
// finds the only entry that may fit.
var spoofable = [...]string{
	"cf-access-*",   // Cloudflare Access
	"client-cert*",  // RFC 9440
	"impersonate-*", // Kubernetes
	"kubeflow-groups",
	"kubeflow-userid",
	"oidc-*",       // mod_auth_openidc
	"remote-email", // Authelia, and REMOTE_USER of CGI
	"remote-groups",
	"remote-name",
	"remote-user",
	"shib-*",       // Shibboleth, with ShibUseHeaders
	"sm-user",      // SiteMinder
	"ssl-client-*", // ingress-nginx, Apache
	"tailscale-user-*",
	"x-amzn-mtls-*", // AWS load balancers
	"x-amzn-oidc-*",
	"x-anonymous-consumer", // Kong
	"x-apigateway-api-userinfo",
	"x-arr-clientcert", // Azure App Service
	"x-auth-audience",  // Gatekeeper, once Louketo
	"x-auth-email",
	"x-auth-groups",
	"x-auth-name",
	"x-auth-request-*", // oauth2-proxy
	"x-auth-roles",     // Gatekeeper
	"x-auth-subject",
	"x-auth-user",
	"x-auth-userid",
	"x-auth-username",
	"x-authenticated-*",
	"x-authentik-*",
	"x-client-cert*",  // Google Cloud load balancers
	"x-client-dn",     // Puppet behind nginx
	"x-client-verify", // Puppet behind nginx
	"x-consumer-*",    // Kong
	"x-credential-*",  // Kong
	"x-endpoint-api-userinfo",
	"x-forwarded-access-token", // oauth2-proxy
	"x-forwarded-client-cert",  // Envoy
	"x-forwarded-email",
	"x-forwarded-groups",
	"x-forwarded-preferred-username",
	"x-forwarded-tls-client-cert*", // Traefik
	"x-forwarded-user",
	"x-goog-authenticated-user-*", // Google IAP
	"x-goog-iap-*",
	"x-id-token", // APISIX
	"x-jwt-*",
	"x-ms-client-principal*", // Azure
	"x-ms-token-*",
	"x-pomerium-*",
	"x-remote-extra-*", // Kubernetes
	"x-remote-group*",
	"x-remote-user",
	"x-ssl-cert*",
	"x-ssl-client-*",
	"x-token-subject", // caddy-security
	"x-token-user-*",
	"x-user", // Oathkeeper
	"x-user-email",
	"x-user-groups",
	"x-user-id",
	"x-user-name",
	"x-user-roles",
	"x-userinfo", // APISIX, Kong
	"x-vouch-*",
	"x-webauth-*", // Grafana
}

// Spoofable reports whether a request field tells applications behind other proxies who calls. name
// may have any spelling that servers fold. It does not allocate for names without odd separators.
func Spoofable(name string) bool {
	if !mayBeSpoofable(name) {
		return false
	}
	_, found := spoofableEntry(bare(name))
	return found
}

// mayBeSpoofable is a screen by the first two bytes, which most fields of most requests fail. A name
// with other bytes than lower-case letters there passes, because servers may fold or trim them.
func mayBeSpoofable(name string) bool {
	if len(name) < 2 {
		return false
	}
	first, second := name[0], name[1]
	switch {
	case !isLower(first), second != '-' && !isLower(second):
		return true
	case second == '-':
		return first == 'x'
	case first == 'c':
		return second == 'f' || second == 'l'
	case first == 'i':
		return second == 'm'
	case first == 's':
		return second == 'h' || second == 'm' || second == 's'
	case first == 'k':
		return second == 'u'
	case first == 'o':
		return second == 'i'
	case first == 'r':
		return second == 'e'
	case first == 't':
		return second == 'a'
	}
	return false
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

// spoofableEntry returns the entry of the list that covers a bare name.
func spoofableEntry(bare string) (entry string, found bool) {
	i, exact := slices.BinarySearchFunc(spoofable[:], bare, func(entry, name string) int {
		return strings.Compare(strings.TrimSuffix(entry, "*"), name)
	})
	switch {
	case exact:
		return spoofable[i], true
	case i == 0:
		return "", false
	}
	beginning, open := strings.CutSuffix(spoofable[i-1], "*")
	return spoofable[i-1], open && strings.HasPrefix(bare, beginning)
}

// Passed are the fields of the list that a route sends on.
type Passed struct{ names []string }

// NewPassed compiles the names of a checked configuration.
func NewPassed(names []string) Passed {
	var p Passed
	for _, n := range names {
		p.names = append(p.names, bare(n))
	}
	return p
}

// Drops reports whether a client's field must not be sent on. A field that the route sends on must be
// in its usual spelling: a server that folds names could prefer another line.
func (p *Passed) Drops(name string) bool { return Spoofable(name) && !slices.Contains(p.names, name) }

// checkPassed records the faults of pass_identity_fields. identity holds the folded names of the
// identity fields of all routes.
func (r *Config) checkPassed(at string, identity map[string]bool, f *setting.Faults) {
	seen := map[string]bool{}
	for i, name := range r.PassIdentityFields {
		at := setting.Index(at+".pass_identity_fields", i)
		folded := bare(name)
		_, listed := spoofableEntry(folded)
		switch {
		case !message.ValidName(name):
			f.Add(at, name, "not a field name", "write one such as Cf-Access-Jwt-Assertion")
		case identity[folded] || identity[message.Fold(name)] || strings.HasPrefix(folded, "x-sallyport-"):
			f.Add(at, name, "is the gateway's own, by which upstreams learn who calls", "rename it under identity, or remove it here")
		case !listed:
			f.Add(at, name, "is not among the fields that are dropped because they tell who calls", passedCure(folded))
		case seen[folded]:
			f.Add(at, name, "is listed twice", "remove one of the two")
		}
		seen[folded] = true
	}
}

// passedCure says which name of the list may be meant.
func passedCure(folded string) string {
	var names []string
	for _, entry := range spoofable {
		if !strings.HasSuffix(entry, "*") {
			names = append(names, strings.ReplaceAll(entry, "-", "_")) // as [setting.Nearest] compares
		}
	}
	if near := setting.Nearest(folded, names); near != "" {
		return "did you mean " + strings.ReplaceAll(near, "_", "-") + "?"
	}
	return "remove it"
}
