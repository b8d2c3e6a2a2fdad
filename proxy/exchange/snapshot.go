package exchange

import (
	"net/netip"
	"strings"
	"sync/atomic"

	"sallyport/proxy/credential"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// Snapshot holds one configuration in the form that exchanges use. It is immutable once in use,
// except for the count of its exchanges. An exchange takes the current snapshot once, so that one
// request sees one configuration.
//
// The [Server] holds the current snapshot; [Server.Swap] replaces it.
type Snapshot struct {
	Routes  route.Table
	Guard   route.Guard
	Proxies []netip.Prefix // proxies whose X-Forwarded-For is trusted
	Signers *seal.Signers
	// Assertions are the keys by which upstreams verify what the gateway asserts of callers.
	Assertions *credential.KeySet
	// Logins is how people sign in on hosts with a door; nil if no host has one.
	Logins *Logins
	// Own are the limits that some API keys have besides those of routes, by the key's name.
	Own      map[string]*limit.Own
	BodyRate int64 // minimum average rate of bodies in bytes per second; zero: none
	// PublicHTTPS is the HTTPS port as clients see it; 0 means that of the listener.
	PublicHTTPS int
	// ForwardAuth is the dialect of proxies that ask for decisions; "" refuses all of them.
	ForwardAuth string
	// ReplacesCookie is [ForwardAuthConfig.ReplacesCookie].
	ReplacesCookie bool
	// CheckConn returns why a connection may not carry requests for a host that asks for client
	// certificates: a [*Misdirected], or an [*auth.Error] if the connection's certificate is refused
	// by now. Nil: no host asks for any.
	CheckConn func(host string, c *wire.Conn) error
	// CheckBalanced returns an [*auth.Error] if the host of a request requires client certificates,
	// a balancer has ended the client's TLS, and its field proves none. Nil like CheckConn.
	CheckBalanced func(head *message.Head, c *wire.Conn) error
	// CertificateField reports whether the peer of a connection sends clients' certificates for the
	// host in a field of this name. Nil like CheckConn.
	CertificateField func(host, name string, c *wire.Conn) bool
	// Outdated reports whether a new connection might have a client certificate where this one has
	// none: its handshake did not ask by the present policy of the host. Nil like CheckConn.
	Outdated func(host string, c *wire.Conn) bool
	// Durable says when the records of requests without a route must be in the audit log.
	Durable setting.Durability

	users   atomic.Int64  // number of exchanges, plus one while it is current
	drained chan struct{} // closed when it is no longer in use
}

// checkConn returns why a connection may not carry a request for this host. A handshake asks for a
// certificate by the policy of the name in it, as it was then.
func (s *Snapshot) checkConn(host string, c *wire.Conn) error {
	if s.CheckConn == nil {
		return nil
	}
	return s.CheckConn(host, c)
}

// checkBalanced returns why a balancer's request may not use its host.
func (s *Snapshot) checkBalanced(head *message.Head, c *wire.Conn) error {
	if s.CheckBalanced == nil {
		return nil
	}
	return s.CheckBalanced(head, c)
}

// Misdirected is the error for a request on a connection whose handshake did not ask for client
// certificates as the host of the request does.
type Misdirected struct {
	Cause string
	// Outdated says that the host asked for none at the time of the handshake. A new connection will
	// do, so this one is closed.
	Outdated bool
}

func (e *Misdirected) Error() string { return e.Cause }

// retired is the count of a snapshot that can no longer be taken.
const retired = -1 << 40

// Drained returns a channel that is closed once the snapshot is no longer current and its last
// exchange has finished. It is valid after [New] or [Server.Swap].
func (s *Snapshot) Drained() <-chan struct{} { return s.drained }

// enter counts an exchange as user of the snapshot, unless it has been retired.
func (s *Snapshot) enter() bool {
	if s.users.Add(1) > 0 {
		return true
	}
	s.users.Add(-1)
	return false
}

func (s *Snapshot) leave() {
	// An exchange may have entered since the count was zero; then the snapshot is still in use.
	if s.users.Add(-1) == 0 && s.users.CompareAndSwap(0, retired) {
		close(s.drained)
	}
}

// clientOf returns the address that counts for limits and the record. For a trusted proxy that is
// the last address in its X-Forwarded-For that is not a trusted proxy; otherwise it is the peer's.
// It also reports whether the peer is a trusted proxy.
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
				return client, true // addresses further left are not trustworthy either
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
