package route

import (
	"net/netip"

	"sallyport/proxy/setting"
)

// Access lists the addresses from which a route accepts requests. The zero Access accepts all. It
// is immutable.
type Access struct{ allow, deny []netip.Prefix }

// NewAccess compiles the lists of a checked route.
func NewAccess(c *Config) Access {
	var a Access
	for _, p := range c.AllowFrom {
		a.allow = append(a.allow, p.Prefix)
	}
	for _, p := range c.DenyFrom {
		a.deny = append(a.deny, p.Prefix)
	}
	return a
}

// Admits reports whether the route accepts requests from an address. Deny ranges take precedence
// over allow ranges. An unknown address is admitted only if there are no ranges.
func (a *Access) Admits(client netip.Addr) bool {
	if len(a.allow) == 0 && len(a.deny) == 0 {
		return true
	}
	client = client.Unmap().WithZone("")
	if !client.IsValid() || within(client, a.deny) {
		return false
	}
	return len(a.allow) == 0 || within(client, a.allow)
}

// Refusal returns why [Access.Admits] is false for an address, for the audit record.
func (a *Access) Refusal(client netip.Addr) string {
	client = client.Unmap().WithZone("")
	for _, p := range a.deny {
		if p.Contains(client) {
			return client.String() + " is in " + p.String() + " of deny_from"
		}
	}
	if !client.IsValid() {
		return "the client has no address"
	}
	return client.String() + " is in no range of allow_from"
}

func within(a netip.Addr, all []netip.Prefix) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// checkAccess records ranges that have no effect or contradict one another.
func (r *Config) checkAccess(at string, f *setting.Faults) {
	for i, p := range r.AllowFrom {
		at := setting.Index(at+".allow_from", i)
		switch {
		case !p.IsValid():
		case p.Bits() == 0:
			f.Add(at, p.String(), "allows every address", "remove the line, or list the addresses that may call")
		default:
			for _, d := range r.DenyFrom {
				if d.IsValid() && d.Bits() <= p.Bits() && d.Overlaps(p.Prefix) {
					f.Add(at, p.String(), "lies in "+d.String()+" of deny_from, which wins", "remove one of the two; what allow_from does not list is refused without a deny")
					break
				}
			}
		}
	}
	for i, p := range r.DenyFrom {
		if p.IsValid() && p.Bits() == 0 && len(r.AllowFrom) == 0 {
			f.Add(setting.Index(at+".deny_from", i), p.String(), "denies every address", "list those that may call under allow_from, and remove the line")
		}
	}
}
