package config

import (
	"maps"
	"slices"

	"sallyport/proxy/setting"
)

// checkIssuers records the faults of each issuer and between them.
func (c *Config) checkIssuers(f *setting.Faults) {
	fields := map[string]string{} // to the issuer that first names it
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		checkName("issuers", name, f)
		i, at := c.Issuers[name], "issuers."+name
		i.Check(at, f)
		field := i.TokenFrom.Field()
		if field == "" {
			continue
		}
		if c.identityFields()[field] {
			f.Add(at+".token_from.header", i.TokenFrom.Header, "is the field of a route's identity, which no request may have", "name another field")
		}
		if first, taken := fields[field]; !taken {
			fields[field] = name
		} else if !i.TokenFrom.Same(c.Issuers[first].TokenFrom) {
			f.Add(at+".token_from.from", "", "issuer "+first+" takes the same field from other addresses", "list the same addresses for both")
		}
	}
}

// TokenFields are the lower-case names of the fields in which proxies add tokens, sorted.
func (c *Config) TokenFields() []string {
	var all []string
	for _, i := range c.Issuers {
		if field := i.TokenFrom.Field(); field != "" {
			all = append(all, field)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
