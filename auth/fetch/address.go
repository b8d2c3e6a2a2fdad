package fetch

import "net/netip"

// metadata are the addresses of cloud metadata services, which hand out credentials.
// Those in link-local ranges need no entry.
var metadata = [...]netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved    = netip.MustParsePrefix("240.0.0.0/4") // broadcast too
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	localNAT64  = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour   = netip.MustParsePrefix("2002::/16")
	mapped      = netip.MustParsePrefix("::ffff:0:0:0/96") // IPv4-translated, RFC 2765
	compatible  = netip.MustParsePrefix("::/96")           // IPv4-compatible, RFC 4291
)

// allowed reports whether an address may be dialed. For an IPv6 address that embeds an
// IPv4 address, such as NAT64, the embedded address decides.
func allowed(a netip.Addr) bool {
	switch {
	case !a.IsValid(), a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.Zone() != "":
		return false
	case a.IsLoopback():
		return true
	}
	for _, m := range metadata {
		if a == m {
			return false
		}
	}
	if a.Is4() {
		return !thisNetwork.Contains(a) && !reserved.Contains(a)
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), localNAT64.Contains(a), mapped.Contains(a), compatible.Contains(a):
		return allowed(netip.AddrFrom4([4]byte(b[12:16])))
	case sixToFour.Contains(a):
		return allowed(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return true
}
