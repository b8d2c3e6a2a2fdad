package proxy

import (
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// checkHandling records the faults of what a route does to messages on their way.
func (c *Config) checkHandling(r *RouteConfig, at string, f *setting.Faults) {
	r.checkRewriting(at, f)
	r.checkHeaders(at, c.identityFields(), f)
	r.checkAccess(at, f)
	r.checkRespond(at, f)
	r.Compress.check(at+".compress", f)
	if r.CORS != nil {
		r.CORS.check(at+".cors", f)
	}
}

// identityFields are the folded names of the identity fields of all routes.
func (c *Config) identityFields() map[string]bool {
	all := map[string]bool{}
	for i := range c.Routes {
		principal, scopes, requestID := c.Routes[i].Identity.Names()
		for _, name := range []string{principal, scopes, requestID} {
			if name != "" {
				all[message.Fold(name)] = true
			}
		}
	}
	return all
}
