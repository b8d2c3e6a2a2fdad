package exchange

import (
	"net/netip"
	"strings"
	"sync/atomic"

	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
)

// Snapshot is what one configuration says to exchanges. It is immutable once the first
// exchange has it, but for the count of the exchanges that use it: an exchange takes
// the current snapshot once, so that one request sees one configuration.
//
// The current snapshot is held by the [Server]; [Server.Swap] puts another in its place.
type Snapshot struct {
	Routes   route.Table
	Guard    route.Guard
	Proxies  []netip.Prefix // whose X-Forwarded-For is believed
	Signers  *seal.Signers
	BodyRate int64 // bytes a second that a body must bring on average; zero: no bound
	// PublicHTTPS is the port of HTTPS as clients see it; 0: that of the listener.
	PublicHTTPS int
	// ForwardAuth is the dialect of the proxies that ask for decisions; "": none may.
	ForwardAuth string

	users   atomic.Int64  // exchanges, and one while it is current
	drained chan struct{} // closed when nobody uses it any more
}

// retired marks the count of a snapshot that nobody may take any more.
const retired = -1 << 40

// Drained is closed once the snapshot is not current any more and its last exchange
// has finished. It is valid from [New] or [Server.Swap] on.
func (s *Snapshot) Drained() <-chan struct{} { return s.drained }

// enter takes the snapshot for one exchange, unless it has been retired.
func (s *Snapshot) enter() bool {
	if s.users.Add(1) > 0 {
		return true
	}
	s.users.Add(-1)
	return false
}

func (s *Snapshot) leave() {
	// Somebody may have entered again since the count was zero; then it is not over yet.
	if s.users.Add(-1) == 0 && s.users.CompareAndSwap(0, retired) {
		close(s.drained)
	}
}

// clientOf returns whose address counts for limits and the record: the peer's, or,
// where the peer is a trusted proxy, the last address in its X-Forwarded-For that is
// not one too. It also says whether the peer is such a proxy.
func (s *Snapshot) clientOf(peer netip.Addr, fields message.Fields) (netip.Addr, bool) {
	if !s.isProxy(peer) {
		return peer, false
	}
	client := peer
	for i := len(fields) - 1; i >= 0; i-- {
		if fields[i].Name != "x-forwarded-for" {
			continue
		}
		for rest := fields[i].Value; rest != ""; {
			var last string
			if c := strings.LastIndexByte(rest, ','); c >= 0 {
				rest, last = rest[:c], rest[c+1:]
			} else {
				rest, last = "", rest
			}
			a, err := netip.ParseAddr(strings.Trim(last, " \t"))
			if err != nil {
				return client, true // what stands further left is not to be believed either
			}
			if client = a.Unmap(); !s.isProxy(client) {
				return client, true
			}
		}
	}
	return client, true
}

func (s *Snapshot) isProxy(a netip.Addr) bool {
	for _, p := range s.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
