package proxy

import (
	"net/netip"

	"sallyport/proxy/setting"
)

// access says from which addresses a route takes requests. The zero access takes
// them from everywhere. It is immutable.
type access struct{ allow, deny []netip.Prefix }

func newAccess(c *RouteConfig) access {
	var a access
	for _, p := range c.AllowFrom {
		a.allow = append(a.allow, p.Prefix)
	}
	for _, p := range c.DenyFrom {
		a.deny = append(a.deny, p.Prefix)
	}
	return a
}

// admits says whether requests from an address are taken: a deny wins, then any
// allow. An address that is not known is admitted only where none is asked for.
func (a *access) admits(client netip.Addr) bool {
	if len(a.allow) == 0 && len(a.deny) == 0 {
		return true
	}
	client = client.Unmap().WithZone("")
	if !client.IsValid() || within(client, a.deny) {
		return false
	}
	return len(a.allow) == 0 || within(client, a.allow)
}

func within(a netip.Addr, all []netip.Prefix) bool {
	for _, p := range all {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// place refuses clients by their address, before any proof is looked at: from
// elsewhere not even a guess at a credential counts.
func (x *exchange) place() error {
	if !x.route.access.admits(x.client) {
		return &refusal{reason: reasonAddress}
	}
	return nil
}

// checkAccess records ranges that say nothing or contradict one another.
func (r *RouteConfig) checkAccess(at string, f *setting.Faults) {
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
